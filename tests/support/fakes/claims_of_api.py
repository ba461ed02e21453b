"""Claims and slices as the API server prints them: resource.k8s.io of Kubernetes 1.37."""

from __future__ import annotations

import uuid
from typing import Any

DRIVER, POOL = "sriov.example.com", "node-1"
PCI = "resource.kubernetes.io/pciBusID"
POD_UID = str(uuid.uuid4())
"""Of the pod that claims are reserved for. Each process of a test run has another."""


def claim(
    number: int = 1, name: str = "", node: str | None = "node-1", **status: Any
) -> dict[str, Any]:
    """A claim with one device of one request; `node` is the one that its allocation is for."""
    results = [{"request": "vf", "driver": DRIVER, "pool": POOL, "device": "0000-3b-02-1"}]
    allocation: dict[str, Any] = {"devices": {"results": results}}
    if node is not None:
        field = {"key": "metadata.name", "operator": "In", "values": [node]}
        allocation["nodeSelector"] = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    return {
        "metadata": {
            "name": name or f"claim-{number}",
            "namespace": "shop",
            "uid": f"claim-uid-{number}",
            "creationTimestamp": "2026-11-30T08:00:00Z",
        },
        "spec": {"devices": {"requests": [{"name": "vf", "exactly": {"deviceClassName": "vf"}}]}},
        "status": {
            "allocation": allocation,
            "reservedFor": [{"resource": "pods", "name": "web", "uid": POD_UID}],
            "devices": [device_status()],
            **status,
        },
    }


def device_status(**more: Any) -> dict[str, Any]:
    """Return a network driver's report on the device (KEP-4817)."""
    return {
        "driver": DRIVER,
        "pool": POOL,
        "device": "0000-3b-02-1",
        "conditions": [
            {
                "type": "NetworkReady",
                "status": "False",
                "reason": "LinkDown",
                "message": "no carrier",
                "lastTransitionTime": "2026-11-30T08:00:01Z",
            }
        ],
        "data": {"cniVersion": "1.1.0"},
        "networkData": {
            "interfaceName": "net1",
            "ips": ["10.1.0.5/24"],
            "hardwareAddress": "02:00:00:00:00:05",
        },
        **more,
    }


def resource_slice(
    number: int = 1, generation: int = 1, version: str = "v1", **attributes: Any
) -> dict[str, Any]:
    """A slice of the node's pool with that device."""
    described = {"attributes": attributes or {PCI: {"string": "0000:3b:02.1"}}, "capacity": {}}
    device = {"basic": described} if version == "v1beta1" else described
    return {
        "metadata": {"name": f"slice-{number}", "uid": f"slice-uid-{number}"},
        "spec": {
            "driver": DRIVER,
            "nodeName": "node-1",
            "pool": {"name": POOL, "generation": generation, "resourceSliceCount": 1},
            "devices": [{"name": "0000-3b-02-1", **device}],
        },
    }
