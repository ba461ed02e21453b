"""Prefixes that take privileges away from a command, and the privileges of the hardened variant."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any

from tests.support.manifests import seccomp
from tests.support.manifests.documents import HARDENED, MANIFESTS, Manifest, agent_of, read

PROFILE = MANIFESTS / "hardened" / "seccomp.json"
LOCALHOST_PROFILE = "netutil/agent.json"
"""Its name on the node, below the kubelet's `<root-dir>/seccomp`."""


def hardened_capabilities() -> frozenset[str]:
    """Return the capabilities that the hardened variant adds after dropping all."""
    context = agent_of(read(HARDENED))["securityContext"]
    return frozenset(context["capabilities"]["add"])


def profile_of(objects: list[Manifest]) -> str:
    """The path, here, of the profile that the agent's container names."""
    named = agent_of(objects)["securityContext"]["seccompProfile"]
    assert named == {"type": "Localhost", "localhostProfile": LOCALHOST_PROFILE}
    return str(PROFILE)


def profile() -> dict[str, Any]:
    """The hardened variant's seccomp profile, parsed again."""
    parsed = json.loads(PROFILE.read_text(encoding="utf-8"))
    assert isinstance(parsed, dict)
    return parsed


def with_capabilities(*names: str) -> tuple[str, ...]:
    """A prefix that runs a command with these capabilities and no way to others."""
    program = shutil.which("setpriv")
    assert program is not None
    bounding = "".join(f",+{name.lower()}" for name in names)
    return (program, "--no-new-privs", f"--bounding-set=-all{bounding}", "--inh-caps=-all")


def under_seccomp(path: str = str(PROFILE)) -> tuple[str, ...]:
    """A prefix that runs a command under a profile; it needs no_new_privs."""
    return (sys.executable, "-I", "-S", seccomp.__file__, path)


def mask(names: Iterable[str]) -> int:
    """The bit mask of capabilities, as /proc/<pid>/status shows it."""
    return sum(1 << _all_capabilities().index(name.lower()) for name in names)


@cache
def _all_capabilities() -> list[str]:
    """The names in the order of their numbers."""
    done = subprocess.run(["setpriv", "--list-caps"], capture_output=True, text=True, check=True)
    return done.stdout.split()
