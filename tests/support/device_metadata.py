"""Device metadata as k8s.io/dynamic-resource-allocation/kubeletplugin writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

V1BETA1, V1ALPHA1 = "metadata.resource.k8s.io/v1beta1", "metadata.resource.k8s.io/v1alpha1"
DRIVER = "sriov.example.com"
NETWORK = {
    "interfaceName": "net1",
    "ips": ["10.1.0.5/24", "fd00::5/64"],
    "hardwareAddress": "02:00:00:00:00:05",
}


def device(
    name: str = "0000-3b-02-1",
    driver: str = DRIVER,
    attributes: Mapping[str, Any] | None = None,
    network: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A device; without attributes and network as generation 1 of a network driver has it."""
    found: dict[str, Any] = {"driver": driver, "pool": "node-1", "name": name}
    if attributes is not None:
        found["attributes"] = dict(attributes)
    if network is not None:
        found["networkData"] = dict(network)
    return found


def vf(address: str = "0000:3b:02.1", **more: Any) -> dict[str, Any]:
    """A virtual function with its PCI address."""
    attributes = {"resource.kubernetes.io/pciBusID": {"string": address}}
    return device(address.replace(":", "-").replace(".", "-"), attributes=attributes, **more)


def document(
    *devices: Mapping[str, Any],
    version: str = V1BETA1,
    claim: str = "nic-x7k2p",
    namespace: str = "shop",
    request: str = "vf",
    generation: int = 1,
    uid: str = "0b1c2d3e-0000-4000-8000-000000000001",
    pod_claim: str | None = "nic",
) -> dict[str, Any]:
    """One object of the stream."""
    found: dict[str, Any] = {
        "kind": "DeviceMetadata",
        "apiVersion": version,
        "metadata": {
            "name": claim,
            "namespace": namespace,
            "uid": uid,
            "generation": generation,
            "creationTimestamp": None,
        },
    }
    if pod_claim is not None:
        found["podClaimName"] = pod_claim
    found["requests"] = [{"name": request, "devices": list(devices)}]
    return found


def stream(*documents: Mapping[str, Any]) -> bytes:
    """The objects as runtime.Encode with the pretty serializer prints them."""
    return b"".join(json.dumps(one, indent=2).encode() + b"\n\n" for one in documents)


def both(
    *devices: Mapping[str, Any], versions: Sequence[str] = (V1BETA1, V1ALPHA1), **more: Any
) -> bytes:
    """The same data in each of the versions."""
    return stream(*(document(*devices, version=one, **more) for one in versions))
