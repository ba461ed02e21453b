"""The parts of a DPDK command line: arguments, PCI functions, paths and VFIO tokens. Pure.

Sources: "Linux Drivers" of the DPDK guide; `pci_scan_one` (which kernel drivers the PCI bus of EAL
knows, by name) and `rte_uuid_parse` (`--vfio-vf-token`) of its source; README of the SR-IOV network
device plugin, additionalInfo (the plugin's "extra").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from netutil.client.errors import FailedPrecondition
from netutil.client.models.devices import AllocatedDevice, Interface, PCIInfo

PCI_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
SUBFUNCTION = re.compile(r"mlx5_core\.sf\.[0-9]{1,9}")
SHARED_WITH_KERNEL = frozenset({"mlx4_core", "mlx5_core", "mana"})
"""Drivers that stay bound while DPDK uses the device (bifurcated drivers)."""
VFIO = "vfio-pci"
"""EAL compares the whole name: a variant (mlx5_vfio_pci) is no driver that it knows."""
UIO = frozenset({"igb_uio", "uio_pci_generic"})
SHOWN_BY_INTERFACES = "netutil interfaces shows what is reported and what is there"
SHOWN_BY_DEVICES = "netutil devices shows what the kubelet gave, and what the node lacks of it"
SINGLE_FILES = "--single-file-segments"
READ = (
    "network-status, PCIDEVICE_*, QAT* and AFXDP_DEVICES variables, PodResources, resource claims"
    " and /sys/bus/pci/devices"
)
_KERNEL_ONLY = {"0x15b3": ("NVIDIA (Mellanox)", "mlx5_core"), "0x1414": ("Microsoft", "mana")}
"""Vendors whose DPDK drivers work beside the kernel's driver, and never without it."""
_TOKEN = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_REPEATED = "is named before, where its info stands"


def names_a_device(allocated: AllocatedDevice | None) -> bool:
    """Whether the value of a variable is a PCI address or a subfunction, and so a device."""
    return allocated is not None and bool(
        allocated.pci_address or SUBFUNCTION.fullmatch(allocated.name)
    )


def variable_of(allocated: AllocatedDevice) -> str:
    """The variable that names a device, and whether only the container's start has it."""
    return allocated.variable + " of the container's start" * allocated.from_start


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of EAL, as words, and its source."""

    words: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Function:
    """A PCI function of the command line.

    `label` names it in a sentence, `advice` says which command shows it.
    """

    label: str
    pci: PCIInfo
    advice: str = SHOWN_BY_INTERFACES


class Need(StrEnum):
    """What a driver does with a path when it starts."""

    OPEN = "open"
    DIRECTORY = "directory"
    CREATE = "create"


@dataclass(frozen=True, slots=True)
class Path:
    """A path that a virtual device uses; `label` names the device in a sentence."""

    label: str
    path: str
    need: Need


@dataclass(slots=True)
class Devices:
    """The arguments of devices, and warnings about what is allowed but likely unintended.

    `given` are the interfaces that have an argument. If links are not known, as in a pod on the
    node's network, a missing link means nothing. `own` are the PCI devices of the container, None
    if they are not known. `af_xdp` are links by name, with the sources that name each. `seen` are
    the addresses and names that are already handled, `tokens` the VFIO tokens with their devices.
    """

    known_links: bool = True
    own: frozenset[str] | None = None
    arguments: list[Argument] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    given: list[Interface] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    af_xdp: dict[str, list[str]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    tokens: dict[str, str] = field(default_factory=dict)

    def give(self, interface: Interface, words: tuple[str, ...], source: str) -> None:
        """Add an argument, once; two interfaces may have one device."""
        self.given.append(interface)
        self.add(words, source)

    def add(self, words: tuple[str, ...], source: str) -> None:
        """Add an argument, once."""
        if all(one.words != words for one in self.arguments):
            self.arguments.append(Argument(words, source))


def add_function(
    label: str, pci: PCIInfo, source: str, found: Devices, advice: str = SHOWN_BY_INTERFACES
) -> bool:
    """Add `-a` for a function that DPDK can drive; False, with a warning, for a kernel driver.

    `advice` says which command shows the function. Raises `FailedPrecondition` for a function that
    neither DPDK nor the kernel can drive.
    """
    address, driver = pci.address, pci.driver
    if not driver:
        raise unusable_device(label, f"PCI device {address} is bound to no driver", advice)
    if driver == VFIO or driver in UIO:
        if pci.vendor_id in _KERNEL_ONLY:
            vendor, needed = _KERNEL_ONLY[pci.vendor_id]
            raise unusable_device(
                label,
                f"PCI device {address} is of {vendor} and bound to {driver}, but DPDK drives it"
                f" beside the kernel's driver only: it must be bound to {needed}, with its RDMA"
                " device in the container",
                advice,
            )
        if driver == VFIO and pci.iommu_group is None:
            raise unusable_device(
                label,
                f"PCI device {address} is bound to {driver}, but is in no IOMMU group, so the"
                " kernel has no VFIO file for it: the node's IOMMU is off",
                advice,
            )
    elif "vfio" in driver:
        raise unusable_device(
            label,
            f"PCI device {address} is bound to {driver}; of VFIO, EAL takes {VFIO} only",
            advice,
        )
    elif driver not in SHARED_WITH_KERNEL:
        found.warnings.append(
            f"{label} is left out: PCI device {address} is bound to {driver},"
            " which leaves it to the kernel"
        )
        return False
    found.add(("-a", address), source)
    if all(one.pci.address != address for one in found.functions):
        found.functions.append(Function(label, pci, advice))
    return True


def warn_of_missing_link(label: str, pci: PCIInfo, found: Devices) -> None:
    """Warn if the link is missing: the DPDK driver needs it in its own network namespace."""
    if found.known_links:
        found.warnings.append(
            f"{label}: no link of PCI device {pci.address} is in the pod's network namespace, where"
            f" DPDK's driver for {pci.driver} looks for it"
        )


def read_token(address: str, allocated: AllocatedDevice, found: Devices) -> None:
    """Keep the VFIO token of a device: "extra", "VFIO_TOKEN" of its info.

    No message contains a token: the token is the password of the physical function.
    """
    if allocated.info is None:
        if allocated.problem and allocated.problem != _REPEATED:
            found.warnings.append(
                f"device {address} {allocated.problem} in {allocated.variable}_INFO: a VFIO token"
                " there would be missing"
            )
        return
    extra = allocated.info.get("extra")
    token = extra.get("VFIO_TOKEN") if isinstance(extra, Mapping) else None
    if token is None:
        return
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise _token_refused(
            f"the VFIO_TOKEN of device {address} in {allocated.variable}_INFO is no UUID",
            "set VFIO_TOKEN in the device plugin's configuration (additionalInfo) to the UUID that"
            " the program of the physical function was started with",
        )
    found.tokens.setdefault(token.lower(), address)


def add_token(found: Devices) -> None:
    """Add `--vfio-vf-token` if a device has one. Raises `FailedPrecondition` for two tokens."""
    if len(found.tokens) > 1:
        raise _token_refused(
            f"devices {' and '.join(found.tokens.values())} have different VFIO tokens, and EAL"
            " takes one for the whole process",
            "take the devices from one physical function, or one process for each",
        )
    for token, address in found.tokens.items():
        source = f"VFIO_TOKEN of device {address} (PCIDEVICE_*_INFO)"
        found.arguments.append(Argument((f"--vfio-vf-token={token}",), source))


def _token_refused(why: str, advice: str) -> FailedPrecondition:
    return FailedPrecondition(
        why,
        "FAILED_PRECONDITION",
        reason="VFIO_TOKEN_UNUSABLE",
        read="PCIDEVICE_*_INFO, extra.VFIO_TOKEN",
        advice=advice,
    )


def unusable_device(label: str, why: str, advice: str = SHOWN_BY_INTERFACES) -> FailedPrecondition:
    """The error for a device that cannot be written into the line."""
    return FailedPrecondition(
        f"{label}: {why}",
        "FAILED_PRECONDITION",
        reason="DEVICE_UNUSABLE",
        read=READ,
        advice=advice,
    )
