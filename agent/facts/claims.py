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

from netutil.agent.errors import AgentError
from netutil.agent.facts.drift import Drift, has_address
from netutil.agent.facts.links import Link
from netutil.agent.parsers.addresses import is_same_address
from netutil.agent.parsers.claims import ClaimDevice, ClaimRequest

MAX_CLAIM_DEVICES = 256
"""Of one container."""


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
    missing = [ip for ip in data.ips or () if not has_address(link, ip)]
    if missing:
        yield Drift(
            "claim-ips", ", ".join(missing), ", ".join(one.address for one in link.addresses)
        )
