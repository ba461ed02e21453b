"""The agent of the lab with no more privileges than the hardened variant of the manifests.

NETUTIL_TEST_CONFINED=1 starts every agent of the lab so: `make test-hardened`. What such an agent
documentedly refuses, tests then expect to be refused (`CONFINED`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.manifests import enter
from tests.support.manifests.privileges import (
    hardened_capabilities,
    under_seccomp,
    with_capabilities,
)

CONFINED = os.environ.get("NETUTIL_TEST_CONFINED", "") == "1"
_TMP = "/run/tmp"


def confined(command: Sequence[str], root: Path, writable: Sequence[Path]) -> list[str]:
    """The command in a container as the hardened manifest describes it, but for its paths.

    Its capabilities, no new privileges, its seccomp profile; a read-only root file system and
    /sys, a private cgroup namespace, a small /tmp of its own (by TMPDIR). The machine's /tmp
    is seen, read-only, since a lab is there; `writable` are the directories of sockets.
    `root` is an empty directory.
    """
    seen = {"propagation": True, "read_only": "recursive"}
    own = {"propagation": False, "read_only": False}
    inherited = {name: word for name, word in os.environ.items() if not name.startswith("NETUTIL_")}
    container = {
        "root": str(root),
        "mounts": [
            *({"target": path, "source": path, **seen} for path in ("/sys", "/tmp")),
            *({"target": str(path), "source": str(path), **own} for path in writable),
            {"target": _TMP, "source": None, "options": "mode=1777,size=1m", **own},
        ],
        "read_only_root": True,
        "private_cgroup_namespace": True,
        "env": {**inherited, "TMPDIR": _TMP, "PYTHONDONTWRITEBYTECODE": "1"},
        "argv": [*with_capabilities(*hardened_capabilities()), *under_seccomp(), *command],
    }
    return [sys.executable, "-I", "-S", enter.__file__, json.dumps(container)]
