"""The ResourceClaims that a container of a pod refers to (core/v1, PodSpec and PodStatus). Pure.

A container is given what `resources.claims` of its spec names, and what
`status.extendedResourceClaimStatus` maps to its extended resources. What the pod's other containers
refer to is none of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from netutil.agent.errors import FailedPrecondition, Reason, ResourceExhausted
from netutil.agent.pods.model import ClaimStatus, Pod
from netutil.agent.pods.sources.claims_model import Consumer
from netutil.agent.pods.spec import ContainerClaim, PodClaim

MAX_REFERENCES = 128
"""Of one container. A claim has at most 32 requests (resource.k8s.io, DeviceRequestsMaxSize)."""
_OF_POD = ("spec.resourceClaims", "status.resourceClaimStatuses")
_POD_GROUP = ("scheduling.k8s.io", "podgroups")
_EXTENDED = "status.extendedResourceClaimStatus"
_LISTS = {"spec.containers": "container", "spec.initContainers": "init"}
_OF_CONTAINER = re.compile(
    r"(?P<list>spec\.(?:containers|initContainers))\[(?P<number>[0-9]+)\]"
    r"(?:$|\.name$|\.resources$|\.resources\.claims(?![a-zA-Z]))"
)
"""Paths of what decides the claims of a container: its own entry, or such a field of it."""


@dataclass(frozen=True, slots=True)
class ClaimReference:
    """A ResourceClaim that a container refers to, in the namespace of its pod.

    `pod_claim` is the name in `spec.resourceClaims`, "" for a claim that backs
    `extended_resource`. `claim_name` is "" while the claim of a template is not made. `request` is
    the one request that is for the container, "" for all of the claim. `is_from_template`: the
    claim was made for this pod alone.
    """

    pod_claim: str
    claim_name: str
    request: str
    extended_resource: str = ""
    is_from_template: bool = False


def is_reserved_for(pod: Pod, consumers: Iterable[Consumer]) -> bool:
    """Return whether a claim with these `reservedFor` is reserved for a pod or for its PodGroup.

    As IsReservedForPod of k8s.io/dynamic-resource-allocation/resourceclaim, which the kubelet asks
    before it starts a pod. A pod counts by its UID, since another pod may have had its name. A
    PodGroup counts by its name: a pod does not say the UID of its group, and a finalizer keeps the
    group for as long as one of its pods exists.
    """
    group = pod.spec.scheduling_group
    group_name = (group and group.pod_group_name) or ""
    return any(
        one.uid == pod.metadata.uid
        or (
            bool(group_name)
            and (one.api_group, one.resource, one.name) == (*_POD_GROUP, group_name)
        )
        for one in consumers
    )


def may_refer_to_claims(pod: Pod) -> bool:
    """Return whether a container of a pod may refer to a claim. False for most pods, at no cost."""
    return (
        pod.spec.resource_claims is not None
        or pod.status.extended_resource_claim_status is not None
        or bool(pod.not_understood)
    )


def claims_of(pod: Pod, container_name: str) -> tuple[ClaimReference, ...]:
    """Return the claims that a container refers to, by pod claim and request.

    Raises `FailedPrecondition` if a field that decides is not as core/v1 says, and
    `ResourceExhausted` beyond `MAX_REFERENCES`.
    """
    if not may_refer_to_claims(pod):
        return ()
    _ensure_understood(pod, container_name, _EXTENDED)
    resources = pod.spec.resources_of(container_name)
    own = (resources.claims if resources is not None else None) or ()
    if own:
        _ensure_understood(pod, container_name, *_OF_POD)
    found = {*_named(pod, own), *_extended(pod, container_name)}
    if len(found) > MAX_REFERENCES:
        raise ResourceExhausted(
            Reason.TOO_MANY_CLAIM_DEVICES,
            f"Container {container_name} of pod {pod.full_name} refers to {len(found)} requests of"
            f" claims; the agent takes at most {MAX_REFERENCES}.",
            read=_read(pod, container_name),
            advice="Refer to whole claims instead of each of their requests.",
        )
    return tuple(sorted(found, key=_order))


def _order(one: ClaimReference) -> tuple[str, str, str, str]:
    return one.pod_claim, one.extended_resource, one.claim_name, one.request


def _named(pod: Pod, own: tuple[ContainerClaim, ...]) -> Iterator[ClaimReference]:
    """Yield the entries of `resources.claims`, as k8s.io/dynamic-resource-allocation resolves them.

    A claim that the pod's status says was not necessary is left out.
    """
    by_name = {one.name: one for one in pod.spec.resource_claims or ()}
    made = {one.name: one for one in pod.status.resource_claim_statuses or ()}
    for one in own:
        claim = by_name.get(one.name)
        if claim is None or not one.name:
            raise _malformed(pod, f"spec.resourceClaims has no {one.name[:64]!r}")
        found = _resolved(claim, made.get(one.name), one.request)
        if found is not None:
            yield found


def _resolved(claim: PodClaim, status: ClaimStatus | None, request: str) -> ClaimReference | None:
    if claim.resource_claim_name is not None:
        return ClaimReference(claim.name, claim.resource_claim_name, request)
    # Else it is the claim of a PodGroup (podGroupResourceClaim), which pods share.
    is_of_pod = claim.resource_claim_template_name is not None
    if status is None:
        return ClaimReference(claim.name, "", request, is_from_template=is_of_pod)
    if status.resource_claim_name is None:
        return None
    name = status.resource_claim_name
    return ClaimReference(claim.name, name, request, is_from_template=is_of_pod)


def _extended(pod: Pod, container_name: str) -> Iterator[ClaimReference]:
    claim = pod.status.extended_resource_claim_status
    if claim is None or not container_name:
        return
    for one in claim.request_mappings or ():
        if one.container_name == container_name:
            yield ClaimReference("", claim.resource_claim_name, one.request_name, one.resource_name)


def _ensure_understood(pod: Pod, container_name: str, *fields: str) -> None:
    """Raise `FailedPrecondition` if what decides the claims of a container is not understood.

    What is odd of a container whose name is not known counts for each: it may be that one.
    """
    if pod.has_more_not_understood:
        raise _malformed(pod, "many fields are not understood")
    for path in pod.not_understood:
        decides = path in ("spec", "status", *_LISTS) or path.startswith(fields)
        if decides or _is_of(pod, path, container_name):
            raise _malformed(pod, f"{path} is not understood")


def _is_of(pod: Pod, path: str, container_name: str) -> bool:
    """Return whether a path may be that of what a container refers to."""
    match = _OF_CONTAINER.match(path)
    if match is None:
        return False
    kind, number = _LISTS[match["list"]], int(match["number"])
    names = [one.name for one in pod.spec.planned if one.kind == kind]
    return number >= len(names) or names[number] in ("", container_name)


def _malformed(pod: Pod, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.RESOURCE_CLAIMS_MALFORMED,
        f"The claims of pod {pod.full_name} are not known: {why}.",
        read=_read(pod, ""),
        advice="Look at the pod in the pod source; Kubernetes takes nothing of that kind there.",
    )


def _read(pod: Pod, container_name: str) -> str:
    whose = f"container {container_name} of " if container_name else ""
    return f"claims of {whose}pod {pod.full_name} in the pod list"
