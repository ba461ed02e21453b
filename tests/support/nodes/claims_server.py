"""One API server that has claims and slices, for a real agent that follows both."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme

from tests.support.device_metadata import DRIVER
from tests.support.fakes.apiserver import ApiServer
from tests.support.fakes.claims_of_api import PCI, POD_UID, claim
from tests.support.fakes.kubeconfigs import kubeconfig
from tests.support.fakes.kubelet import Handler, KubeletDouble, serving
from tests.support.nodes.dra_node import UID

GROUP = "/apis/resource.k8s.io"
NODE, POOL = "node-1", "node-1"
SLICE_DEVICES = 128
"""ResourceSliceMaxDevices of k8s.io/api/resource/v1."""


class ClaimsServer:
    """`claims`, `slices` and `pods` are as doubles of their own, behind one address."""

    def __init__(self, context: ssl.SSLContext, directory: Path) -> None:
        self.double = KubeletDouble(self._answer, context)
        self.claims, self.slices = ApiServer(context), ApiServer(context, node=NODE)
        self.pods = ApiServer(context, node=NODE)
        self.claims.path = f"{GROUP}/v1/resourceclaims"
        self.claims.one_name = f"{GROUP}/v1/namespaces/default/resourceclaims"
        self.claims.selector, self.claims.served = None, ["v1"]
        self.slices.path = self.slices.one_name = f"{GROUP}/v1/resourceslices"
        path = kubeconfig(directory, self.double.url, {"token": "first-token"})
        self.flags = (
            "--resource-claims=apiserver",
            f"--kubeconfig={path}",
            f"--node-name={NODE}",
        )

    def _answer(self, handler: Handler) -> None:
        server = self.slices if "resourceslices" in handler.path else self.claims
        if not handler.path.startswith(GROUP):
            server = self.pods
        server.double.answer(handler)

    def put(self, name: str, *devices: str, uid: str = UID, **more: Any) -> None:
        """Store a claim with devices of request vf, which are named after their addresses."""
        made = claim(1, name, status={})
        made["metadata"]["uid"] = uid
        results = [
            {"request": "vf", "driver": DRIVER, "pool": POOL, "device": one} for one in devices
        ]
        allocation = {"devices": {"results": results}}
        reserved = [{"resource": "pods", "name": "web", "uid": POD_UID}]
        made["status"] = {"allocation": allocation, "reservedFor": reserved, **more}
        self.claims.put(made)

    def publish(self, *addresses: str) -> None:
        """Store slices with a device for each PCI address, as many as the API allows in each."""
        parts = [addresses[n : n + SLICE_DEVICES] for n in range(0, len(addresses), SLICE_DEVICES)]
        for number, part in enumerate(parts, 1):
            devices = [
                {"name": device_name(one), "attributes": {PCI: {"string": one}}} for one in part
            ]
            spec = {
                "driver": DRIVER,
                "nodeName": NODE,
                "pool": {"name": POOL, "generation": 1, "resourceSliceCount": len(parts)},
                "devices": devices,
            }
            names = {"name": f"slice-{number}", "uid": f"slice-uid-{number}"}
            self.slices.put({"metadata": names, "spec": spec})

    def stop(self) -> None:
        """Refuse connections from now on, and end those that are there."""
        self.claims.double.released.set()
        self.slices.double.released.set()
        self.pods.double.released.set()
        self.double.shutdown()
        self.double.server_close()
        self.double.drop_connections()


def device_name(address: str) -> str:
    """The name of a device, as drivers derive it."""
    return address.replace(":", "-").replace(".", "-")


def status_of(device: str, **more: Any) -> dict[str, Any]:
    """status.devices[] of a claim, which a driver writes."""
    return {"driver": DRIVER, "pool": POOL, "device": device, **more}


def condition(value: str, kind: str = "NetworkReady") -> dict[str, Any]:
    """A condition of such a device."""
    return {
        "type": kind,
        "status": value,
        "reason": "LinkDown" if value == "False" else "LinkUp",
        "message": "",
        "lastTransitionTime": "2026-11-30T08:00:01Z",
    }


@contextmanager
def claims_server(directory: Path) -> Iterator[ClaimsServer]:
    """Serve on loopback, with a CA of its own in the directory."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.crt"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    made = ClaimsServer(context, directory)
    with serving(made.double):
        try:
            yield made
        finally:
            for server in (made.claims, made.slices, made.pods):
                server.double.released.set()
                server.double.server_close()
