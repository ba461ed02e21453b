"""Collects the devices of the ResourceClaims that a container refers to.

Most pods refer to none: that the pod list says so is all that is looked at for them. For the others
the files of the drivers are looked at for each answer, in the pod's lane of reads, and joined with
what the API server says where it is followed.

Four facts reveal a file that a driver left behind of an earlier claim of the same name: a file is
about the claim, the request and the driver of its path; all files of a claim, and the API server,
name one UID; a claim that was made from a template for this pod has the name that the pod's spec
has for it; the kubelet prepared the devices of the file, if the kubelet reports what it prepared
(`netutil.agent.collect.prepared_claims`). Where neither the API server is followed nor the kubelet
reports it, a single file of an earlier claim is not detected.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from netutil.agent.collect.claim_sources import (
    NOT_ASKED,
    ApiClaims,
    ClaimSources,
    ask_api,
    join,
    signature,
    uid_of,
)
from netutil.agent.collect.held_errors import HeldErrors
from netutil.agent.collect.live_networks import PciDevices
from netutil.agent.collect.pci_cache import PciCache
from netutil.agent.collect.prepared_claims import PreparedClaim, prepared_claims, without_stale
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.collect.unnamed_container import unnamed
from netutil.agent.errors import (
    AgentError,
    FailedPrecondition,
    Reason,
    ResourceExhausted,
)
from netutil.agent.facts.claims import MAX_CLAIM_DEVICES, NO_CLAIMS, Claims
from netutil.agent.facts.device_metadata import DeviceMetadataFiles, RequestFile, WatchedClaims
from netutil.agent.kubelet.podresources.model import DynamicResource
from netutil.agent.parsers.claims import ClaimDevice, ClaimRequest, ClaimSource
from netutil.agent.parsers.device_metadata import DeviceMetadata
from netutil.agent.pods.claims import ClaimReference, claims_of, may_refer_to_claims
from netutil.agent.pods.index import Match

_WATCHED = "watched claims"
"""The lane of reads of what is looked at for all streams together."""
_READ = "the device metadata of drivers on the node"


@dataclass(frozen=True, slots=True)
class Said:
    """What the API server and the kubelet say of the claims of one container."""

    by_api: ApiClaims = NOT_ASKED
    prepared: Mapping[str, PreparedClaim] = field(default_factory=dict)


class ClaimDevices:
    """Reads the claims of containers. Used on the event loop. Without files it is off."""

    def __init__(self, sources: ClaimSources, reads: ReadPool, pci: PciCache) -> None:
        self._files = sources.files
        self._api = sources.api
        self._reads = reads
        self._pci = pci
        self.errors = HeldErrors()

    async def read(
        self, pod_key: str, match: Match, pid: str, dynamic: Iterable[DynamicResource] = ()
    ) -> Claims:
        """Return the claims of a container. Raises no `AgentError`.

        `pid` is as in a request. `dynamic` is what the kubelet prepared for the container, as far
        as that is known. While an error says the same, the same object is answered.
        """
        found = await self._read(pod_key, match, pid, dynamic)
        if found.first_error is None and found.pci_error is None:
            return found
        return Claims(
            tuple(replace(one, error=self._held(one.error)) for one in found.requests),
            self._held(found.error),
            self._held(found.pci_error),
        )

    def _held(self, error: AgentError | None) -> AgentError | None:
        return None if error is None else self.errors.hold(error)

    async def _read(
        self, pod_key: str, match: Match, pid: str, dynamic: Iterable[DynamicResource]
    ) -> Claims:
        if not may_refer_to_claims(match.pod):
            return NO_CLAIMS
        try:
            references = _references(match, pid)
            if not references:
                return NO_CLAIMS
            if self._files is None:
                raise _off()
            files, namespace = self._files, match.pod.metadata.namespace
            made = [one.claim_name for one in references if one.claim_name]
            said = Said(ask_api(self._api, match.pod, made), prepared_claims(dynamic, namespace))

            def read() -> Claims:
                return _read(files, self._pci, namespace, references, said)

            return await self._reads.run(pod_key, read, _READ)
        except AgentError as error:
            return Claims(error=error.with_traceback(None))

    def watched(self, match: Match | None) -> WatchedClaims | None:
        """Return the claims of a container whose files may change, None if there are none."""
        if self._files is None or match is None or not match.container_name:
            return None
        if not may_refer_to_claims(match.pod):
            return None
        try:
            references = claims_of(match.pod, match.container_name)
        except AgentError:
            return None  # the pod list decides, which notifies of its own changes
        named = tuple((one.claim_name, one.request) for one in references if one.claim_name)
        return (match.pod.metadata.namespace, named) if named else None

    async def signatures(self, wanted: Collection[WatchedClaims]) -> Mapping[WatchedClaims, object]:
        """Return for each what differs as soon as `read` would say something else by files.

        All are looked at in one job, on one thread. Raises `AgentError`.
        """
        if self._files is None or not wanted:
            return {}
        look = partial(self._files.signatures, tuple(wanted))
        return await self._reads.run(_WATCHED, look, _READ)

    @property
    def is_followed(self) -> bool:
        """Return whether the API server's claims are followed."""
        return self._api is not None

    async def changed(self, seen: int) -> int:
        """Return the generation of the API server's claims once it is another than was seen.

        Returns at once what was seen where they are not followed.
        """
        return seen if self._api is None else await self._api.changed(seen)

    def status(self, wanted: WatchedClaims) -> object:
        """Return what differs as soon as the API server says something else of watched claims."""
        return signature(self._api, *wanted)


def _references(match: Match, pid: str) -> tuple[ClaimReference, ...]:
    if not match.container_name:
        if match.pod.spec.resource_claims or match.pod.status.extended_resource_claim_status:
            raise unnamed(match, pid)
        return ()
    return claims_of(match.pod, match.container_name)


def _off() -> FailedPrecondition:
    return FailedPrecondition(
        Reason.RESOURCE_CLAIMS_OFF,
        "The agent does not read the devices of ResourceClaims (--resource-claims=off).",
        read="--resource-claims",
        advice="The node's operator sets --resource-claims=node, or apiserver.",
    )


def _read(
    files: DeviceMetadataFiles,
    functions: PciCache,
    namespace: str,
    references: Sequence[ClaimReference],
    said: Said,
) -> Claims:
    """Return the requests of references.

    Blocks. Raises `AgentError` if the files cannot be read and the API server says nothing.
    """
    reported = said.by_api
    made = [one for one in references if one.claim_name]
    error = reported.error
    try:
        found = files.read(namespace, [(one.claim_name, one.request) for one in made])
    except AgentError as not_read:
        if not reported.by_name:
            raise
        found, error = ((),) * len(made), not_read.with_traceback(None)
    by_reference = dict(zip(made, found, strict=True))
    pci, left = PciDevices(functions), MAX_CLAIM_DEVICES
    requests: list[ClaimRequest] = []
    for reference in references:
        base = ClaimRequest(
            reference.pod_claim, reference.claim_name, namespace, reference.extended_resource
        )
        if (refused := reported.refused.get(reference.claim_name)) is not None:
            uid = reported.by_name[reference.claim_name].uid or None
            requests.append(replace(base, request=reference.request, claim_uid=uid, error=refused))
            continue
        outcome = by_reference.get(reference, ())
        if isinstance(outcome, AgentError):
            requests.append(replace(base, request=reference.request, error=outcome))
            continue
        of_node: list[ClaimRequest] = []
        for one in outcome:
            left -= _device_count(one)
            file = one if left >= 0 else replace(one, outcome=_too_many())
            of_node += _requests(base, reference, file, pci)
        of_node = list(without_stale(of_node, said.prepared))
        answer = reported.by_name.get(reference.claim_name)
        joined = of_node
        if answer is not None and answer.requests:
            more = join(of_node, base, answer, reference)
            added = _count(more) - _count(of_node)
            if added <= left:
                left -= added
                joined = [_with_functions(one, pci) for one in more]
            else:
                error = _too_many()
        requests += joined or [replace(base, request=reference.request)]
    uids = {name: uid_of(answer) for name, answer in reported.by_name.items()}
    return Claims(
        tuple(sorted(_of_one_uid(requests, uids, said.prepared), key=_order)), error, pci.error
    )


def _count(requests: Iterable[ClaimRequest]) -> int:
    return sum(len(one.devices) for one in requests)


def _device_count(file: RequestFile) -> int:
    if isinstance(file.outcome, AgentError):
        return 0
    return sum(len(one.devices) for one in file.outcome.requests)


def _order(one: ClaimRequest) -> tuple[str, str, str, str, str]:
    return one.pod_claim, one.extended_resource, one.claim_name, one.request, one.driver


def _requests(
    base: ClaimRequest, reference: ClaimReference, file: RequestFile, pci: PciDevices
) -> Iterator[ClaimRequest]:
    """Yield what a driver's file says, or why that is not known."""
    found = file.outcome
    base = replace(base, request=file.request, driver=file.driver, source=ClaimSource.NODE)
    if isinstance(found, AgentError):
        yield replace(base, error=found)
        return
    base = replace(base, claim_uid=found.claim_uid or None, generation=found.generation)
    if reference.is_from_template and found.pod_claim not in ("", reference.pod_claim):
        yield replace(base, error=_other_pod_claim(reference, found, file))
        return
    if not found.requests:
        yield base
    for request in found.requests:
        devices = tuple(_with_function(one, pci) for one in request.devices)
        yield replace(base, request=request.name, devices=devices)


def _with_functions(request: ClaimRequest, pci: PciDevices) -> ClaimRequest:
    """Return a request with the functions of devices whose address the API server has."""
    if all(one.pci is not None or not one.pci_address for one in request.devices):
        return request
    return replace(request, devices=tuple(_with_function(one, pci) for one in request.devices))


def _with_function(device: ClaimDevice, pci: PciDevices) -> ClaimDevice:
    address = device.pci_address
    if not address or device.pci is not None:
        return device
    try:
        return replace(device, pci=pci.look(address))
    except OSError:  # it is kept, as the error of the devices
        return device


def _of_one_uid(
    requests: Sequence[ClaimRequest],
    reported: Mapping[str, str],
    prepared: Mapping[str, PreparedClaim],
) -> Iterator[ClaimRequest]:
    """Yield the requests; of a claim that has two UIDs none has devices.

    `reported` is the UID of each claim at the API server, "" where it does not say. A UID that the
    kubelet did not prepare does not count: that file has an error already.
    """
    uids: dict[str, set[str]] = {name: {uid} for name, uid in reported.items() if uid}
    for one in requests:
        claim = prepared.get(one.claim_name)
        is_stale = claim is not None and bool(claim.uids) and one.claim_uid not in claim.uids
        if one.claim_uid and not is_stale:
            uids.setdefault(one.claim_name, set()).add(one.claim_uid)
    for one in requests:
        named = sorted(uids.get(one.claim_name, ()))
        if len(named) > 1 and one.source is not ClaimSource.NONE:
            error = one.error or _two_uids(one, named, reported.get(one.claim_name, ""))
            yield replace(one, devices=(), error=error)
        else:
            yield one


def _two_uids(request: ClaimRequest, uids: Sequence[str], reported: str) -> FailedPrecondition:
    others = [one for one in uids if one != reported]
    named = ", ".join(one[:64] for one in others[:4])
    what = f"Drivers have files of claim {request.claim_name} with different UIDs: {named}."
    if reported:
        what = (
            f"Drivers have files of claim {request.claim_name} with another UID than the API"
            f" server's, {reported[:64]}: {named}."
        )
    return FailedPrecondition(
        Reason.DEVICE_METADATA_CONTRADICTS,
        what,
        read=_READ,
        advice="A driver left a file of an earlier claim of that name behind; compare the UIDs with"
        " the claim, and remove the directory of the earlier one on the node.",
    )


def _other_pod_claim(
    reference: ClaimReference, found: DeviceMetadata, file: RequestFile
) -> FailedPrecondition:
    return FailedPrecondition(
        Reason.DEVICE_METADATA_CONTRADICTS,
        f"Driver {file.driver} has claim {reference.claim_name} as {found.pod_claim[:64]!r} of its"
        f" pod, and the pod has it as {reference.pod_claim!r}.",
        read=_READ,
        advice="The driver writes the file; look at the file on the node, and at the driver.",
    )


def _too_many() -> ResourceExhausted:
    return ResourceExhausted(
        Reason.TOO_MANY_CLAIM_DEVICES,
        f"The claims of the container have more than {MAX_CLAIM_DEVICES} devices.",
        read=_READ,
        advice="The limits of the agent are in docs/architecture.md; split the claim.",
    )
