"""Checks of what EAL and its drivers read at their start, against what this process sees.

The table of docs/dpdk.md has each check with its source. A check raises an error
for what EAL or a driver refuses to any program. A check yields a warning for what depends on how
the program is started (capabilities of its file, limits that a script raises).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from netutil.client.dpdk.functions import (
    SHARED_WITH_KERNEL,
    SHOWN_BY_INTERFACES,
    SINGLE_FILES,
    UIO,
    VFIO,
    Argument,
    Devices,
    Function,
    Need,
    Path,
    unusable_device,
)
from netutil.client.dpdk.view import Access, OwnView
from netutil.client.errors import FailedPrecondition
from netutil.client.models.devices import PCIInfo

_CAP_NET_ADMIN, _CAP_NET_RAW, _CAP_IPC_LOCK = 12, 13, 14
_CAP_SYS_RAWIO, _CAP_SYS_ADMIN, _CAP_BPF = 17, 21, 39
_MAX_VFIO_GROUPS = 64
"""RTE_MAX_VFIO_GROUPS."""
_OTHER_FILES = 256
"""Descriptors that a program needs beside one for each huge page: an estimate."""
_BESIDE_VFIO = frozenset({"", "pcieport", "pci-stub", "shpchp"})
"""Drivers that may hold devices of a group that VFIO opens (driver_managed_dma of the kernel)."""
_AF_XDP_DIRECTORY = "/tmp/afxdp_dp"  # noqa: S108 - where the device plugin mounts it
_AF_XDP_OLD_SOCKET = "/tmp/afxdp.sock"  # noqa: S108 - where it did before DPDK 23.11
_MAX_AF_XDP_MTU = 3520


def check_devices(found: Devices, view: OwnView) -> Iterator[str]:
    """Yield warnings about devices. Raises `FailedPrecondition` for a device that cannot work."""
    groups = set()
    for function in found.functions:
        if function.pci.driver == VFIO:
            groups.add(function.pci.iommu_group)
            yield from _check_vfio(function, view)
        elif function.pci.driver in UIO:
            yield from _check_uio(function, view)
        elif function.pci.driver in SHARED_WITH_KERNEL:
            yield from _check_rdma(function, view)
    if len(groups) > _MAX_VFIO_GROUPS:
        yield f"there are {len(groups)} IOMMU groups; DPDK takes {_MAX_VFIO_GROUPS} as it is built"
    for path in found.paths:
        _check_path(path, view)
    if found.af_xdp and not view.has_capability(_CAP_NET_RAW):
        yield "this process lacks CAP_NET_RAW, which AF_XDP sockets need"


def _check_vfio(function: Function, view: OwnView) -> Iterator[str]:
    group, address = function.pci.iommu_group, function.pci.address
    own, unsafe = f"/dev/vfio/{group}", f"/dev/vfio/noiommu-{group}"
    by_device = view.names("/dev/vfio/devices") or ()
    used = next((one for one in (own, unsafe) if view.access(one) is not Access.MISSING), "")
    if not used and by_device and view.access("/dev/iommu") is Access.USABLE:
        yield (
            f"{function.label}: the container has no {own}, only files of devices below"
            " /dev/vfio/devices, which DPDK opens only in versions that know VFIO's cdev mode"
        )
        return
    for needed in (used or own, "/dev/vfio/vfio"):
        _ensure(function, needed, view, f"which VFIO needs for PCI device {address}")
    if used == unsafe:
        yield from _lacks(view, function, _CAP_SYS_RAWIO, "CAP_SYS_RAWIO", "VFIO without an IOMMU")
        yield from _lacks_physical_addresses(view, function, "VFIO without an IOMMU")
    _ensure_viable(function, group, view)


def _ensure_viable(function: Function, group: int | None, view: OwnView) -> None:
    """Raise if a kernel driver has another device of the IOMMU group: VFIO refuses the group."""
    for address in view.names(f"/sys/kernel/iommu_groups/{group}/devices") or ():
        driver = view.target(f"/sys/bus/pci/devices/{address}/driver")
        if driver not in _BESIDE_VFIO and "vfio" not in driver:
            raise unusable_device(
                function.label,
                f"PCI device {address} of the same IOMMU group {group} is bound to {driver}, and"
                " the kernel opens a group for VFIO only as a whole",
                function.advice,
            )


def _check_uio(function: Function, view: OwnView) -> Iterator[str]:
    for name in view.names(f"/sys/bus/pci/devices/{function.pci.address}/uio") or ():
        _ensure(function, f"/dev/{name}", view, "which its driver needs")
    yield from _lacks_physical_addresses(view, function, function.pci.driver)


def _lacks_physical_addresses(view: OwnView, function: Function, what: str) -> Iterator[str]:
    why = f"physical addresses, which {what} needs"
    yield from _lacks(view, function, _CAP_SYS_ADMIN, "CAP_SYS_ADMIN", why)


def _lacks(view: OwnView, function: Function, number: int, name: str, what: str) -> Iterator[str]:
    if not view.has_capability(number):
        yield f"{function.label}: this process lacks {name} for {what}"


def _check_rdma(function: Function, view: OwnView) -> Iterator[str]:
    """The user half of the driver opens /dev/infiniband/uverbs<n> of the device (ibverbs)."""
    device = f"/sys/bus/pci/devices/{function.pci.address}"
    if view.names(device) is None:
        yield f"{function.label}: this container does not show whether it has its RDMA device"
        return
    names = view.names(f"{device}/infiniband_verbs") or ()
    if not names:
        raise unusable_device(
            function.label,
            f"PCI device {function.pci.address} has no RDMA device, through which DPDK drives it:"
            f" {_rdma_module(function.pci)} is not loaded on the node",
            function.advice,
        )
    for name in names:
        path = f"/dev/infiniband/{name}"
        _ensure(function, path, view, "the RDMA device through which DPDK drives it")
    yield from _lacks(view, function, _CAP_NET_RAW, "CAP_NET_RAW", f"DPDK on {function.pci.driver}")


def _rdma_module(pci: PCIInfo) -> str:
    return f"{pci.driver.removesuffix('_core')}_ib"


def _check_path(path: Path, view: OwnView) -> None:
    directory = path.path.rpartition("/")[0] or "/"
    if path.need is Need.OPEN:
        _ensure(path, path.path, view, "which DPDK opens when it starts")
        return
    if view.names(directory) is None:
        raise unusable_device(
            path.label, f"the container has no directory {directory} for its socket"
        )
    if path.need is Need.CREATE and not view.may_create(f"{directory}/."):
        raise unusable_device(
            path.label, f"this process may make no socket in directory {directory}"
        )


def _ensure(device: Function | Path, path: str, view: OwnView, what: str) -> None:
    advice = device.advice if isinstance(device, Function) else SHOWN_BY_INTERFACES
    match view.access(path):
        case Access.MISSING:
            why = f"the container has no {path}, {what}"
            raise unusable_device(device.label, why, advice)
        case Access.REFUSED:
            why = f"this process may not read and write {path}, {what}"
            raise unusable_device(device.label, why, advice)


def af_xdp_arguments(
    found: Devices, mtus: Mapping[str, int], view: OwnView | None
) -> Iterator[Argument]:
    """Yield `--vdev=net_af_xdp<n>` for each link of the AF_XDP device plugin, and note warnings.

    The plugin loads the BPF program. DPDK gets the map over the plugin's socket (`use_cni`) or as
    a pinned file (`use_pinned_map`). Without either, DPDK loads a program itself.
    """
    for number, (name, sources) in enumerate(found.af_xdp.items()):
        option, what = _af_xdp_endpoint(name, view)
        if view is None:
            found.warnings.append(
                f"AF_XDP device {name}: the device plugin's socket and map were not looked for,"
                " as the process may be in another container:"
                f" {_AF_XDP_DIRECTORY}/{name}/afxdp.sock is not verified"
            )
        if view is not None and not option:
            found.warnings.append(
                f"AF_XDP device {name}: the device plugin's socket and map are not there"
                f" ({_AF_XDP_DIRECTORY}/{name}), so DPDK loads a program itself, with CAP_BPF and"
                f" CAP_NET_ADMIN{_missing(view, _CAP_BPF, _CAP_NET_ADMIN)}"
            )
        queues = (view and view.names(f"/sys/class/net/{name}/queues")) or ()
        receiving = sum(queue.startswith("rx-") for queue in queues)
        if receiving > 1:
            found.warnings.append(
                f"AF_XDP device {name} has {receiving} receive queues and DPDK takes queue 0 only:"
                " set it to one (ethtool -L), or add start_queue= and queue_count="
            )
        if mtus.get(name, 0) > _MAX_AF_XDP_MTU:
            found.warnings.append(
                f"AF_XDP device {name} has an MTU of {mtus[name]}, and DPDK takes"
                f" at most {_MAX_AF_XDP_MTU}"
            )
        yield Argument(
            (f"--vdev=net_af_xdp{number},iface={name}{option}",),
            f"AF_XDP device {name}{what} ({'; '.join(sources)})",
        )


def _af_xdp_endpoint(name: str, view: OwnView | None) -> tuple[str, str]:
    socket, pinned = (
        f"{_AF_XDP_DIRECTORY}/{name}/afxdp.sock",
        f"{_AF_XDP_DIRECTORY}/{name}/xsks_map",
    )
    if view is None:
        return f",use_cni=1,dp_path={socket}", ", usual socket of the device plugin, not verified"
    if view.access(socket) is not Access.MISSING:
        return f",use_cni=1,dp_path={socket}", ", socket of the device plugin"
    if view.access(pinned) is not Access.MISSING:
        return f",use_pinned_map=1,dp_path={pinned}", ", map of the device plugin"
    if view.access(_AF_XDP_OLD_SOCKET) is not Access.MISSING:
        return f",use_cni=1,dp_path={_AF_XDP_OLD_SOCKET}", ", socket of an older device plugin"
    return "", ""


def _missing(view: OwnView, *numbers: int) -> str:
    missing = not all(view.has_capability(number) for number in numbers)
    return (
        ", which this process lacks" if missing and not view.has_capability(_CAP_SYS_ADMIN) else ""
    )


def memory_arguments(
    shares: Mapping[int, int], prefix: str, found: Devices, view: OwnView
) -> Iterator[Argument]:
    """Yield the arguments for huge pages: `--in-memory`, `--single-file-segments`.

    `shares` are bytes by page size. Raises `FailedPrecondition` if EAL cannot use huge pages at
    all, and adds warnings to `found`.
    """
    if view.names("/sys/kernel/mm/hugepages") is None:
        raise _no_pages("the container does not show /sys/kernel/mm/hugepages, which EAL reads")
    why = [reason for size in sorted(shares) if (reason := _not_mounted(size, shares[size], view))]
    runtime = f"{view.runtime_directory}/dpdk/{prefix}"
    if not view.may_create(runtime):
        why.append(f"EAL may make no files in {runtime}")
    if why:
        found.warnings.append(
            f"{'; '.join(why)}: --in-memory does without, and takes no secondary process"
        )
        yield Argument(("--in-memory",), "; ".join(why))
    pages = sum(size_bytes // size for size, size_bytes in shares.items())
    single = any(one.words == (SINGLE_FILES,) for one in found.arguments)
    if not single and view.open_files is not None and pages + _OTHER_FILES > view.open_files:
        source = f"{pages} huge pages would each take one of {view.open_files} open files"
        yield Argument((SINGLE_FILES,), source)
    _note_limits(shares, found, view)


def _not_mounted(size: int, size_bytes: int, view: OwnView) -> str:
    """Return why EAL cannot use files of a page size, "" if it can."""
    kibibytes = f"huge pages of {size // 1024} KiB"
    mount = view.mount_of(size)
    if mount is None:
        return f"no hugetlbfs for {kibibytes} is mounted in the container"
    # EAL opens and locks an existing mount, even if it then creates no file in it.
    if not view.may_read(mount.path):
        raise _no_pages(f"this process may not read {mount.path}, the hugetlbfs for {kibibytes}")
    if view.access(mount.path) is not Access.USABLE:
        return f"this process may not write {mount.path}, the hugetlbfs for {kibibytes}"
    if mount.limit_bytes is not None and mount.limit_bytes < size_bytes:
        return f"{mount.path} holds at most {mount.limit_bytes >> 20} MiB of {kibibytes}"
    return ""


def _note_limits(shares: Mapping[int, int], found: Devices, view: OwnView) -> None:
    wanted = sum(shares.values())
    locked = view.locked_memory_bytes
    mapped = any(one.pci.driver == VFIO for one in found.functions) or found.af_xdp
    if mapped and locked is not None and locked < wanted and not view.has_capability(_CAP_IPC_LOCK):
        found.warnings.append(
            f"this process may lock {locked >> 20} MiB (ulimit -l) and lacks CAP_IPC_LOCK, but"
            f" DPDK maps {wanted >> 20} MiB for its devices"
        )
    if view.may_place_memory is False:
        found.warnings.append(
            "this process may not ask for the NUMA node of its memory (get_mempolicy: seccomp), so"
            " EAL cannot place huge pages: allow it in the seccomp profile, or add CAP_SYS_NICE"
        )


def _no_pages(why: str) -> FailedPrecondition:
    return FailedPrecondition(
        why,
        "FAILED_PRECONDITION",
        reason="HUGEPAGES_UNUSABLE",
        read="/proc/self/mounts and /sys/kernel/mm/hugepages",
        advice="mount an emptyDir of medium HugePages that the program's user may write"
        " (securityContext.fsGroup)",
    )
