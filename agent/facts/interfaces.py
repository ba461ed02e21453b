"""The interfaces of a pod: as its plugins report them, as the kernel shows them, with devices.

Pure: the reported networks, the live links, the devices that the environment
names and a function that looks up PCI devices go in, one entry per interface comes out.

Which device belongs to which interface, first match:

1. The reported device-info names its PCI address.
2. The live link names its device on bus pci (IFLA_PARENT_DEV_NAME).
3. Devices that are left and that no live link names are paired in order (variable
   name, position) with the reported interfaces that are left, in the order of their report:
   those that are not the default network and have neither device-info nor a live link.
   So VFs that are bound to vfio-pci, of which no plugin said anything, find their interface.
4. What is still left is an entry without an interface.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from netutil.agent.facts.drift import Drift, link_drift, pci_drift, pf_drift, shared_ips
from netutil.agent.facts.link import Link
from netutil.agent.facts.network import Networks
from netutil.agent.facts.pci import PciInfo
from netutil.agent.parsers.devices import AllocatedDevice
from netutil.agent.parsers.network_status import DeviceInfo, NetworkStatus
from netutil.agent.parsers.pci_address import normalise_pci_address

LOOPBACK = "lo"
_PCI_BUS = "pci"


class DeviceType(Enum):
    """What stands behind an interface; the rule is `_device_type`."""

    HOST = "host"
    SR_IOV = "sr-iov"
    VDPA = "vdpa"
    VHOST_USER = "vhost-user"
    MEMIF = "memif"
    UNKNOWN = "unknown"


_TOLD_BY_DEVICE_INFO = {
    one.value: one for one in (DeviceType.VDPA, DeviceType.VHOST_USER, DeviceType.MEMIF)
}


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of a pod, or a device of its container without one (`name` is "").

    `network` is None if nobody reported it, `link` if there is none, `pci` if it has
    no PCI device or the host does not have it, `allocated` if the environment
    does not name it.
    """

    name: str
    device_type: DeviceType
    network: NetworkStatus | None = None
    link: Link | None = None
    pci: PciInfo | None = None
    allocated: AllocatedDevice | None = None
    drift: tuple[Drift, ...] = ()


@dataclass(slots=True)
class _Entry:
    """An interface that is being put together; `address` is its PCI address, "" for none."""

    network: NetworkStatus | None = None
    link: Link | None = None
    address: str = ""
    allocated: AllocatedDevice | None = None
    reported_address: str = field(init=False)

    def __post_init__(self) -> None:
        self.reported_address = _reported_address(self.device_info)

    @property
    def device_info(self) -> DeviceInfo | None:
        return self.network.device_info if self.network else None

    @property
    def name(self) -> str:
        """Return the name as reported; pod IPs are reported without one."""
        reported = self.network.interface if self.network else ""
        return reported or (self.link.name if self.link else "")

    @property
    def has_no_device(self) -> bool:
        return (
            self.network is not None
            and not self.network.default
            and self.device_info is None
            and self.link is None
        )


def merge(
    networks: Networks | None,
    links: Sequence[Link] | None,
    allocated: Sequence[AllocatedDevice],
    pci: Callable[[str], PciInfo | None],
    *,
    host_network: bool = False,
) -> tuple[Interface, ...]:
    """Return the networks as reported, then links that nobody reports by index, then devices.

    A reported network without an interface name (the pod's own IPs) is the first link
    that has one of its addresses. `lo` is listed only if it is reported. With `host_network`
    the links are the node's: none is listed, and that one is missing is no drift. `links` is None
    where they are not known: that is no drift either, and nothing is paired, as every interface may
    have a link of its own.
    `pci` is asked once for each address; it gets none but normalised ones.
    """
    known_links = links is not None and not host_network
    live = tuple(sorted(links or (), key=lambda link: link.index)) if known_links else ()
    entries = [
        _Entry(network, _link_of(network, live))
        for network in (networks.status if networks else ())
    ]
    reported = {entry.link.index for entry in entries if entry.link}
    entries += [
        _Entry(None, link) for link in live if link.index not in reported and link.name != LOOPBACK
    ]
    for entry in entries:
        entry.address = normalise_pci_address(entry.reported_address) or _own_address(entry.link)
    left = _give(entries, allocated)
    if links is not None:
        left = _pair(entries, left)
    entries += [_Entry(address=one.pci_address, allocated=one) for one in left]
    known = {
        address: pci(address) for address in dict.fromkeys(e.address for e in entries if e.address)
    }
    return tuple(
        _interface(entry, known.get(entry.address), known_links=known_links) for entry in entries
    )


def _link_of(network: NetworkStatus, links: Sequence[Link]) -> Link | None:
    for link in links:
        if network.interface:
            if link.name == network.interface:
                return link
        elif shared_ips(network, link):
            return link
    return None


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


def _pair(entries: Sequence[_Entry], left: Sequence[AllocatedDevice]) -> list[AllocatedDevice]:
    """Give the reported interfaces of which no device is known what is left, in order."""
    taken = {"", *(one for entry in entries for one in (entry.address, _own_address(entry.link)))}
    free: dict[str, AllocatedDevice] = {}
    for one in left:
        if one.pci_address not in taken:
            free.setdefault(one.pci_address, one)
    waiting = [entry for entry in entries if entry.has_no_device]
    paired = list(zip(waiting, free.values(), strict=False))
    for entry, device in paired:
        entry.address, entry.allocated = device.pci_address, device
    return [one for one in left if all(one is not device for _, device in paired)]


def _interface(entry: _Entry, pci: PciInfo | None, *, known_links: bool) -> Interface:
    reported = entry.reported_address or entry.address
    drift = [
        *pci_drift(reported, _own_address(entry.link), pci),
        *pf_drift(_device_field(entry.device_info, "pf-pci-address"), pci),
    ]
    if known_links and not (entry.link is None and _is_in_user_space(entry.device_info, pci)):
        drift = [*link_drift(entry.network, entry.link), *drift]
    return Interface(
        name=entry.name,
        device_type=_device_type(entry, pci),
        network=entry.network,
        link=entry.link,
        pci=pci,
        allocated=entry.allocated,
        drift=tuple(drift),
    )


def _device_type(entry: _Entry, pci: PciInfo | None) -> DeviceType:
    """Return the type, first match.

    VDPA, VHOST_USER and MEMIF if the reported device-info says so; SR_IOV if the PCI
    device is a virtual function (`physfn`), or device-info names a PF; HOST if the PCI
    device is none, or for a link without a PCI device; UNKNOWN otherwise.
    """
    info = entry.device_info
    if info is not None and info.type in _TOLD_BY_DEVICE_INFO:
        return _TOLD_BY_DEVICE_INFO[info.type]
    if (pci is not None and pci.pf_address) or _device_field(info, "pf-pci-address"):
        return DeviceType.SR_IOV
    if pci is not None or (
        entry.link is not None and not entry.reported_address and not entry.address
    ):
        return DeviceType.HOST
    return DeviceType.UNKNOWN


def _is_in_user_space(info: DeviceInfo | None, pci: PciInfo | None) -> bool:
    """Tell whether a device is used past the kernel, so that it has no link."""
    if info is not None and info.type in ("vhost-user", "memif"):
        return True
    if info is not None and info.type == "vdpa":
        return _device_field(info, "driver") == "vhost"
    driver = pci.driver.replace("_", "-") if pci else ""
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
    if link is None or link.parent_device_bus != _PCI_BUS:
        return ""
    return normalise_pci_address(link.parent_device) or ""
