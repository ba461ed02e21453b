"""PCI devices of the host.

Source: /sys/bus/pci/devices (the kernel's ABI/testing/sysfs-bus-pci and
Documentation/PCI/pci-iov-howto.rst).
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass

from netutil.agent.facts.sysfs import names_if_there, text_if_there
from netutil.agent.parsers.addresses import normalise_pci_address
from netutil.agent.parsers.pci import NETWORK_CLASS, PciInfo

_VIRTUAL_FUNCTION = re.compile(r"virtfn([0-9]{1,5})")
_NUMBER = re.compile(r"[0-9]{1,9}")
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ENODEV, errno.ENXIO)
"""The file is not there, the link is none, or the device left while it was read."""


@dataclass(frozen=True, slots=True)
class NetworkDevice:
    """A network controller; `interfaces` are its links in the reader's network namespace."""

    pci: PciInfo
    interfaces: tuple[str, ...]


def read_network_devices(host_root: str) -> tuple[NetworkDevice, ...]:
    """Return every PCI function of class 02 (network controllers), by address.

    Files: `class`, `net/`, and those of `read_pci`. A device that leaves meanwhile is left out.
    Raises OSError if a file that is there cannot be read.
    """
    devices = os.path.join(host_root, "sys/bus/pci/devices")
    found = []
    for address in sorted(_names(devices)):
        device = os.path.join(devices, address)
        if not _text(device, "class").startswith(NETWORK_CLASS):
            continue
        pci = read_pci(host_root, address)
        if pci is not None:
            interfaces = tuple(sorted(_names(os.path.join(device, "net"))))
            found.append(NetworkDevice(pci, interfaces))
    return tuple(found)


def read_pci(host_root: str, address: str) -> PciInfo | None:
    """Return the device, None if the host has none of that address or it is no address.

    Files: `driver`, `vendor`, `device`, `class`, `numa_node`, `physfn`, `iommu_group`,
    `sriov_totalvfs`, and `virtfn<n>` of the physical function. Of a link only the name of its
    target is read. Raises OSError if a file that is there cannot be read.
    """
    known = normalise_pci_address(address)
    if known is None:
        return None
    devices = os.path.join(host_root, "sys/bus/pci/devices")
    device = os.path.join(devices, known)
    if not os.path.isdir(device):
        return None
    physical = normalise_pci_address(_target(device, "physfn"))
    parent = os.path.join(devices, physical) if physical else device
    return PciInfo(
        address=known,
        driver=_target(device, "driver"),
        vendor_id=_text(device, "vendor"),
        device_id=_text(device, "device"),
        numa_node=_number(_text(device, "numa_node")),
        pf_address=physical or "",
        vf_index=_index(parent, known) if physical else None,
        iommu_group=_number(_target(device, "iommu_group")),
        max_vfs=_number(_text(parent, "sriov_totalvfs")),
        class_code=_text(device, "class"),
    )


def _index(physical: str, address: str) -> int | None:
    """Return which virtual function of the physical function `address` is."""
    for name in _names(physical):
        match = _VIRTUAL_FUNCTION.fullmatch(name)
        if match and _target(physical, name) == address:
            return int(match[1])
    return None


def _names(directory: str) -> list[str]:
    return names_if_there(directory, ABSENT)


def _target(directory: str, name: str) -> str:
    """Return the last part of a link's target, "" if there is no such link."""
    try:
        return os.path.basename(os.readlink(os.path.join(directory, name)))
    except OSError as error:
        if error.errno in ABSENT:
            return ""
        raise


def _text(directory: str, name: str) -> str:
    return text_if_there(directory, name, ABSENT) or ""


def _number(text: str) -> int | None:
    """Return a number; None for none, and for -1, which means "not known"."""
    return int(text) if _NUMBER.fullmatch(text) else None
