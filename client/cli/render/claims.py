"""The tables of resource claims and their devices. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from netutil.client.cli.render.cells import listed, or_nothing, unknown
from netutil.client.cli.render.tables import Table
from netutil.client.documents import rfc3339
from netutil.client.models.devices import (
    ClaimDevice,
    ClaimNetworkData,
    ClaimRequest,
    ClaimSource,
    Device,
    DeviceAttribute,
    InterfaceClaim,
    PCIInfo,
    Resources,
)
from netutil.client.text import NOTHING, claim_title

_HEADERS = (
    *("CLAIM", "REQUEST", "DRIVER", "POOL", "DEVICE", "PCI DEVICE", "NUMA"),
    *("NETWORK DATA", "HEALTH", "SOURCE"),
)
_PREPARED_HEADERS = ("CLAIM", "DRIVER", "POOL", "DEVICE", "CDI DEVICES")
_ATTRIBUTE_HEADERS = ("CLAIM", "REQUEST", "DEVICE", "ATTRIBUTE", "TYPE", "VALUE")
_CONDITION_HEADERS = (
    *("CLAIM", "REQUEST", "DEVICE", "CONDITION"),
    *("STATUS", "REASON", "SINCE", "MESSAGE"),
)


def claims(answer: Resources) -> tuple[Table, ...]:
    """The claims with their devices, attributes and conditions, and those that are prepared.

    A table without rows is left out.
    """
    requests = answer.claims or ()
    rows = tuple(row for one in requests for row in _rows(one))
    notes = (
        *unknown("claims of the container", answer.claims_error),
        *(note for one in requests for note in _notes(one)),
    )
    tables = [Table("CLAIMS", _HEADERS, rows, notes)] if rows or notes else []
    devices = [(one, device) for one in requests for device in one.devices or ()]
    attributes = tuple(row for one, device in devices for row in _attributes(one, device))
    if attributes:
        tables.append(Table("ATTRIBUTES", _ATTRIBUTE_HEADERS, attributes))
    conditions = tuple(row for one, device in devices for row in _conditions(one, device))
    if conditions:
        tables.append(Table("CONDITIONS", _CONDITION_HEADERS, conditions))
    prepared = tuple(_prepared(answer))
    if prepared:
        tables.append(Table("CLAIMS PREPARED BY THE KUBELET", _PREPARED_HEADERS, prepared))
    return tuple(tables)


def pci_device(pci: PCIInfo) -> str:
    """A PCI function, with its driver."""
    return f"{pci.address} {pci.driver or '(no driver)'}"


def claim_notes(subject: str, claim: InterfaceClaim | None) -> Iterator[str]:
    """Yield notes of the claim that an interface's device is of, and of what is wrong with it."""
    if claim is None:
        return
    device = claim.device
    name = f"device {device.device} of " if device is not None else ""
    yield f"{subject}: {name}{claim_title(claim)}, driver {claim.driver or NOTHING}"
    if device is None:
        return
    yield from health_note(subject, device)
    for one in device.not_ready:
        said = ": ".join(filter(None, (one.reason, one.message)))
        yield f"{subject}: {one.type} is {one.status}{f': {said}' if said else ''}"


def health_note(name: str, device: Device | ClaimDevice) -> Iterator[str]:
    """Yield a note of a device that the kubelet does not report as healthy."""
    if device.is_suspect:
        message = f": {device.health_message}" if device.health_message else ""
        yield f"{name}: {device.health}{message}"


def _rows(request: ClaimRequest) -> Iterator[tuple[str, ...]]:
    """A row for each device; one for a request of which no device is known."""
    source = NOTHING if request.source is ClaimSource.UNSPECIFIED else str(request.source)
    first = (_claim(request), or_nothing(request.request), or_nothing(request.driver))
    for device in request.devices or ():
        yield (
            *first,
            or_nothing(device.pool),
            or_nothing(device.device),
            _pci(device),
            listed(device.numa_nodes),
            _network_data(device.network_data),
            or_nothing(device.health),
            source,
        )
    if not request.devices:
        yield (*first, *(NOTHING,) * 6, source)


def _notes(request: ClaimRequest) -> Iterator[str]:
    title = claim_title(request)
    yield from unknown(f"devices of {title}", request.error)
    if request.error is None and not request.is_known:
        yield f"devices of {title} not known: no source has them"
    for device in request.devices or ():
        name = f"device {device.device} of {title}"
        yield from health_note(name, device)
        if device.pci_bus_id and device.pci is None:
            yield f"{name}: no PCI device {device.pci_bus_id} is known on the node"
        if device.share_id:
            yield f"{name}: share {device.share_id}"


def _attributes(request: ClaimRequest, device: ClaimDevice) -> Iterator[tuple[str, ...]]:
    for name, one in device.attributes.items():
        yield (*_names(request, device), name, str(one.type), _value(one))


def _conditions(request: ClaimRequest, device: ClaimDevice) -> Iterator[tuple[str, ...]]:
    for one in device.conditions:
        since = one.last_transition_time
        yield (
            *_names(request, device),
            *(one.type, one.status, one.reason or NOTHING),
            *(rfc3339(since) if since else NOTHING, one.message or NOTHING),
        )


def _prepared(answer: Resources) -> Iterator[tuple[str, ...]]:
    for claim in answer.dynamic_resources:
        for one in claim.claim_resources:
            yield (
                f"{claim.claim_namespace}/{claim.claim_name}",
                *map(or_nothing, (one.driver_name, one.pool_name, one.device_name)),
                listed(one.cdi_devices),
            )


def _claim(request: ClaimRequest) -> str:
    """The pod's name of the claim, or the extended resource, with the ResourceClaim itself."""
    own = request.pod_claim or request.extended_resource
    full = f"{request.claim_namespace}/{request.claim_name}" if request.claim_name else "not made"
    return f"{own} ({full})" if own else full


def _names(request: ClaimRequest, device: ClaimDevice) -> tuple[str, str, str]:
    own = request.pod_claim or request.extended_resource or request.claim_name
    return (own or NOTHING, or_nothing(request.request), or_nothing(device.device))


def _pci(device: ClaimDevice) -> str:
    if device.pci is not None:
        return pci_device(device.pci)
    return device.pci_bus_id or NOTHING


def _network_data(data: ClaimNetworkData | None) -> str:
    if data is None:
        return NOTHING
    return listed((data.interface_name, data.hardware_address, *data.ips))


def _value(attribute: DeviceAttribute) -> str:
    match attribute.value:
        case None:
            return NOTHING
        case tuple():
            return ", ".join(map(_plain, attribute.value))
        case _:
            return _plain(attribute.value)


def _plain(value: int | bool | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
