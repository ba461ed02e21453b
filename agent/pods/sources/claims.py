"""Sources of ResourceClaims and ResourceSlices: the API server, by the reflector of pods.

KEP-4817 and KEP-4381. The claims of all namespaces are followed, since no field selector knows the
node of a claim; those that are not allocated, or for other nodes, are not held, and come in pages.
Of the slices only those of this node are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from netutil.agent.errors import Reason, Unavailable
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.http.apiserver_client import ApiServerClient
from netutil.agent.pods.http.apiserver_login import Login
from netutil.agent.pods.http.bounded import read_body
from netutil.agent.pods.sources.base import ConfirmTiming, SourceKind
from netutil.agent.pods.sources.claims_model import (
    Claim,
    Slice,
    decode_claim,
    decode_claims,
    decode_slice,
    decode_slices,
    decode_version,
)
from netutil.agent.pods.sources.listwatch import Kind
from netutil.agent.pods.sources.reflector import Reflector, ReflectorSettings, Resource, Selection

MAX_CLAIMS = 5000
"""The most allocated claims that are held. A node has at most some hundred pods."""
MAX_SLICES = 1000
"""The most slices that are held of one node."""
_GROUP = "/apis/resource.k8s.io"
_GROUP_BYTES = 64 * 1024
_ADVICE: Mapping[int, str] = {
    HTTPStatus.FORBIDDEN: "Give the agent's account list and watch on resourceclaims and"
    " resourceslices of resource.k8s.io: the component manifests/resource-claims does.",
    HTTPStatus.NOT_FOUND: "The cluster does not serve resource.k8s.io: Kubernetes 1.32 or later"
    " does if its feature DynamicResourceAllocation is on.",
}
CLAIMS = Kind(
    "claims",
    decode_claims,
    decode_claim,
    lambda claim: claim.uid,
    MAX_CLAIMS,
    "allocated claims for one node",
)
SLICES = Kind(
    "slices", decode_slices, decode_slice, lambda one: one.uid, MAX_SLICES, "slices of one node"
)


def claim_settings(login: Login) -> ReflectorSettings:
    """Return how both are followed.

    A comparison lists the metadata of all claims of the cluster, about 1 KB each. Bookmarks confirm
    a watch once a minute, so that it is compared after each of its ends alone: every half an hour
    to an hour.
    """
    confirm = ConfirmTiming(
        quiet_seconds=300.0,
        jitter_seconds=60.0,
        resumed_seconds=120.0,
        max_unconfirmed_seconds=900.0,
    )
    return ReflectorSettings(login, watch_seconds=1800, confirm=confirm)


class ClaimSource(Reflector[Claim]):
    """Follows the allocated claims that may be for one node."""

    def __init__(
        self, settings: ReflectorSettings, node_name: str, flaws: Flaws | None = None
    ) -> None:
        """`flaws` counts the claims that cannot be identified."""
        super().__init__(
            SourceKind("The API server", list_name="resource claims", plural="claims"),
            Resource(
                CLAIMS,
                f"{_GROUP}/resourceclaims",
                lambda client: _served(client, settings, "resourceclaims"),
                Selection(True, keep=lambda claim: claim.is_for(node_name), in_pages=True),
                threads="claims",
                advice=_ADVICE,
            ),
            settings,
            flaws,
        )


class SliceSource(Reflector[Slice]):
    """Follows the slices of one node."""

    def __init__(
        self, settings: ReflectorSettings, node_name: str, flaws: Flaws | None = None
    ) -> None:
        """`flaws` counts the slices that cannot be read."""
        super().__init__(
            SourceKind("The API server", list_name="resource slices", plural="slices"),
            Resource(
                SLICES,
                f"{_GROUP}/resourceslices",
                lambda client: _served(client, settings, "resourceslices"),
                Selection(namespaced=False, selector=f"spec.nodeName={node_name}"),
                threads="slices",
                advice=_ADVICE,
            ),
            settings,
            flaws,
        )


def _served(client: ApiServerClient, settings: ReflectorSettings, plural: str) -> str:
    """Return the path of a resource in the best version that the API server serves.

    Kubernetes API Concepts, "API discovery": the APIGroup. Raises `Unavailable`.
    """
    seconds = settings.compare_seconds
    with client.get(_GROUP, {}, read_seconds=seconds, whole_seconds=seconds, gzip=True) as response:
        version = decode_version(read_body(response, _GROUP_BYTES))
    if not version:
        raise Unavailable(
            Reason.POD_LIST_UNAVAILABLE,
            "The API server serves no version of resource.k8s.io that the agent reads.",
            read=client.url,
            advice="The agent reads v1, v1beta2 and v1beta1: Kubernetes 1.32 or later.",
        )
    return f"{_GROUP}/{version}/{plural}"
