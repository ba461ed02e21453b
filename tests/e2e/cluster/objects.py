"""Objects of Kubernetes whose pods ask the agent through the directory that they mount."""

from __future__ import annotations

from typing import Any

_VOLUME = {"name": "netutil", "hostPath": {"path": "/run/netutil", "type": "Directory"}}
_MOUNT = {"name": "netutil", "mountPath": "/etc/netutil", "readOnly": True}
SLEEP = "exec sleep infinity"


def container(name: str, image: str, script: str = SLEEP, **more: Any) -> dict[str, Any]:
    """Return a container that runs a shell script."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", script],
        "volumeMounts": [_MOUNT],
        **more,
    }


def template(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Return the template of a pod with a grace period of 1 s."""
    return {
        "metadata": {"labels": {"app": name}, "annotations": {"example.com/team": "network"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "containers": list(containers),
            "volumes": [_VOLUME],
            **spec,
        },
    }


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Return a pod."""
    made = template(name, *containers, **spec)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        **made,
        "metadata": {**made["metadata"], "name": name},
    }


def deployment(name: str, made: dict[str, Any]) -> dict[str, Any]:
    """Return a Deployment of one pod."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": made},
    }


def job(name: str, made: dict[str, Any]) -> dict[str, Any]:
    """Return a Job that is tried once."""
    made["spec"]["restartPolicy"] = "Never"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": made},
    }


def service_account(name: str) -> dict[str, Any]:
    """Return a service account."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
