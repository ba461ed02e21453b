"""The interfaces of a pod: reported networks, live links and devices, merged.

Pure: the reported networks, the live links, the devices that the environment
names, those of the container's ResourceClaims and a function that looks up PCI devices go in, one
entry per interface comes out.

Which device belongs to which interface, first match:

0. A device of a claim, of which the driver reports the interface's name, or of which the PCI
   address is the link's (`netutil.agent.facts.claims`).
1. The reported device-info names its PCI address.
2. The live link names its device on bus pci (IFLA_PARENT_DEV_NAME).
3. Network controllers that are left and that no live link names are paired with the reported
   interfaces that are left: those that are not the default network and have neither device-info nor
   a live link. So VFs that are bound to vfio-pci, of which no plugin said anything, find their
   interface. Such a pairing is no fact, and is marked (`netutil.agent.facts.pairing`).
4. What is still left is an entry without an interface.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from netutil.agent.facts.claims import InterfaceClaim, claim_drift, match_claims
from netutil.agent.facts.drift import Drift, link_drift, pci_drift, pf_drift
from netutil.agent.facts.links import Link
from netutil.agent.facts.naming import interface_name, link_of
from netutil.agent.facts.network import Networks
from netutil.agent.facts.pairing import DeviceSource, pair
from netutil.agent.parsers.addresses import normalise_pci_address
from netutil.agent.parsers.environment import AllocatedDevice
from netutil.agent.parsers.network_status import DeviceInfo, NetworkStatus
from netutil.agent.parsers.pci import PciInfo
from netutil.agent.parsers.pci_ids import is_virtual_function

LOOPBACK = "lo"
PCI_BUS = "pci"


class DeviceType(Enum):
    """What an interface is made of; the rule is `_device_type`."""

    HOST = "host"
    SR_IOV = "sr-iov"
    VDPA = "vdpa"
    VHOST_USER = "vhost-user"
    MEMIF = "memif"
    UNKNOWN = "unknown"


class TypeSource(Enum):
    """From where a device type is known; see enum DeviceTypeSource of the proto."""

    NONE = "none"
    DEVICE_INFO = "device-info"
    SYSFS = "sysfs"
    LINK = "link"
    DEVICE_ID = "device-id"


_UNKNOWN = (DeviceType.UNKNOWN, TypeSource.NONE)
_TYPES_OF_DEVICE_INFO = {
    one.value: one for one in (DeviceType.VDPA, DeviceType.VHOST_USER, DeviceType.MEMIF)
}


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of a pod, or a device of its container without one (`name` is "").

    `network` is None if it is not reported, `link` if there is none, `pci` if it has
    no PCI device, the host does not have it or it cannot be read, `allocated` if the environment
    does not name it, `claim` if no device of a claim is it. `device_reason` says why a device was
    inferred or guessed, or why none was.
    """

    name: str
    device_type: DeviceType
    network: NetworkStatus | None = None
    link: Link | None = None
    pci: PciInfo | None = None
    allocated: AllocatedDevice | None = None
    drift: tuple[Drift, ...] = ()
    device_source: DeviceSource = DeviceSource.NONE
    device_reason: str = ""
    type_source: TypeSource = TypeSource.NONE
    claim: InterfaceClaim | None = None


@dataclass(slots=True)
class _Entry:
    """An interface that is being put together; `address` is its PCI address, "" for none."""

    network: NetworkStatus | None = None
    link: Link | None = None
    address: str = ""
    allocated: AllocatedDevice | None = None
    source: DeviceSource = DeviceSource.NONE
    reason: str = ""
    claim: InterfaceClaim | None = None
    reported_address: str = field(init=False)

    def __post_init__(self) -> None:
        self.reported_address = _reported_address(self.device_info)

    @property
    def device_info(self) -> DeviceInfo | None:
        return self.network.device_info if self.network else None

    @property
    def name(self) -> str:
        """Return the name, "" for a device without an interface."""
        name = self.link.name if self.link else ""
        if self.network is not None:
            name = interface_name(self.network, self.link)
        return name or (self.claim.device.interface_name if self.claim is not None else "")

    @property
    def has_no_device(self) -> bool:
        return (
            self.network is not None
            and not self.network.default
            and self.device_info is None
            and self.link is None
            and self.claim is None
        )


def merge(
    networks: Networks | None,
    links: Sequence[Link] | None,
    allocated: Sequence[AllocatedDevice],
    pci: Callable[[str], PciInfo | None],
    *,
    claims: Sequence[InterfaceClaim] = (),
    host_network: bool = False,
    parents_are_named: bool = True,
) -> tuple[Interface, ...]:
    """Return the networks as reported, then links that are not reported by index, then devices.

    Of the devices those of claims come first.

    A reported network without an interface name (the pod's own IPs) is the first link
    that has one of its addresses. `lo` is listed only if it is reported. With `host_network`
    the links are the node's: none is listed, and that one is missing is no drift. `links` is None
    where they are not known: that is no drift either, and nothing is paired, as every interface may
    have a link of its own. `parents_are_named` is whether the kernel names the parent device of
    each link that has one.
    `pci` is asked once for each address; it gets none but normalised ones. Of a device for which it
    raises OSError nothing is known, which is no drift.
    """
    known_links = links is not None and not host_network
    live = tuple(sorted(links or (), key=lambda link: link.index)) if known_links else ()
    entries = [
        _Entry(network, link_of(network, live)) for network in (networks.status if networks else ())
    ]
    reported = {entry.link.index for entry in entries if entry.link}
    entries += [
        _Entry(None, link) for link in live if link.index not in reported and link.name != LOOPBACK
    ]
    for entry in entries:
        reported_address = normalise_pci_address(entry.reported_address)
        entry.address = reported_address or _own_address(entry.link)
        info = entry.device_info
        if reported_address or (info is not None and info.type in _TYPES_OF_DEVICE_INFO):
            entry.source = DeviceSource.DEVICE_INFO
        elif entry.link is not None and entry.link.parent_device:
            entry.source = DeviceSource.LINK
    entries += _claim(entries, claims)
    devices = _Devices(pci, parents_are_named=parents_are_named)
    left = _give(entries, allocated)
    if links is not None:
        left = _pair(entries, left, devices)
    entries += [
        _Entry(address=one.pci_address, allocated=one, source=DeviceSource.ENVIRONMENT)
        for one in left
    ]
    return tuple(_interface(entry, devices, known_links=known_links) for entry in entries)


def _claim(entries: Sequence[_Entry], claims: Sequence[InterfaceClaim]) -> list[_Entry]:
    """Give the interfaces their devices of claims; return an entry for each device that is left.

    A device that is left and may well be none of the network gets no entry.
    """
    if not claims:
        return []
    found = match_claims(
        claims,
        [entry.link.name if entry.link else "" for entry in entries],
        [entry.name for entry in entries],
        [_own_address(entry.link) or entry.address for entry in entries],
    )
    for position, number in found.items():
        entry, claim = entries[position], claims[number]
        entry.claim, entry.source = claim, DeviceSource.CLAIM
        entry.address = claim.device.pci_address or entry.address
    left = set(range(len(claims))) - set(found.values())
    return [
        _Entry(address=claim.device.pci_address, claim=claim, source=DeviceSource.CLAIM)
        for number, claim in enumerate(claims)
        if number in left and claim.device.may_be_interface
    ]


class _Devices:
    """The PCI devices of the host, each looked up once."""

    def __init__(self, look: Callable[[str], PciInfo | None], *, parents_are_named: bool) -> None:
        self._look = look
        self._known: dict[str, PciInfo | None] = {}
        self._unreadable: set[str] = set()
        self.parents_are_named = parents_are_named

    def __getitem__(self, address: str) -> PciInfo | None:
        """Return the device, None for none of that address ("" is none) or an unreadable one."""
        if address and address not in self._known:
            try:
                self._known[address] = self._look(address)
            except OSError:  # the reader keeps the error, which is reported beside the interfaces
                self._known[address] = None
                self._unreadable.add(address)
        return self._known.get(address)

    def is_unreadable(self, address: str) -> bool:
        return address in self._unreadable

    def may_lack_link(self, address: str) -> bool:
        """Return whether a device may be that of a reported interface without a live link.

        A network controller, that is; not one of a kernel's driver where links do not name
        their devices: one of the live links may well be its.
        """
        pci = self[address]
        if pci is None or not pci.is_network:
            return False
        return self.parents_are_named or not _has_link(pci)


def _give(entries: Sequence[_Entry], allocated: Sequence[AllocatedDevice]) -> list[AllocatedDevice]:
    """Give the entries whose PCI address is known their devices; return what is left.

    Two interfaces may share a device. Of a device that is named twice the second is left.
    """
    left = list(allocated)
    for entry in entries:
        same = [one for one in allocated if entry.address and one.pci_address == entry.address]
        entry.allocated = next((one for one in same if one in left), same[0] if same else None)
        if entry.allocated in left:
            left.remove(entry.allocated)
    return left


def _pair(
    entries: Sequence[_Entry], left: Sequence[AllocatedDevice], devices: _Devices
) -> list[AllocatedDevice]:
    """Give the reported interfaces of which no device is known what is left; return the rest.

    A device without a driver of the kernel comes before one that has one: that should have a link.
    """
    taken = {"", *(one for entry in entries for one in (entry.address, _own_address(entry.link)))}
    free: dict[str, AllocatedDevice] = {}
    for one in left:
        if one.pci_address not in taken and devices.may_lack_link(one.pci_address):
            free.setdefault(one.pci_address, one)
    waiting = [entry for entry in entries if entry.has_no_device]
    without_link = [one for one in free.values() if not _has_link(devices[one.pci_address])]
    candidates = without_link if len(without_link) >= len(waiting) else [*free.values()]
    found = pair([one.network for one in waiting if one.network is not None], candidates)
    paired = set()
    for entry, pairing in zip(waiting, found, strict=True):
        entry.reason = pairing.reason
        if pairing.device is not None:
            entry.address, entry.allocated = pairing.device.pci_address, pairing.device
            entry.source = pairing.source
            paired.add(id(pairing.device))
    return [one for one in left if id(one) not in paired]


def _interface(entry: _Entry, devices: _Devices, *, known_links: bool) -> Interface:
    pci, unreadable = devices[entry.address], devices.is_unreadable(entry.address)
    drift = [*pf_drift(_device_field(entry.device_info, "pf-pci-address"), pci)]
    if not unreadable:
        drift = [*_address_drift(entry, pci, devices), *drift]
    # Whether a device has a link its driver says.
    needs_link = not unreadable and not _is_in_user_space(entry.device_info, pci)
    if known_links and (entry.link is not None or needs_link):
        drift = [*link_drift(entry.network, entry.link), *drift]
        if entry.claim is not None:
            drift += claim_drift(entry.claim.device, entry.link)
    device_type, type_source = _device_type(entry, pci, devices)
    return Interface(
        name=entry.name,
        device_type=device_type,
        network=entry.network,
        link=entry.link,
        pci=pci,
        allocated=entry.allocated,
        drift=tuple(drift),
        device_source=entry.source,
        device_reason=entry.reason,
        type_source=type_source,
        claim=entry.claim,
    )


def _address_drift(entry: _Entry, pci: PciInfo | None, devices: _Devices) -> Iterator[Drift]:
    """Yield where PCI addresses that are reported are not the link's own, or not the host's."""
    own = _own_address(entry.link)
    claimed = entry.claim.device.pci_address if entry.claim is not None else ""
    if claimed:
        yield from pci_drift(claimed, own, pci, "claim-pci-address")
    reported = entry.reported_address or ("" if claimed else entry.address)
    address = normalise_pci_address(reported) if reported else ""
    if not reported or (address and devices.is_unreadable(address)):
        return
    yield from pci_drift(reported, own, pci if address == entry.address else devices[address or ""])


def _device_type(
    entry: _Entry, pci: PciInfo | None, devices: _Devices
) -> tuple[DeviceType, TypeSource]:
    """Return the type and from where it is known: the rule of enum DeviceType of the proto."""
    info = entry.device_info
    if info is not None and info.type in _TYPES_OF_DEVICE_INFO:
        return _TYPES_OF_DEVICE_INFO[info.type], TypeSource.DEVICE_INFO
    if pci is not None and pci.pf_address:
        return DeviceType.SR_IOV, TypeSource.SYSFS
    if _device_field(info, "pf-pci-address"):
        return DeviceType.SR_IOV, TypeSource.DEVICE_INFO
    if pci is not None:
        return _type_without_physical_function(pci)
    if entry.link is None or entry.reported_address or entry.address:
        return _UNKNOWN
    # A link of a kind is made by software; so is one on a bus that is named and is not PCI's.
    if entry.link.kind or entry.link.parent_device or devices.parents_are_named:
        return DeviceType.HOST, TypeSource.LINK
    return _UNKNOWN


def _type_without_physical_function(pci: PciInfo) -> tuple[DeviceType, TypeSource]:
    """Return the type of a device of which sysfs names no physical function.

    On bare metal it is no virtual one; inside a virtual machine it may well be.
    """
    virtual = is_virtual_function(pci.vendor_id, pci.device_id, pci.driver)
    if virtual:
        return DeviceType.SR_IOV, TypeSource.DEVICE_ID
    if _is_driven_in_user_space(pci):
        return _UNKNOWN
    if pci.max_vfs is not None:
        return DeviceType.HOST, TypeSource.SYSFS
    return _UNKNOWN if virtual is None else (DeviceType.HOST, TypeSource.DEVICE_ID)


def _has_link(pci: PciInfo | None) -> bool:
    """Return whether a driver of the kernel is bound, which makes a link."""
    return pci is not None and bool(pci.driver) and not _is_driven_in_user_space(pci)


def _is_in_user_space(info: DeviceInfo | None, pci: PciInfo | None) -> bool:
    """Return whether a device is used past the kernel, so that it has no link."""
    if info is not None and info.type in ("vhost-user", "memif"):
        return True
    if info is not None and info.type == "vdpa":
        return _device_field(info, "driver") == "vhost"
    return pci is not None and _is_driven_in_user_space(pci)


def _is_driven_in_user_space(pci: PciInfo) -> bool:
    driver = pci.driver.replace("_", "-")
    # vfio-pci and its variants (mlx5_vfio_pci), and the drivers of DPDK before it.
    return driver.endswith("vfio-pci") or driver in ("igb-uio", "uio-pci-generic")


def _reported_address(info: DeviceInfo | None) -> str:
    return _device_field(info, "pci-address")


def _device_field(info: DeviceInfo | None, name: str) -> str:
    """Return a field of the device-info: of the object of its type, else of any that has it."""
    if info is None:
        return ""
    devices = [info.devices[info.type]] if info.type in info.devices else []
    devices += info.devices.values()
    return next((found for one in devices if (found := one.fields.get(name))), "")


def _own_address(link: Link | None) -> str:
    """Return the PCI address that the kernel names for a link, "" for none."""
    if link is None or link.parent_device_bus != PCI_BUS:
        return ""
    return normalise_pci_address(link.parent_device) or ""
