"""ResourceClaims at a real API server: discovery, RBAC, list and watch, without any claim.

Kubernetes 1.20 does not know resource.k8s.io. A CustomResourceDefinition of that group and version
makes the real server list and watch such objects, and ask RBAC. It cannot hold one: 1.20.2, built
with Debian's Go 1.19, crashes as it decodes the metadata of any custom resource (iteration of maps
in the old github.com/modern-go/reflect2). It refuses the field selector of slices as well, which
custom resources have from 1.30 on only. What claims say is tested with the double.
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
from tests.support.manifests.documents import MANIFESTS
from tests.support.waiting import until

GROUP = "resource.k8s.io"


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


async def test_claims_are_followed_with_the_components_right(bare_server: RealApiServer) -> None:
    async with following(bare_server) as held:
        with pytest.raises(Unavailable) as refused:
            await held.current()
        assert f'forbidden: User "{ACCOUNT}" cannot list' in refused.value.message
        assert "manifests/resource-claims" in refused.value.advice
    bare_server.apply(MANIFESTS / "resource-claims" / "rbac.yaml")
    async with following(bare_server) as held:
        await held.current()
        await until(lambda: held.error is not None)
        found = held.answer("default", "claim-1")
        assert (found.requests, found.claims_error) == (None, None)
        assert held.claim_stats.streaming == 1
        assert found.attributes_error is not None
        assert "field label not supported: spec.nodeName" in found.attributes_error.message
