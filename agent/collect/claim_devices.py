"""Collects the devices of the ResourceClaims that a container refers to.

Most pods refer to none: that the pod list says so is all that is looked at for them. For the others
the files of the drivers are looked at for each answer, in the pod's lane of reads.

No source but the files names the UID of a claim, so the UID alone does not tell a file that a
driver left behind of an earlier claim of the same name. What is checked: a file is about the claim,
the request and the driver of its path; all files of a claim have one UID; a claim that was made
from a template for this pod has the name that the pod's spec has for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from netutil.agent.collect.live_networks import PciDevices
from netutil.agent.collect.pci_cache import PciCache
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.collect.unnamed_container import unnamed
from netutil.agent.errors import (
    AgentError,
    FailedPrecondition,
    Reason,
    ResourceExhausted,
)
from netutil.agent.facts.claims import (
    MAX_CLAIM_DEVICES,
    NO_CLAIMS,
    ClaimDevice,
    ClaimRequest,
    Claims,
    ClaimSource,
)
from netutil.agent.facts.device_metadata import DeviceMetadataFiles, RequestFile, WatchedClaims
from netutil.agent.parsers.device_metadata import DeviceMetadata, MetadataDevice
from netutil.agent.pods.claims import ClaimReference, claims_of, may_refer_to_claims
from netutil.agent.pods.index import Match

_WATCHED = "watched claims"
"""The lane of reads of what is looked at for all streams together."""
_READ = "the device metadata of drivers on the node"


class ClaimDevices:
    """Reads the claims of containers. Used on the event loop. `files` is None where it is off."""

    def __init__(self, files: DeviceMetadataFiles | None, reads: ReadPool, pci: PciCache) -> None:
        self._files = files
        self._reads = reads
        self._pci = pci

    async def read(self, pod_key: str, match: Match, pid: str) -> Claims:
        """Return the claims of a container. `pid` is as in a request. Raises no `AgentError`."""
        if not may_refer_to_claims(match.pod):
            return NO_CLAIMS
        try:
            references = _references(match, pid)
            if not references:
                return NO_CLAIMS
            if self._files is None:
                raise _off()
            files, namespace = self._files, match.pod.metadata.namespace

            def read() -> Claims:
                return _read(files, self._pci, namespace, references)

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
        """Return for each what differs as soon as `read` would say something else of it.

        All are looked at in one job, on one thread. Raises `AgentError`.
        """
        if self._files is None or not wanted:
            return {}
        look = partial(self._files.signatures, tuple(wanted))
        return await self._reads.run(_WATCHED, look, _READ)


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
        advice="The node's operator sets --resource-claims=node.",
    )


def _read(
    files: DeviceMetadataFiles,
    functions: PciCache,
    namespace: str,
    references: Sequence[ClaimReference],
) -> Claims:
    """Return the requests of references. Blocks. Raises `AgentError`."""
    made = [one for one in references if one.claim_name]
    found = files.read(namespace, [(one.claim_name, one.request) for one in made])
    by_reference = dict(zip(made, found, strict=True))
    pci, left = PciDevices(functions), MAX_CLAIM_DEVICES
    requests: list[ClaimRequest] = []
    for reference in references:
        base = ClaimRequest(
            reference.pod_claim, reference.claim_name, namespace, reference.extended_resource
        )
        outcome = by_reference.get(reference, ())
        if isinstance(outcome, AgentError):
            requests.append(replace(base, request=reference.request, error=outcome))
            continue
        if not outcome:
            requests.append(replace(base, request=reference.request))
        for one in outcome:
            left -= _device_count(one)
            file = one if left >= 0 else replace(one, outcome=_too_many())
            requests += _requests(base, reference, file, pci)
    return Claims(tuple(sorted(_of_one_uid(requests), key=_order)), None, pci.error)


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
    base = replace(base, claim_uid=found.claim_uid, generation=found.generation)
    if reference.is_from_template and found.pod_claim not in ("", reference.pod_claim):
        yield replace(base, error=_other_pod_claim(reference, found, file))
        return
    if not found.requests:
        yield base
    for request in found.requests:
        devices = tuple(_device(one, pci) for one in request.devices)
        yield replace(base, request=request.name, devices=devices)


def _device(found: MetadataDevice, pci: PciDevices) -> ClaimDevice:
    device = ClaimDevice(found.pool, found.name, found.attributes, found.network_data)
    address = device.pci_address
    if not address:
        return device
    try:
        return replace(device, pci=pci.look(address))
    except OSError:  # it is kept, as the error of the devices
        return device


def _of_one_uid(requests: Sequence[ClaimRequest]) -> Iterator[ClaimRequest]:
    """Yield the requests; of a claim that has two UIDs none has devices."""
    uids: dict[str, set[str]] = {}
    for one in requests:
        if one.claim_uid:
            uids.setdefault(one.claim_name, set()).add(one.claim_uid)
    for one in requests:
        named = sorted(uids.get(one.claim_name, ()))
        if len(named) > 1 and one.source is ClaimSource.NODE and one.error is None:
            yield replace(one, devices=(), error=_two_uids(one, named))
        else:
            yield one


def _two_uids(request: ClaimRequest, uids: Sequence[str]) -> FailedPrecondition:
    named = ", ".join(one[:64] for one in uids[:4])
    return FailedPrecondition(
        Reason.DEVICE_METADATA_CONTRADICTS,
        f"Drivers have files of claim {request.claim_name} with different UIDs: {named}.",
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
