"""ResourceClaims and ResourceSlices at a real API server of 1.20, which does not know them.

A CustomResourceDefinition of that group and version makes the real server store, list and watch
such objects, with a status of their own, and ask RBAC. What custom resources of 1.20 lack is the
field selector spec.nodeName, which the agent asks for slices with: selectableFields of a
CustomResourceDefinition came with 1.30 (KEP-4358), and the kind itself has it since it exists.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import urllib3
import yaml

from tests.e2e.api_server import ADMIN, RealApiServer
from tests.support.fakes.claims_of_api import claim, resource_slice
from tests.support.manifests.documents import MANIFESTS

GROUP = "resource.k8s.io"
NAMESPACE = "shop"
RIGHTS = MANIFESTS / "resource-claims" / "rbac.yaml"
CLAIMS = f"/apis/{GROUP}/v1/namespaces/{NAMESPACE}/resourceclaims"
SLICES = f"/apis/{GROUP}/v1/resourceslices"
KINDS = (("resourceclaims", "ResourceClaim", True), ("resourceslices", "ResourceSlice", False))
FINALIZER = "resource.kubernetes.io/delete-protection"
_MERGE = "application/merge-patch+json"
_STORED = f"/registry/{GROUP}/resourceclaims/{NAMESPACE}/"
_SECONDS = 60.0
_MAX_OPERATIONS = 128
"""Of one transaction of etcd: the default of its --max-txn-ops."""


def define(server: RealApiServer) -> None:
    """Create both kinds and the namespace, and return when both are served."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for kind in KINDS:
        server.call("POST", path, _definition(*kind))
    server.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    wait_served(server)


def wait_served(server: RealApiServer) -> None:
    """Return when the API server serves both kinds: some moments after its start."""
    deadline = time.monotonic() + _SECONDS
    while any(server.status(path, ADMIN) != HTTPStatus.OK for path in (CLAIMS, SLICES)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def allow_claims_alone(server: RealApiServer) -> None:
    """Give the agent's account the component's right without that to slices."""
    role, binding = yaml.safe_load_all(RIGHTS.read_text(encoding="utf-8"))
    name = "claims-alone"
    role["rules"][0]["resources"].remove("resourceslices")
    role["metadata"]["name"] = binding["metadata"]["name"] = binding["roleRef"]["name"] = name
    for made in (role, binding):
        path = f"/apis/rbac.authorization.k8s.io/v1/{made['kind'].lower()}s"
        server.call("POST", path, made)


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a namespace: what a user, the scheduler and a driver do with them."""

    server: RealApiServer

    def create(self, name: str, *finalizers: str) -> str:
        """Create a claim that is not allocated, and return its UID."""
        made = {**_typed("ResourceClaim"), **claim(name=name)}
        made["metadata"] = {"name": name, "finalizers": list(finalizers)}
        del made["status"]
        return str(self.server.call("POST", CLAIMS, made)["metadata"]["uid"])

    def allocate(self, name: str, node: str | None = "node-1", **status: Any) -> None:
        """Write the status, as the scheduler and a driver do: a device, and what more is given."""
        body = {"status": {**claim(name=name, node=node)["status"], **status}}
        self.server.call("PATCH", f"{CLAIMS}/{name}/status", body, _MERGE)

    def report(self, name: str, **device: Any) -> None:
        """Write status.devices[] alone, as a driver does (KEP-4817)."""
        (before,) = self.server.call("GET", f"{CLAIMS}/{name}")["status"]["devices"]
        body = {"status": {"devices": [{**before, **device}]}}
        self.server.call("PATCH", f"{CLAIMS}/{name}/status", body, _MERGE)

    def release(self, name: str) -> None:
        """Take the finalizers away."""
        body = {"metadata": {"finalizers": None}}
        self.server.call("PATCH", f"{CLAIMS}/{name}", body, _MERGE)

    def delete(self, name: str) -> None:
        """Delete a claim, or ask for it where it has a finalizer."""
        self.server.call("DELETE", f"{CLAIMS}/{name}")

    def clear(self) -> None:
        """Delete all, those with a finalizer too."""
        for one in self.server.call("GET", CLAIMS)["items"]:
            if one["metadata"].get("finalizers"):
                self.release(one["metadata"]["name"])
        self.server.call("DELETE", CLAIMS)


def publish(server: RealApiServer) -> None:
    """Create the slice that has the device of `Claims.allocate`."""
    made = {**_typed("ResourceSlice"), **resource_slice()}
    made["metadata"] = {"name": "slice-1"}
    server.call("POST", SLICES, made)


class Database:
    """The etcd of an API server, changed as another API server of the cluster would."""

    def __init__(self, address: str) -> None:
        self._address = address

    def remove(self, name: str) -> None:
        """Remove a claim."""
        self._ask("deleterange", {"key": _key(name)})

    def copy(self, name: str, copies: Mapping[str, str]) -> None:
        """Store a claim again under other names, each with its UID."""
        stored = self._ask("range", {"key": _key(name)})["kvs"][0]["value"]
        made = json.loads(base64.b64decode(stored))
        puts = []
        for other, uid in copies.items():
            made["metadata"] |= {"name": other, "uid": uid}
            value = base64.b64encode(json.dumps(made).encode()).decode()
            puts.append({"request_put": {"key": _key(other), "value": value}})
        for first in range(0, len(puts), _MAX_OPERATIONS):
            self._ask("txn", {"success": puts[first : first + _MAX_OPERATIONS]})

    def compact(self) -> None:
        """Forget every revision before the present one, as an API server does every 5 minutes."""
        found = self._ask("range", {"key": _key("any")})
        self._ask("compaction", {"revision": found["header"]["revision"], "physical": True})

    def _ask(self, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """etcd documentation, "gRPC gateway": keys and values in base64."""
        answer = urllib3.request("POST", f"{self._address}/v3/kv/{method}", json=body, timeout=10.0)
        found: dict[str, Any] = answer.json()
        assert answer.status == HTTPStatus.OK, found
        return found


def _key(name: str) -> str:
    return base64.b64encode(f"{_STORED}{name}".encode()).decode()


def _typed(kind: str) -> dict[str, str]:
    return {"apiVersion": f"{GROUP}/v1", "kind": kind}


def _definition(plural: str, kind: str, namespaced: bool) -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    scope = "Namespaced" if namespaced else "Cluster"
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    approved = {"api-approved.kubernetes.io": "unapproved, for a test"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}", "annotations": approved},
        "spec": {"group": GROUP, "scope": scope, "names": names, "versions": [version]},
    }
