"""Pods as kubelets of Kubernetes 1.34 to 1.37 print them at /pods, by the published API.

Not recorded from a node: each field is one of k8s.io/api/core/v1 (types.go), with the values that
pkg/kubelet sets. `tests/recorded` has what a real kubelet printed.
"""

from __future__ import annotations

import copy
from typing import Any

STARTED = "2026-11-25T10:00:09Z"


def _status(name: str, digit: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": {"running": {"startedAt": STARTED}},
        "lastState": {},
        "ready": True,
        "restartCount": 0,
        "image": "registry.example.com/app:1",
        "imageID": "registry.example.com/app@sha256:" + "0" * 64,
        "containerID": "containerd://" + digit * 64,
        "started": True,
        "volumeMounts": [
            {
                "name": "models",
                "mountPath": "/models",
                "readOnly": True,
                "recursiveReadOnly": "Disabled",
            }
        ],
        "user": {"linux": {"uid": 0, "gid": 0, "supplementalGroups": [0]}},
        **more,
    }


POD: dict[str, Any] = {
    "metadata": {
        "name": "train-0",
        "namespace": "shop",
        "uid": "5b0f7a5e-8f0e-4f33-9a53-3d2b1f0e6c11",
        "generation": 2,
        "creationTimestamp": "2026-11-25T10:00:00Z",
        "labels": {"app": "train"},
        "annotations": {
            "kubernetes.io/config.seen": "2026-11-25T10:00:01.000000000Z",
            "kubernetes.io/config.source": "api",
        },
        "managedFields": [
            {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {}}}
        ],
    },
    "spec": {
        "volumes": [
            {
                "name": "models",
                "image": {
                    "reference": "registry.example.com/models:3",
                    "pullPolicy": "IfNotPresent",
                },
            }
        ],
        "initContainers": [
            {
                "name": "proxy",
                "image": "registry.example.com/proxy:1",
                "resources": {"requests": {"cpu": "100m"}, "claims": [{"name": "nic"}]},
                "restartPolicy": "Always",
            }
        ],
        "containers": [
            {
                "name": "app",
                "image": "registry.example.com/app:1",
                "resources": {
                    "limits": {"cpu": "3", "memory": "4Gi", "example.com/fpga": "1"},
                    "requests": {"cpu": "3", "memory": "4Gi", "example.com/fpga": "1"},
                    "claims": [{"name": "gpu", "request": "accelerator"}],
                },
                "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
                "volumeMounts": [{"name": "models", "readOnly": True, "mountPath": "/models"}],
            }
        ],
        "ephemeralContainers": [
            {"name": "debug", "image": "busybox", "resources": {}, "targetContainerName": "app"}
        ],
        "restartPolicy": "Always",
        "serviceAccountName": "train",
        "nodeName": "node-1",
        "hostUsers": False,
        "resources": {
            "limits": {"cpu": "4", "memory": "6Gi"},
            "requests": {"cpu": "4", "memory": "6Gi"},
        },
        "resourceClaims": [
            {"name": "gpu", "resourceClaimTemplateName": "one-gpu"},
            {"name": "nic", "resourceClaimName": "shared-nic"},
        ],
        "schedulingGates": [],
    },
    "status": {
        "observedGeneration": 2,
        "phase": "Running",
        "conditions": [
            {"type": "PodResizeInProgress", "status": "True", "observedGeneration": 2},
            {"type": "Ready", "status": "True", "lastTransitionTime": STARTED},
        ],
        "hostIP": "192.0.2.10",
        "hostIPs": [{"ip": "192.0.2.10"}],
        "podIP": "10.1.0.5",
        "podIPs": [{"ip": "10.1.0.5"}, {"ip": "fd00::5"}],
        "startTime": "2026-11-25T10:00:01Z",
        "initContainerStatuses": [_status("proxy", "a")],
        "containerStatuses": [
            _status(
                "app",
                "b",
                allocatedResources={"cpu": "2", "memory": "4Gi", "example.com/fpga": "1"},
                resources={
                    "limits": {"cpu": "2", "memory": "4Gi", "example.com/fpga": "1"},
                    "requests": {"cpu": "2", "memory": "4Gi", "example.com/fpga": "1"},
                },
                allocatedResourcesStatus=[
                    {
                        "name": "claim:gpu/accelerator",
                        "resources": [
                            {
                                "resourceID": "k8s.gpu.example.com/gpu=claim-5b0f-gpu-0",
                                "health": "Unhealthy",
                                "message": "ECC error count exceeded threshold",
                            }
                        ],
                    },
                    {
                        "name": "example.com/fpga",
                        "resources": [{"resourceID": "fpga-0", "health": "Healthy"}],
                    },
                ],
                stopSignal="SIGTERM",
            )
        ],
        "ephemeralContainerStatuses": [_status("debug", "c")],
        "qosClass": "Guaranteed",
        "resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "train-0-gpu-x7k2p"}],
        "extendedResourceClaimStatus": {
            "requestMappings": [
                {
                    "containerName": "app",
                    "resourceName": "example.com/nic",
                    "requestName": "container-0-request-0",
                }
            ],
            "resourceClaimName": "train-0-extended-resources-8zglq",
        },
        "allocatedResources": {"cpu": "4", "memory": "6Gi"},
        "resources": {
            "limits": {"cpu": "4", "memory": "6Gi"},
            "requests": {"cpu": "4", "memory": "6Gi"},
        },
    },
}


def pod_of_group() -> dict[str, Any]:
    """The same pod as one of PodGroup `train`, whose claim `rail` it uses (alpha in 1.36)."""
    pod = copy.deepcopy(POD)
    pod["spec"]["schedulingGroup"] = {"podGroupName": "train"}
    pod["spec"]["resourceClaims"].append({"name": "rail", "podGroupResourceClaim": "fabric"})
    pod["spec"]["containers"][0]["resources"]["claims"] = [{"name": "rail"}]
    made = {"name": "rail", "resourceClaimName": "train-fabric-5x2kq"}
    pod["status"]["resourceClaimStatuses"].append(made)
    return pod
