"""Joins what the node and the API server say of a container's ResourceClaims. Opens nothing.

The node's file of a driver counts first: a driver counts its generation up with each change, and
writes networkData there as soon as the network is made. The API server adds what no file has: the
devices of drivers without a file, conditions, and the share of a shared device. Both agree on the
key of a device: driver, pool and device of the allocation (resource.k8s.io).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from netutil.agent.errors import AgentError, FailedPrecondition, Reason, Unavailable
from netutil.agent.facts.device_metadata import DeviceMetadataFiles
from netutil.agent.parsers.claims import ClaimDevice, ClaimRequest
from netutil.agent.pods.claims import ClaimReference, is_reserved_for
from netutil.agent.pods.claims_api import ClaimAnswer, ClaimsApi
from netutil.agent.pods.model import Pod

_READ = "resource claims at the API server"


@dataclass(frozen=True, slots=True)
class ClaimSources:
    """The sources of the devices of claims, None for those that are not asked."""

    files: DeviceMetadataFiles | None = None
    api: ClaimsApi | None = None


@dataclass(frozen=True, slots=True)
class ApiClaims:
    """What the API server says of claims, by their names; `error` is why it is not all known.

    `refused` says why a claim is not the pod's.
    """

    by_name: Mapping[str, ClaimAnswer] = field(default_factory=dict)
    refused: Mapping[str, FailedPrecondition] = field(default_factory=dict)
    error: AgentError | None = None


NOT_ASKED = ApiClaims()


def ask_api(api: ClaimsApi | None, pod: Pod, names: Iterable[str]) -> ApiClaims:
    """Return what the API server says of a pod's claims, by the last lists. On the event loop.

    A list that is not current answers still, beside the error that says so. A claim that is not
    reserved for the pod is refused if the list is current, and is not answered in any case.
    """
    if api is None:
        return NOT_ASKED
    namespace = pod.metadata.namespace
    found: dict[str, ClaimAnswer] = {}
    refused: dict[str, FailedPrecondition] = {}
    errors: list[AgentError] = []
    for name in dict.fromkeys(names):
        try:
            answer = api.answer(namespace, name)
        except Unavailable as error:
            errors.append(_unavailable(error))
            continue
        if not answer.problem and not is_reserved_for(pod, answer.reserved_for):
            if answer.claims_error is None:
                refused[name] = _not_reserved(pod, name, answer)
            answer = replace(answer, requests=None)
        found[name] = answer
        if answer.claims_error is not None:
            errors.append(_unavailable(answer.claims_error))
        if answer.problem:
            errors.append(_malformed(namespace, name, answer.problem))
        if answer.requests and answer.attributes_error is not None:
            errors.append(_unavailable(answer.attributes_error))
    return ApiClaims(found, refused, errors[0] if errors else None)


def requests_for(answer: ClaimAnswer | None, reference: ClaimReference) -> list[ClaimRequest]:
    """Return the requests of a claim that a reference is about: one request, or all of the claim.

    A request of a prioritized list is named "request/subrequest" in the allocation.
    """
    if answer is None:
        return []
    wanted = reference.request
    return [one for one in answer.requests or () if not wanted or _main(one.request) == wanted]


def signature(api: ClaimsApi | None, namespace: str, claims: Iterable[tuple[str, str]]) -> object:
    """Return what differs as soon as the API server says something else of claims' requests."""
    if api is None:
        return None
    seen: list[object] = []
    for name, request in claims:
        try:
            answer = api.answer(namespace, name)
        except Unavailable as error:
            seen.append(error.message)
            continue
        own = requests_for(answer, ClaimReference("", name, request))
        seen.append((own, answer.problem, _text(answer.claims_error), answer.reserved_for))
        if own:
            seen.append(_text(answer.attributes_error))
    return seen


def uid_of(answer: ClaimAnswer | None) -> str:
    """Return the UID of a claim by a list that is current, "" where none says it."""
    if answer is None or answer.claims_error is not None:
        return ""
    return answer.uid


def join(
    of_node: Sequence[ClaimRequest],
    base: ClaimRequest,
    answer: ClaimAnswer | None,
    reference: ClaimReference,
) -> list[ClaimRequest]:
    """Return the requests of a reference, of both sources.

    `of_node` are those that drivers' files say; `base` has the names that all requests of the
    reference have. An old list of the API server does not contradict a file.
    """
    reported = requests_for(answer, reference)
    if answer is not None and answer.claims_error is not None:
        uids = {one.claim_uid for one in of_node if one.claim_uid}
        reported = [one for one in reported if not uids or one.claim_uid in uids]
    left = {(one.request, one.driver): one for one in reported}
    found: list[ClaimRequest] = []
    for one in of_node:
        if one.error is not None:
            found += _beside_error(one, left)
        else:
            found += _of_both(one, left.pop((one.request, one.driver), None))
    found += (_of_api(base, one, one.devices) for one in left.values())
    return found


def _beside_error(
    failed: ClaimRequest, left: dict[tuple[str, str], ClaimRequest]
) -> Iterator[ClaimRequest]:
    """Yield what the API server says where a file cannot be used, beside the file's error."""
    keys = [
        (request, driver)
        for request, driver in left
        if _main(request) == _main(failed.request) and driver == failed.driver
    ]
    for key in keys:
        reported = left.pop(key)
        yield _of_api(failed, reported, reported.devices)
    if not keys:
        yield failed


def _of_both(one: ClaimRequest, reported: ClaimRequest | None) -> Iterator[ClaimRequest]:
    """Yield a request of a file with what the API server adds, then devices that it alone has."""
    if reported is None:
        yield one
        return
    by_name: dict[tuple[str, str], list[ClaimDevice]] = {}
    for device in reported.devices:
        by_name.setdefault((device.pool, device.name), []).append(device)
    devices: dict[tuple[str, str], list[ClaimDevice]] = {}
    for known in one.devices:
        key = known.pool, known.name
        shares = by_name.get(key, [])
        if not shares:
            devices.setdefault(key, []).append(known)
        elif len(shares) == 1:
            devices[key] = [_with_status(known, shares[0])]
        else:  # the file does not say which share is which
            devices[key] = [_share(known, share) for share in shares]
    joined = tuple(device for found in devices.values() for device in found)
    yield replace(one, devices=joined)
    others = tuple(
        device for device in reported.devices if (device.pool, device.name) not in devices
    )
    if others:
        yield _of_api(one, reported, others)


def _of_api(
    base: ClaimRequest, reported: ClaimRequest, devices: tuple[ClaimDevice, ...]
) -> ClaimRequest:
    return replace(
        reported,
        pod_claim=base.pod_claim,
        extended_resource=base.extended_resource,
        devices=devices,
        error=base.error,
    )


def _with_status(device: ClaimDevice, reported: ClaimDevice) -> ClaimDevice:
    """Return a device of a file with its status, and with what the file does not say.

    A driver may write a first generation without attributes and network data, and later write them
    to the claim's status or to its ResourceSlices alone.
    """
    return replace(
        device,
        share_id=reported.share_id,
        conditions=reported.conditions,
        attributes=device.attributes or reported.attributes or device.attributes,
        network_data=device.network_data or reported.network_data,
    )


def _share(device: ClaimDevice, reported: ClaimDevice) -> ClaimDevice:
    return replace(_with_status(device, reported), network_data=reported.network_data)


def _main(request: str) -> str:
    return request.partition("/")[0]


def _text(error: AgentError | None) -> str:
    return "" if error is None else error.message


def _unavailable(error: Unavailable) -> Unavailable:
    """Return an error of the feed as one of claims: the feed is that of pods."""
    made = Unavailable(
        Reason.RESOURCE_CLAIMS_UNAVAILABLE, error.message, read=error.read, advice=error.advice
    )
    return made.with_retry_after(error.retry_after_seconds)


def _not_reserved(pod: Pod, name: str, answer: ClaimAnswer) -> FailedPrecondition:
    """Return the error of a claim that is not the pod's, by a list that is current.

    The names of the other pods are not the caller's to know.
    """
    full_name = f"{pod.metadata.namespace}/{name}"
    if not answer.uid:
        what = f"The API server has no claim {full_name} that is allocated for this node."
    else:
        others = len(answer.reserved_for)
        what = (
            f"The API server's claim {full_name} (UID {answer.uid:.64}) is reserved for"
            f" {others} {'other' if others == 1 else 'others'}, and not for pod {pod.full_name}"
            f" (UID {pod.metadata.uid:.64})."
        )
    return FailedPrecondition(
        Reason.RESOURCE_CLAIM_NOT_RESERVED,
        what,
        read=_READ,
        advice="Ask again if the container has just started: the API server's events come a moment"
        " later. Else look at status.reservedFor with `kubectl get resourceclaim -o yaml`.",
    )


def _malformed(namespace: str, name: str, problem: str) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.RESOURCE_CLAIMS_MALFORMED,
        f"The API server's claim {namespace}/{name} cannot be used: {problem:.300}.",
        read=_READ,
        advice="Drivers write the claim's status; look at it with `kubectl get resourceclaim"
        " -o yaml`, and at the driver.",
    )
