"""The PodList that a kubelet's /pods would print for the pods of a lab (core/v1)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from tests.support.lab.pod import Kind, LabContainer, LabPod

NODE_NAME = "lab-node"
NODE_IP = "192.0.2.10"

_QOS_CLASSES = {
    "guaranteed": "Guaranteed",
    "burstable": "Burstable",
    "besteffort": "BestEffort",
}
_FIELDS: dict[Kind, str] = {
    "container": "container",
    "init": "initContainer",
    "ephemeral": "ephemeralContainer",
}


def pod_list(pods: Iterable[LabPod]) -> dict[str, Any]:
    """The list as a JSON object."""
    items = [_pod(pod) for pod in pods]
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}


def _pod(pod: LabPod) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "nodeName": NODE_NAME,
        "serviceAccountName": "default",
        "hostNetwork": pod.host_network,
        "shareProcessNamespace": pod.share_process_namespace,
    }
    status: dict[str, Any] = {
        "phase": "Running",
        "qosClass": _QOS_CLASSES[pod.qos],
        "hostIP": NODE_IP,
        "startTime": _time(pod.created_at),
    }
    ip = NODE_IP if pod.host_network else pod.ip
    if ip:
        status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    for kind, field in _FIELDS.items():
        containers = [container for container in pod.containers if container.kind == kind]
        if containers or kind == "container":
            spec[f"{field}s"] = [
                {"name": c.name, "image": "lab", "resources": c.resources} for c in containers
            ]
            status[f"{field}Statuses"] = [_status(container) for container in containers]
    metadata = {
        "name": pod.name,
        "namespace": pod.namespace,
        "uid": pod.uid,
        "creationTimestamp": _time(pod.created_at),
        "labels": pod.labels,
        "annotations": pod.annotations,
    }
    return {"metadata": metadata, "spec": spec | pod.spec, "status": status | pod.status}


def _status(container: LabContainer) -> dict[str, Any]:
    runtime_id = f"{container.pod.runtime}://{container.id}"
    started = _time(container.started_at)
    if container.running:
        state: dict[str, Any] = {"running": {"startedAt": started}}
    else:
        ended = {"exitCode": 137, "startedAt": started, "containerID": runtime_id}
        state = {"terminated": ended}
    return {
        "name": container.name,
        "containerID": runtime_id,
        "image": "lab",
        "ready": container.running,
        "restartCount": 0,
        "state": state,
        **container.status,
    }


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
