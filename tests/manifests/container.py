"""From a manifest to a command that starts the agent in a container made as it says.

These values come from the manifest: arguments, environment, mounts
with their modes, capabilities, the seccomp profile. Only the directories of the host
are others. Not had without a container runtime: AppArmor, SELinux, a network namespace
of the pod.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netutil.agent.config import SERVICE_ACCOUNT

from tests.support.lab.agent import COMMAND
from tests.support.manifests import enter
from tests.support.manifests.documents import (
    Manifest,
    agent_of,
    arguments_of,
    environment_of,
    mounts_of,
    pod_of,
)
from tests.support.manifests.privileges import profile_of, under_seccomp, with_capabilities
from tests.support.repository import ROOT

_SIZES = {"Mi": "m"}


def command(
    objects: list[Manifest],
    node: dict[str, str],
    *,
    root: Path,
    host_paths: Mapping[str, Path],
    service_account: Path,
    services: Mapping[str, str],
) -> list[str]:
    """The command that starts the manifest's agent on that node.

    `host_paths` are the directories that replace those of the host; `root` is
    an empty directory, which stays empty for everybody else; `services` are the
    variables that every container has of the API server.
    """
    agent = agent_of(objects)
    context = agent["securityContext"]
    privileged = context.get("privileged", False)
    token = {"target": SERVICE_ACCOUNT, "source": str(service_account)}
    container = {
        "root": str(root),
        "mounts": [
            *(_mount(*pair, host_paths) for pair in mounts_of(objects).values()),
            *(
                [{**token, "read_only": True, "propagation": False}]
                if pod_of(objects)["automountServiceAccountToken"]
                else []
            ),
            *_program(),
        ],
        "read_only_root": context["readOnlyRootFilesystem"],
        # Runtimes give one to containers that are not privileged, on cgroup v2.
        "private_cgroup_namespace": not privileged,
        "env": {**services, **environment_of(agent, node), "PYTHONDONTWRITEBYTECODE": "1"},
        "argv": [
            *([] if privileged else with_capabilities(*context["capabilities"]["add"])),
            *([] if privileged else under_seccomp(profile_of(objects))),
            *COMMAND,
            *arguments_of(agent, node),
        ],
    }
    return [sys.executable, "-I", "-S", enter.__file__, json.dumps(container)]


def _mount(mount: Manifest, volume: Manifest, host_paths: Mapping[str, Path]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "target": mount["mountPath"],
        "propagation": mount.get("mountPropagation") == "HostToContainer",
        "read_only": "recursive" if "recursiveReadOnly" in mount else mount.get("readOnly", False),
    }
    if "emptyDir" in volume:
        assert volume["emptyDir"]["medium"] == "Memory"
        limit = volume["emptyDir"]["sizeLimit"]
        return {
            **made,
            "source": None,
            "options": f"mode=1777,size={limit[:-2]}{_SIZES[limit[-2:]]}",
        }
    return {**made, "source": str(host_paths[volume["hostPath"]["path"]])}


def _program() -> list[dict[str, Any]]:
    """This tree and its Python, in case they stand where the container has its own directories."""
    own = {str(ROOT), sys.prefix, sys.base_prefix}
    return [
        {"target": path, "source": path, "read_only": True, "propagation": False}
        for path in sorted(own)
        if path.split("/")[1] in ("tmp", "var", "run")
    ]
