"""Pods that ask the agent through the directory that they mount."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.agent_image import AGENT_IMAGE
from tests.e2e.images import CALLER_IMAGE
from tests.e2e.settings import RESULTS, SLOWNESS

_VOLUMES = [
    {"name": "netutil", "hostPath": {"path": "/run/netutil", "type": "Directory"}},
    {"name": "results", "hostPath": {"path": str(RESULTS), "type": "DirectoryOrCreate"}},
]
_MOUNTS = [
    {"name": "netutil", "mountPath": "/etc/netutil", "readOnly": True},
    {"name": "results", "mountPath": "/results"},
]


def container(
    name: str,
    command: list[str],
    *,
    image: str = AGENT_IMAGE,
    requests: dict[str, str] | None = None,
    limits: dict[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return a container of a pod's spec."""
    return {
        "name": name,
        "image": image,
        "command": command,
        "imagePullPolicy": "Never",
        "volumeMounts": _MOUNTS,
        "resources": {"requests": requests or {}, "limits": limits or {}},
        "env": [{"name": "WHO", "value": name}],
        **more,
    }


def pod(
    name: str,
    *containers: dict[str, Any],
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """Return a static pod. Its grace period is 0 s."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {"app": name},
            "annotations": annotations or {},
        },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": list(containers),
            "volumes": _VOLUMES,
            **spec,
        },
    }


def asking(name: str, then: str = "exec sleep infinity") -> list[str]:
    """A command that asks everything once, writes the answer, and then does something else."""
    timeout = 5 * SLOWNESS
    return [
        "/bin/sh",
        "-c",
        f"netutil --timeout {timeout:g} all -o json >/results/.{name} 2>&1; {_kept(name)}; {then}",
    ]


def _kept(name: str) -> str:
    """The answer appears whole or not at all."""
    return f"echo $? >>/results/.{name}; mv /results/.{name} /results/{name}"


def caller(name: str, method: str = "GetPod", *, result: str, **more: Any) -> dict[str, Any]:
    """A container that asks with its first instruction (`caller.c`)."""
    command = ["/caller", method, f"/results/{result}"]
    return container(name, command, image=CALLER_IMAGE, **more)


def answer(name: str) -> dict[str, Any]:
    """Return the output of `asking`. Raises AssertionError if it was refused."""
    text, _, code = (RESULTS / name).read_text(encoding="utf-8").rstrip("\n").rpartition("\n")
    assert code == "0", text
    found: dict[str, Any] = json.loads(text)
    return found
