"""Devices of resource claims for a DPDK line, and the health of devices. Pure.

Sources: KEP-5304 and KEP-4817 (devices of claims, as the agent reports them), the attribute
resource.kubernetes.io/pciBusID (deviceattribute of k8s.io/dynamic-resource-allocation), KEP-4680
(health), SRIOVNETWORK_VF_DEVICE_<device> of the SR-IOV DRA driver (pkg/devicestate/state.go).

The attribute alone says which PCI device it is. A device's name and a driver's variable may look
like an address, but neither is a promise of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from netutil.client.dpdk.functions import (
    PCI_ADDRESS,
    READ,
    SHARED_WITH_KERNEL,
    SHOWN_BY_DEVICES,
    VFIO,
    Devices,
    add_function,
    unusable_device,
    warn_of_missing_link,
)
from netutil.client.errors import FailedPrecondition, NetUtilError
from netutil.client.models.core import PartError, as_exception
from netutil.client.models.devices import (
    ClaimDevice,
    ClaimRequest,
    Device,
    InterfaceClaim,
    Interfaces,
    Resources,
)
from netutil.client.text import claim_title

Claim = ClaimRequest | InterfaceClaim
_VARIABLE = "SRIOVNETWORK_VF_DEVICE_"
_MAX_NAMES = 4
"""Devices that a sentence names; it counts the others."""
_MAX_MESSAGE = 200
"""Characters of a message of the kubelet or of a driver within a sentence."""


@dataclass(frozen=True, slots=True)
class ClaimedDevices:
    """The claims of the container, from both answers that list their devices.

    `errors` say why devices are not known. `devices` has each device once. `placed` are the keys of
    those that an interface shows with a live link or a PCI function.
    """

    resources: Resources | None
    errors: tuple[PartError, ...]
    requests: tuple[ClaimRequest, ...]
    devices: tuple[tuple[Claim, ClaimDevice], ...]
    placed: frozenset[tuple[str, ...]]


def claimed_devices(interfaces: Interfaces, resources: Resources | None) -> ClaimedDevices:
    """The devices of `resources`, then those that only an interface has.

    Where PodResources is unavailable, interfaces alone have the devices.
    """
    requests = (resources.claims or ()) if resources is not None else ()
    found: dict[tuple[str, ...], tuple[Claim, ClaimDevice]] = {}
    placed = set()
    for request in requests:
        for device in request.devices or ():
            found.setdefault(key_of(request, device), (request, device))
    for one in interfaces.interfaces:
        if one.claim is not None and one.claim.device is not None:
            key = key_of(one.claim, one.claim.device)
            found.setdefault(key, (one.claim, one.claim.device))
            if one.link is not None or one.pci is not None:
                placed.add(key)
    errors = (resources.claims_error if resources is not None else None, interfaces.claims_error)
    return ClaimedDevices(
        resources=resources,
        errors=tuple(error for error in errors if error is not None),
        requests=requests,
        devices=tuple(found.values()),
        placed=frozenset(placed),
    )


def key_of(claim: Claim, device: ClaimDevice) -> tuple[str, ...]:
    """What a device of a claim has in common in both answers."""
    names = (claim.pod_claim, claim.claim_name, claim.request, claim.driver)
    return (*names, device.pool, device.device, device.share_id)


def has_known_addresses(resources: Resources) -> bool:
    """Whether the address of each device of each claim is known, as where there is no claim."""
    requests = resources.claims
    if requests is None or not all(one.is_known for one in requests):
        return False
    devices = [device for one in requests for device in one.devices or ()]
    return all(one.pci_bus_id for one in devices) and not _unlisted(resources)


def add_devices_of_claims(
    claims: ClaimedDevices, environment: Mapping[str, str], found: Devices
) -> tuple[str, ...]:
    """Add the PCI devices of claims; the result says which devices are not known, also as warnings.

    `environment` is the process's own. Raises `FailedPrecondition` for a device that DPDK cannot
    use, and the error of a request whose devices could not be read.
    """
    for request in claims.requests:
        if request.error is not None:
            raise as_exception(request.error)
    for claim, device in claims.devices:
        if device.pci_bus_id and device.pci_bus_id not in found.seen:
            _add(claim, device, claims.resources, found)
    unknown = tuple(dict.fromkeys((*_unknown(claims), *_unmatched(environment, found))))
    found.warnings += unknown
    return unknown


def _add(claim: Claim, device: ClaimDevice, resources: Resources | None, found: Devices) -> None:
    address, label = device.pci_bus_id, _label(claim, device)
    if not PCI_ADDRESS.fullmatch(address):
        why = f"its attribute resource.kubernetes.io/pciBusID is {address!r:.40}, no PCI address"
        raise unusable_device(label, why, SHOWN_BY_DEVICES)
    found.seen.add(address)
    pci = device.pci
    if pci is not None and pci.address != address:
        why = f"its attribute names PCI device {address}, but the agent reports {pci.address}"
        raise unusable_device(label, why, SHOWN_BY_DEVICES)
    if pci is None:
        if resources is not None and resources.pci_error is not None:
            raise as_exception(resources.pci_error)
        raise unusable_device(label, f"the node has no PCI device {address}", SHOWN_BY_DEVICES)
    source = f"{label}, bound to {pci.driver} (attribute resource.kubernetes.io/pciBusID)"
    is_given = add_function(label, pci, source, found, SHOWN_BY_DEVICES)
    if is_given and pci.driver in SHARED_WITH_KERNEL:
        warn_of_missing_link(label, pci, found)


def _unknown(claims: ClaimedDevices) -> Iterator[str]:
    """Yield a sentence for each set of devices of which nothing says which PCI devices they are."""
    for error in claims.errors:
        yield f"devices of resource claims that are not known are left out: {error.message}"
    for request in claims.requests:
        if not request.is_known:
            yield (
                f"of {claim_title(request)} only devices are given that a variable or a network"
                " names: no source has its devices"
            )
    if claims.resources is not None:
        for name in _unlisted(claims.resources):
            yield (
                f"of resource claim {name} only devices are given that a variable or a network"
                " names: the agent does not report its devices"
            )
    nameless: dict[str, list[str]] = {}
    for claim, device in claims.devices:
        if not device.pci_bus_id and key_of(claim, device) not in claims.placed:
            nameless.setdefault(claim_title(claim), []).append(device.device)
    for title, names in nameless.items():
        yield (
            f"of {title} no attribute resource.kubernetes.io/pciBusID says which PCI device it is,"
            f" so it is left out: {_listed(names)}"
        )


def _unlisted(resources: Resources) -> list[str]:
    """Claims that the kubelet prepared, and of which the agent reports no request."""
    reported = {(one.claim_namespace, one.claim_name) for one in resources.claims or ()}
    return [
        f"{one.claim_namespace}/{one.claim_name}"
        for one in resources.dynamic_resources
        if (one.claim_namespace, one.claim_name) not in reported
    ]


def _unmatched(environment: Mapping[str, str], found: Devices) -> Iterator[str]:
    """Yield a sentence if a driver's variables name devices that no attribute names."""
    names = [
        name
        for name, value in environment.items()
        if name.startswith(_VARIABLE) and value.lower() not in found.seen
    ]
    if names:
        yield (
            "a variable of the SR-IOV driver names a device that no attribute of a claim's device"
            f" names, so it is left out: {_listed(names)}"
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"{name:.80}" for name in names[:_MAX_NAMES])
    more = len(names) - _MAX_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def unknown_claims(claims: ClaimedDevices, why: Iterable[str]) -> NetUtilError:
    """The error for a container without a device for DPDK that may have one by a claim."""
    if claims.errors:
        return as_exception(claims.errors[0])
    return FailedPrecondition(
        f"which devices the container's resource claims have is not known: {'; '.join(why)}",
        "FAILED_PRECONDITION",
        reason="DEVICES_NOT_KNOWN",
        read=READ,
        advice="netutil devices shows the claims; their devices are known if the driver publishes"
        " resource.kubernetes.io/pciBusID in device metadata on the node (KEP-5304), or in its"
        " ResourceSlices if the agent runs with --resource-claims=apiserver",
    )


def device_warnings(
    found: Devices, resources: Resources | None, claims: ClaimedDevices
) -> list[str]:
    """Sentences about devices of the command line that are reported not to work, or are shared."""
    words = {one.words[-1] for one in found.arguments}
    used = {
        key_of(one.claim, one.claim.device)
        for one in found.given
        if one.claim is not None and one.claim.device is not None
    }
    warnings: list[str] = []
    for device in resources.devices if resources is not None else ():
        names = {device.id.lower(), f"auxiliary:{device.id}"}
        if words & names or device.id in found.af_xdp:
            label = f"device {device.id} of {device.resource_name}"
            warnings += _of_health(label, device)
    for claim, one in claims.devices:
        if one.pci_bus_id in words or key_of(claim, one) in used:
            label = _label(claim, one)
            warnings += (*_of_health(label, one), *_of_conditions(label, one))
            warnings += _of_share(label, one)
    return list(dict.fromkeys(warnings))


def _of_health(label: str, device: Device | ClaimDevice) -> Iterator[str]:
    if device.is_suspect:
        more = _more(device.health_message)
        yield f"{label}: the kubelet reports it as {device.health:.40}{more}"


def _of_conditions(label: str, device: ClaimDevice) -> Iterator[str]:
    for one in device.not_ready:
        why = _more(": ".join(filter(None, (one.reason, one.message))))
        yield f"{label}: its driver reports that it is not {one.type}{why}"


def _of_share(label: str, device: ClaimDevice) -> Iterator[str]:
    """Yield a warning for a shared function: vfio_group_fops_open of the kernel opens it once."""
    if device.share_id and device.pci is not None and device.pci.driver == VFIO:
        yield (
            f"{label}: its shareID is {device.share_id:.40}, so another claim may have it too, and"
            " VFIO opens a device for one process only"
        )


def _more(message: str) -> str:
    return f": {message:.{_MAX_MESSAGE}}" if message else ""


def _label(claim: Claim, device: ClaimDevice) -> str:
    return f"device {device.device:.80} of {claim_title(claim)}"
