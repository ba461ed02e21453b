"""ResourceClaims from a real API server, with the right that the component gives.

Kubernetes 1.20 does not know resource.k8s.io. A CustomResourceDefinition of that group and version
makes the real server store, list, watch and bookmark such objects, and ask RBAC. It refuses the
field selector of slices, which custom resources have from 1.30 on only: attributes are then not
known, and claims are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from netutil.agent.errors import Unavailable
from netutil.agent.pods.claims_api import ClaimsApi
from netutil.agent.pods.http.apiserver_login import ServiceAccount, open_login
from netutil.agent.pods.sources.claims import ClaimSource, SliceSource, claim_settings

from tests.e2e.api_server import ACCOUNT, RealApiServer, real_api_server
from tests.manifests.documents import MANIFESTS
from tests.pods.claims_of_api import claim, device_status
from tests.pods.streams import until

GROUP = "resource.k8s.io"
CLAIMS = f"/apis/{GROUP}/v1/namespaces/default/resourceclaims"
MERGE = "application/merge-patch+json"


def definition(plural: str, kind: str, scope: str) -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    approved = {"api-approved.kubernetes.io": "unapproved, for a test"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}", "annotations": approved},
        "spec": {"group": GROUP, "scope": scope, "names": names, "versions": [version]},
    }


@pytest.fixture(scope="module")
def bare_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealApiServer]:
    """A server with the kinds, on which the agent's account has no right."""
    with real_api_server(tmp_path_factory.mktemp("claims")) as made:
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        made.call("POST", path, definition("resourceclaims", "ResourceClaim", "Namespaced"))
        made.call("POST", path, definition("resourceslices", "ResourceSlice", "Cluster"))
        yield made


@asynccontextmanager
async def following(server: RealApiServer) -> AsyncIterator[ClaimsApi]:
    login = ServiceAccount(server.url, str(server.ca_file), str(server.token_file))
    settings = claim_settings(open_login(login))
    made = ClaimsApi(ClaimSource(settings, "node-1"), SliceSource(settings, "node-1"))
    made.start()
    try:
        yield made
    finally:
        await made.close()


def create(server: RealApiServer, **status: Any) -> None:
    made = claim(**status)
    metadata = {"name": made["metadata"]["name"]}
    kind = {"apiVersion": f"{GROUP}/v1", "kind": "ResourceClaim"}
    server.call("POST", CLAIMS, {**kind, "metadata": metadata, "spec": made["spec"]})
    set_status(server, made["status"])


def set_status(server: RealApiServer, status: dict[str, Any]) -> None:
    server.call("PATCH", f"{CLAIMS}/claim-1/status", {"status": status}, MERGE)


def condition_of(held: ClaimsApi) -> str:
    """The status of the one condition of the claim's device, "" while none is known."""
    try:
        found = held.answer("default", "claim-1")
    except Unavailable:
        return ""
    devices = found.requests[0].devices if found.requests else ()
    return devices[0].conditions[0].status if devices and devices[0].conditions else ""


async def test_a_claims_life_is_followed(bare_server: RealApiServer) -> None:
    async with following(bare_server) as held:
        with pytest.raises(Unavailable) as refused:
            await held.current()
        assert f'forbidden: User "{ACCOUNT}" cannot list' in refused.value.message
        assert "manifests/resource-claims" in refused.value.advice
    bare_server.apply(MANIFESTS / "resource-claims" / "rbac.yaml")
    async with following(bare_server) as held:
        await until(lambda: held.claim_stats.streaming == 1)
        create(bare_server)
        await until(lambda: condition_of(held) == "False")
        found = held.answer("default", "claim-1")
        assert found.claims_error is None and found.attributes_error is not None
        ready = [{"type": "NetworkReady", "status": "True"}]
        set_status(bare_server, {"devices": [device_status(conditions=ready)]})
        await until(lambda: condition_of(held) == "True")
        bare_server.call("DELETE", f"{CLAIMS}/claim-1")
        await until(lambda: held.answer("default", "claim-1").requests is None)
        assert len(held) == 0
