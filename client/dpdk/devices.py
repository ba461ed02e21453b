"""The devices of a container for a DPDK program, as arguments.

Sources: "EAL parameters" of the DPDK guide (`-a`, `--vdev`, `--no-pci`, `--vfio-vf-token`), its
pages on virtio_user (vhost-user, vhost-vdpa), memif, mlx5 (auxiliary devices), af_xdp, and on the
kernel drivers that a device must be bound to ("Linux Drivers"; `pci_scan_one` of the PCI bus).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping

from netutil.client.cpulist import format_cpulist
from netutil.client.dpdk.claims import (
    ClaimedDevices,
    add_devices_of_claims,
    claimed_devices,
    device_warnings,
    has_known_addresses,
    unknown_claims,
)
from netutil.client.dpdk.functions import (
    PCI_ADDRESS,
    READ,
    SHARED_WITH_KERNEL,
    SINGLE_FILES,
    SUBFUNCTION,
    VFIO,
    Argument,
    Devices,
    Need,
    Path,
    add_function,
    add_token,
    names_a_device,
    read_token,
    unusable_device,
    variable_of,
    warn_of_missing_link,
)
from netutil.client.dpdk.plugins import add_devices_of_plugins
from netutil.client.errors import FailedPrecondition, NotFound
from netutil.client.models.core import PartError
from netutil.client.models.devices import (
    DeviceType,
    DeviceTypeSource,
    Interface,
    Interfaces,
    PCIInfo,
    Resources,
)
from netutil.client.text import claim_title

_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_QAT = re.compile(r"QAT[0-9]{1,4}")
_MAX_PATH = 107
"""Bytes of a Unix socket's path without its final NUL: unix(7)."""
_MEMIF_ROLES = {"master": "server", "slave": "client", "server": "server", "client": "client"}


def device_arguments(
    interfaces: Interfaces,
    resources: Resources | PartError | None,
    cpu_nodes: Collection[int],
    environment: Mapping[str, str],
) -> Devices:
    """The arguments `-a`, `--vdev`, `--no-pci` if no PCI device is for DPDK, and what they need.

    `resources` is an error if the kubelet does not answer. Raises `FailedPrecondition` for a
    device that cannot be used as it is reported, `NotFound` if there is none at all, and the
    error of a part without which the line would not be whole.
    """
    known_links = not interfaces.host_network and interfaces.link_error is None
    given = resources if isinstance(resources, Resources) else None
    found = Devices(known_links, _own_devices(interfaces, given))
    if interfaces.link_error is not None:
        why = interfaces.link_error.message
        found.warnings.append(f"a device that only a link of the pod names is left out: {why}")
    for interface in interfaces.interfaces:
        _WRITERS.get(interface.device_type, _physical)(interface, found)
        if address := _claimed_address(interface):
            found.seen.add(address)
    claims = claimed_devices(interfaces, given)
    unknown = add_devices_of_claims(claims, environment, found)
    add_devices_of_plugins(interfaces, resources, environment, found)
    if not (found.arguments or found.af_xdp):
        if unknown:
            raise unknown_claims(claims, unknown)
        raise NotFound(
            "the container has no device that DPDK can use"
            + "".join(f"; {warning}" for warning in found.warnings),
            "NOT_FOUND",
            reason="NO_DPDK_DEVICE",
            read=READ,
            advice="ask for a device in the container's resources; netutil interfaces and"
            " netutil devices show them",
        )
    if not any(PCI_ADDRESS.fullmatch(one.words[-1]) for one in found.arguments):
        source = "no PCI device is for DPDK: without this it would probe all of the node's"
        found.arguments.append(Argument(("--no-pci",), source))
    if any(one.device_type is DeviceType.VHOST_USER for one in found.given):
        source = "vhost-user hands over at most 8 files of huge pages, not one for each page"
        found.arguments.append(Argument((SINGLE_FILES,), source))
    add_token(found)
    found.warnings += _far_devices(found, _near_nodes(given, claims), cpu_nodes)
    found.warnings += device_warnings(found, given, claims)
    return found


def _own_devices(interfaces: Interfaces, resources: Resources | None) -> frozenset[str] | None:
    """PCI devices of the container, from its variables, PodResources and resource claims.

    A network belongs to the whole pod, and its device may be another container's. None if the
    kubelet does not answer, or gave devices with names of their own, or if a claim has devices of
    which no address is known.
    """
    if resources is None or not has_known_addresses(resources):
        return None
    own = {
        one.allocated.pci_address
        for one in interfaces.interfaces
        if one.allocated and names_a_device(one.allocated)
    }
    own |= {one.id.lower() for one in resources.devices if PCI_ADDRESS.fullmatch(one.id.lower())}
    own |= {device.pci_bus_id for one in resources.claims or () for device in one.devices or ()}
    return frozenset(own) if own or not resources.devices else None


def _is_of_another(interface: Interface, address: str, found: Devices) -> bool:
    """Whether a reported device is another container's; adds a warning if so."""
    info = interface.network.device_info if interface.network else None
    if info is None or interface.claim is not None:
        return False
    if found.own is None or address in found.own:
        return False
    found.warnings.append(
        f"{_named(interface)} is left out: neither PCIDEVICE_*, PodResources nor a claim names"
        f" device {address} for this container; it may be another container's of the pod"
    )
    return True


def _physical(interface: Interface, found: Devices) -> None:
    """Add a device on a bus, or nothing for an interface of a kernel driver."""
    address, allocated = _address(interface), interface.allocated
    if not address and allocated is not None:
        if _QAT.fullmatch(allocated.variable):
            # Unlike PCIDEVICE_*, the variable may be from something else than a plugin.
            found.warnings.append(
                f"{_named(interface)} is left out: {allocated.name!r} is no PCI address"
            )
            return
        if not SUBFUNCTION.fullmatch(allocated.name):
            raise _unusable(
                interface, f"{allocated.name!r} is neither a PCI address nor a subfunction"
            )
        found.seen.add(allocated.name)
        words = ("-a", f"auxiliary:{allocated.name}")
        found.give(interface, words, _source(interface, "subfunction"))
    elif address:
        _pci(interface, address, found)
    elif found.known_links:
        _ensure_of_the_kernel(interface)


def _ensure_of_the_kernel(interface: Interface) -> None:
    """Raise for a secondary interface without link and device: the line would not be whole."""
    network = interface.network
    if network is None or network.default or interface.link is not None:
        return
    info = network.device_info
    if info is None:
        raise _unusable(interface, "it is reported, but there is neither a link nor a device")
    raise _unusable(interface, f"there is no argument for a device of type {info.type!r:.40}")


def _pci(interface: Interface, address: str, found: Devices) -> None:
    if not PCI_ADDRESS.fullmatch(address):
        raise _unusable(interface, f"{address!r} is no PCI address")
    found.seen.add(address)
    if interface.pci is None:
        raise _unusable(interface, f"the node has no PCI device {address}")
    if _is_of_another(interface, address, found):
        return
    _ensure_one_address(interface, address)
    source = _source(interface, f"bound to {interface.pci.driver}")
    if add_function(_named(interface), interface.pci, source, found):
        found.given.append(interface)
        if interface.allocated is not None and interface.pci.driver == VFIO:
            read_token(address, interface.allocated, found)
        if interface.link is None and interface.pci.driver in SHARED_WITH_KERNEL:
            warn_of_missing_link(_named(interface), interface.pci, found)


def _ensure_one_address(interface: Interface, address: str) -> None:
    """Raise for a link whose device is not the device that is reported or claimed."""
    claimed = _claimed_address(interface)
    if claimed not in ("", address):
        what = f"its claim has PCI device {claimed!r:.40}, but its device is {address}"
        raise _unusable(interface, what)
    for drift in interface.drift:
        if drift.field in ("pci-address", "claim-pci-address"):
            what = f"PCI device {drift.reported} is reported, but its link is one of {drift.found}"
            raise _unusable(interface, what)


def _vhost_user(interface: Interface, found: Devices) -> None:
    info = interface.network.device_info if interface.network else None
    device = info.vhost_user if info else None
    if device is None or device.mode not in ("client", "server"):
        raise _unusable(interface, "its device-info names no vhost-user mode, client or server")
    server = ",server=1" if device.mode == "server" else ""
    need = Need.CREATE if server else Need.OPEN
    _virtio_user(interface, device.path, server, f"mode {device.mode}", found)
    found.paths.append(Path(_named(interface), device.path, need))


def _vdpa(interface: Interface, found: Devices) -> None:
    info = interface.network.device_info if interface.network else None
    device = info.vdpa if info else None
    if device is None or device.driver not in ("vhost", "virtio"):
        raise _unusable(interface, "its device-info names no vDPA driver, vhost or virtio")
    found.seen.add(device.pci_address.lower())
    if device.driver == "virtio":
        found.warnings.append(
            f"{_named(interface)} is left out: its vDPA device is bound to virtio,"
            " which leaves it to the kernel"
        )
        return
    # For functions only: a device on a subfunction is reported with its parent's address.
    is_function = interface.pci is not None and interface.pci.pf_address
    if is_function and _is_of_another(interface, device.pci_address, found):
        return
    _virtio_user(interface, device.path, "", "driver vhost", found)
    found.paths.append(Path(_named(interface), device.path, Need.OPEN))


def _virtio_user(interface: Interface, path: str, more: str, what: str, found: Devices) -> None:
    _ensure_path(interface, path)
    number = sum("net_virtio_user" in one.words[-1] for one in found.arguments)
    word = f"--vdev=net_virtio_user{number},path={path}{more}{_mac(interface)}"
    found.give(interface, (word,), _source(interface, what))


def _memif(interface: Interface, found: Devices) -> None:
    info = interface.network.device_info if interface.network else None
    device = info.memif if info else None
    role = _MEMIF_ROLES.get(device.role) if device else None
    if device is None or role is None:
        raise _unusable(interface, "its device-info names no memif role, master or slave")
    if device.mode not in ("", "ethernet"):
        raise _unusable(interface, f"its memif mode is {device.mode!r}, DPDK has ethernet only")
    _ensure_path(interface, device.path)
    if any(f",socket={device.path}," in one.words[-1] for one in found.arguments):
        raise _unusable(interface, f"two memif interfaces have the socket {device.path}")
    number = sum("net_memif" in one.words[-1] for one in found.arguments)
    # Without this the path would name an abstract socket, which a directory that is
    # shared with the peer does not contain.
    socket = f"socket={device.path},socket-abstract=no"
    word = f"--vdev=net_memif{number},role={role},{socket}{_mac(interface)}"
    found.give(interface, (word,), _source(interface, f"role {device.role}"))
    need = Need.CREATE if role == "server" else Need.DIRECTORY
    found.paths.append(Path(_named(interface), device.path, need))


_WRITERS: dict[DeviceType, Callable[[Interface, Devices], None]] = {
    DeviceType.VHOST_USER: _vhost_user,
    DeviceType.VDPA: _vdpa,
    DeviceType.MEMIF: _memif,
}


def _address(interface: Interface) -> str:
    info = interface.network.device_info if interface.network else None
    reported = info.pci.pci_address if info and info.pci else ""
    allocated = interface.allocated.pci_address if interface.allocated else ""
    present = interface.pci.address if interface.pci else ""
    return present or allocated or reported or _claimed_address(interface)


def _claimed_address(interface: Interface) -> str:
    device = interface.claim.device if interface.claim else None
    return device.pci_bus_id if device else ""


def _mac(interface: Interface) -> str:
    mac = interface.network.mac if interface.network else ""
    return f",mac={mac}" if _MAC.fullmatch(mac) else ""


def _ensure_path(interface: Interface, path: str) -> None:
    """A space would end the argument, a comma would end the value within the argument."""
    printable = path.isprintable() and not any(char.isspace() or char == "," for char in path)
    if not (printable and path.startswith("/") and 1 < len(os.fsencode(path)) <= _MAX_PATH):
        raise _unusable(interface, f"{path!r} cannot be a path in a device argument")


def _near_nodes(resources: Resources | None, claims: ClaimedDevices) -> dict[str, set[int]]:
    """By address or ID: the NUMA nodes that the kubelet or a driver names."""
    nodes = {device.pci_bus_id: set(device.numa_nodes) for _, device in claims.devices}
    if resources is not None:
        nodes.update({one.id: set(one.numa_nodes) for one in resources.devices})
    return nodes


def _far_devices(
    found: Devices, near: Mapping[str, set[int]], cpu_nodes: Collection[int]
) -> list[str]:
    """A sentence for each device of the command line that is far from all CPUs."""
    places: list[tuple[str, str, PCIInfo | None]] = [
        (one.label, one.pci.address, one.pci) for one in found.functions
    ]
    for interface in found.given:
        address = _address(interface) or (interface.allocated.name if interface.allocated else "")
        places.append((_named(interface), address, interface.pci))
    warnings = []
    for label, address, pci in places:
        nodes = near.get(address, set())
        if pci is not None and pci.numa_node is not None:
            nodes = {pci.numa_node}
        if nodes and cpu_nodes and nodes.isdisjoint(cpu_nodes):
            warnings.append(
                f"{label}: device {address} is on NUMA node {format_cpulist(nodes)},"
                f" the CPUs are on {format_cpulist(cpu_nodes)}"
            )
    return list(dict.fromkeys(warnings))


def _named(interface: Interface) -> str:
    if interface.name:
        return f"interface {interface.name}"
    if interface.allocated is not None:
        return f"device of {interface.allocated.variable}"
    return f"device of {claim_title(interface.claim)}" if interface.claim else "a device"


def _source(interface: Interface, what: str) -> str:
    network = interface.network.name if interface.network else ""
    other = interface.network.device_info_annotation if interface.network else ""
    facts = [network and f"{other or 'network-status'} of {network}"]
    facts.append(variable_of(interface.allocated) if interface.allocated else "")
    facts.append(claim_title(interface.claim) if interface.claim else "")
    facts.append(interface.device_reason)
    device_type = str(interface.device_type)
    if interface.device_type_source is DeviceTypeSource.DEVICE_ID:
        device_type += " (inferred from its ids or its driver)"
    return f"{_named(interface)}, {device_type}, {what} ({', '.join(filter(None, facts))})"


def _unusable(interface: Interface, why: str) -> FailedPrecondition:
    return unusable_device(_named(interface), why)
