"""The devices of a container's ResourceClaims, and which interface each of them is. Pure.

A device is an interface's, first match:

1. its driver reports the interface's name (networkData.interfaceName);
2. its attribute resource.kubernetes.io/pciBusID is the PCI address of the live link's parent, or
   that of a reported device-info.

A name is matched with the live links first, and then with reported networks without a link. Two
devices that match one interface leave the second without: no source says which is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from netutil.agent.errors import AgentError
from netutil.agent.facts.drift import Drift, has_address
from netutil.agent.facts.links import Link
from netutil.agent.facts.pci import PciInfo
from netutil.agent.parsers.addresses import is_same_address, normalise_pci_address
from netutil.agent.parsers.device_metadata import Attribute, NetworkData

PCI_BUS_ID = "resource.kubernetes.io/pciBusID"
"""StandardDeviceAttributePCIBusID of k8s.io/dynamic-resource-allocation/deviceattribute."""
MAX_CLAIM_DEVICES = 256
"""Of one container."""


class ClaimSource(Enum):
    """Which source names a request's devices; see enum ClaimSource of the proto."""

    NONE = "none"
    NODE = "node"
    API_SERVER = "apiserver"


@dataclass(frozen=True, slots=True)
class DeviceCondition:
    """A condition of a device in the claim's status; see message DeviceCondition of the proto."""

    type: str
    status: str
    reason: str
    message: str
    last_transition_time: datetime | None


@dataclass(frozen=True, slots=True)
class ClaimDevice:
    """A device of a request. `pci` is None if it has no PCI address, or the host no such function.

    `attributes` are by name, sorted. `health` is "" where the kubelet does not say. `share_id` and
    `conditions` are what the API server says.
    """

    pool: str
    name: str
    attributes: tuple[tuple[str, Attribute], ...] = ()
    network_data: NetworkData | None = None
    pci: PciInfo | None = None
    health: str = ""
    health_message: str = ""
    share_id: str = ""
    conditions: tuple[DeviceCondition, ...] = ()

    @property
    def pci_address(self) -> str:
        """Return the PCI address that the driver reports, as sysfs spells it, "" for none.

        Only the attribute counts: drivers may name devices after addresses as well.
        """
        for name, attribute in self.attributes:
            if name == PCI_BUS_ID:
                return normalise_pci_address(attribute.string_value or "") or ""
        return ""

    @property
    def interface_name(self) -> str:
        """Return the interface name that the driver reports, "" for none."""
        return self.network_data.interface_name if self.network_data is not None else ""

    @property
    def may_be_interface(self) -> bool:
        """Return whether the device is one of the network, as far as a source says it."""
        return self.network_data is not None or (self.pci is not None and bool(self.pci.is_network))


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """A request of a claim, and the devices that one driver allocated for it.

    Fields are as in message ClaimRequest of the proto; "" and 0 are what no source says. `error` is
    why `devices` are not known, or not by the node where `source` is the API server.
    """

    pod_claim: str
    claim_name: str
    claim_namespace: str
    extended_resource: str = ""
    claim_uid: str = ""
    request: str = ""
    driver: str = ""
    source: ClaimSource = ClaimSource.NONE
    generation: int = 0
    devices: tuple[ClaimDevice, ...] = ()
    error: AgentError | None = None


@dataclass(frozen=True, slots=True)
class Claims:
    """The requests that a container refers to; `error` is why they are not known, or not all.

    `pci_error` is why the PCI function of a device is not known.
    """

    requests: tuple[ClaimRequest, ...] = ()
    error: AgentError | None = None
    pci_error: AgentError | None = None

    @property
    def first_error(self) -> AgentError | None:
        """Return why something of the devices is not known, None if all is."""
        return self.error or next((one.error for one in self.requests if one.error), None)

    @property
    def device_count(self) -> int:
        """Return how many devices there are."""
        return sum(len(one.devices) for one in self.requests)


NO_CLAIMS = Claims()


@dataclass(frozen=True, slots=True)
class InterfaceClaim:
    """A device of the container's claims that is an interface, or may be one."""

    request: ClaimRequest
    device: ClaimDevice


def interface_claims(claims: Claims) -> tuple[InterfaceClaim, ...]:
    """Return the devices that are matched with interfaces, in the order of their requests."""
    return tuple(
        InterfaceClaim(request, device)
        for request in claims.requests
        for device in request.devices
        if device.may_be_interface or device.pci_address
    )


def match_claims(
    claims: Sequence[InterfaceClaim],
    links: Sequence[str],
    names: Sequence[str],
    addresses: Sequence[str],
) -> dict[int, int]:
    """Return the position of a claim by that of its interface.

    `links`, `names` and `addresses` are of each interface: the name of its live link, its name,
    and its PCI address; "" for none.
    """
    found: dict[int, int] = {}
    left = set(range(len(claims)))
    by_name = [one.device.interface_name for one in claims]
    by_address = [one.device.pci_address for one in claims]
    for known, reported in ((links, by_name), (names, by_name), (addresses, by_address)):
        by_value = {
            value: position
            for position, value in reversed(tuple(enumerate(known)))
            if value and position not in found
        }
        for number in sorted(left):
            position = by_value.pop(reported[number], None)
            if position is not None:
                found[position] = number
                left.remove(number)
    return found


def claim_drift(device: ClaimDevice, link: Link | None) -> Iterator[Drift]:
    """Yield what the driver reports of a device and its live link disagree on.

    All is missing with the link. What was not reported cannot disagree; of addresses those that
    are not on the link count, without their prefix lengths.
    """
    data = device.network_data
    if data is None:
        return
    if data.interface_name and (link is None or link.name != data.interface_name):
        yield Drift("claim-interface-name", data.interface_name, link.name if link else "")
    if link is None:
        if not data.interface_name and data.ips:
            yield Drift("claim-ips", ", ".join(data.ips))
        return
    if data.hardware_address and not is_same_address(data.hardware_address, link.mac):
        yield Drift("claim-hardware-address", data.hardware_address, link.mac)
    missing = [ip for ip in data.ips if not has_address(link, ip)]
    if missing:
        yield Drift(
            "claim-ips", ", ".join(missing), ", ".join(one.address for one in link.addresses)
        )
