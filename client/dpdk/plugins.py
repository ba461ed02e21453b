"""Devices for a DPDK line that device plugins allocated without a network. Pure.

Sources: kubelet PodResources v1 (device IDs), AFXDP_DEVICES and resources afxdp/<pool> of the
AF_XDP device plugin (constants.go, poolManager.go), QAT<n> of Intel's QAT device plugin, which the
agent reports with the interfaces.

The AF_XDP devices of a container are known from PodResources, or from AFXDP_DEVICES of both
environments (the process's own and that of the container's start), or from the process's own if
it has the variable. Otherwise there is no line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from netutil.client.dpdk.functions import (
    PCI_ADDRESS,
    READ,
    SHOWN_BY_DEVICES,
    SUBFUNCTION,
    Devices,
    add_function,
    names_a_device,
    unusable_device,
    variable_of,
)
from netutil.client.errors import FailedPrecondition
from netutil.client.models.core import PartError, as_exception
from netutil.client.models.devices import Interfaces, PCIInfo, Resources

_AF_XDP_VARIABLE = "AFXDP_DEVICES"
_AF_XDP_RESOURCES = "afxdp/"
_LINK_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")


def add_devices_of_plugins(
    interfaces: Interfaces,
    resources: Resources | PartError | None,
    environment: Mapping[str, str],
    found: Devices,
) -> None:
    """Add the devices that PodResources and AFXDP_DEVICES name, with warnings for unknown ones.

    `environment` is the process's own. Raises `FailedPrecondition` for a device that no argument
    can describe, and if the devices of the container are not known.
    """
    start = interfaces.start_error
    lost = start is not None and not _names_devices(interfaces, environment)
    given = resources if isinstance(resources, Resources) else None
    if start is not None and lost and given is None:
        raise _unknown_devices(start.message, resources)
    if given is None and _AF_XDP_VARIABLE not in environment:
        _ensure_af_xdp_is_known(interfaces, resources)
    _note_af_xdp(interfaces, given, environment, found)
    if start is not None:
        found.warnings.append(
            "the environment that the container was started with is not known, so a VFIO token in"
            f" it would be missing: {start.message}"
        )
    if given is None:
        found.warnings.append(
            f"a device that no variable and no network names is left out: {_why_none(resources)}"
        )
        if found.af_xdp:
            # The kubelet keeps one value where two pools set the variable (pod_devices.go).
            found.warnings.append(
                f"{_AF_XDP_VARIABLE} names links of one pool of the AF_XDP device plugin: those of"
                " another pool, if the container has any, are left out"
            )
        return
    _add_given(given, found, start.message if start is not None and lost else "")


def _names_devices(interfaces: Interfaces, environment: Mapping[str, str]) -> bool:
    """Whether a variable names a device. A login shell may lack the container's variables."""
    return bool(environment.get(_AF_XDP_VARIABLE, "").split()) or any(
        names_a_device(one.allocated) for one in interfaces.interfaces
    )


def _why_none(resources: PartError | Resources | None) -> str:
    return resources.message if isinstance(resources, PartError) else "the agent does not report it"


def _add_given(resources: Resources, found: Devices, lost: str) -> None:
    """Add the devices of PodResources; `lost` is why variables with devices are not known."""
    facts = {one.address: one for one in resources.pci}
    for device in resources.devices:
        address, label = device.id.lower(), f"device {device.id} of {device.resource_name}"
        if address in found.seen or device.id in found.seen:
            continue
        found.seen.add(address)
        if SUBFUNCTION.fullmatch(device.id):
            found.add(("-a", f"auxiliary:{device.id}"), f"{label}, subfunction (PodResources)")
        elif PCI_ADDRESS.fullmatch(address):
            pci = _plugin_function(label, address, facts, resources)
            add_function(label, pci, f"{label} (PodResources)", found, SHOWN_BY_DEVICES)
        elif lost:
            raise _unknown_devices(lost, None)
        else:
            found.warnings.append(
                f"{label} (PodResources) is left out: its ID is no PCI address, and nothing says"
                " which device it is"
            )


def _plugin_function(
    label: str, address: str, facts: Mapping[str, PCIInfo], resources: Resources
) -> PCIInfo:
    if address in facts:
        return facts[address]
    if resources.pci_error is not None:
        raise as_exception(resources.pci_error)
    if address in resources.absent_pci:
        why = f"the node has no PCI device {address}"
        raise unusable_device(label, why, SHOWN_BY_DEVICES)
    why = "this agent, older than the client, does not report its driver"
    raise unusable_device(label, why, "upgrade the agent")


def _unknown_devices(why: str, resources: Resources | PartError | None) -> FailedPrecondition:
    other = f"; PodResources: {resources.message}" if isinstance(resources, PartError) else ""
    return FailedPrecondition(
        "which devices the container was given is not known: this process's environment names none,"
        f" and the one that the container was started with is not readable ({why}){other}",
        "FAILED_PRECONDITION",
        reason="DEVICES_NOT_KNOWN",
        read=READ,
        advice="run netutil dpdk as the user of the container's first process, or in its start"
        " script",
    )


def _ensure_af_xdp_is_known(
    interfaces: Interfaces, resources: Resources | PartError | None
) -> None:
    """Raise unless AFXDP_DEVICES of the container's start is known.

    Called if the process's own environment lacks the variable and PodResources is not available.
    Other variables in that environment prove nothing: a single variable may be lost.
    """
    if interfaces.start_error is not None:
        start = (
            "the environment that the container was started with is not readable"
            f" ({interfaces.start_error.message})"
        )
        advice = "run netutil dpdk as the user of the container's first process"
    elif interfaces.af_xdp is None:
        start = (
            "this agent, older than the client, does not read it of the environment that the"
            " container was started with"
        )
        advice = "upgrade the agent, run netutil dpdk in the container's start script"
    else:
        return
    raise FailedPrecondition(
        f"which AF_XDP devices the container was given is not known: {_AF_XDP_VARIABLE} is not in"
        f" this process's environment, and {start}; PodResources: {_why_none(resources)}",
        "FAILED_PRECONDITION",
        reason="DEVICES_NOT_KNOWN",
        read=f"{_AF_XDP_VARIABLE} and PodResources",
        advice=f"{advice}, or set {_AF_XDP_VARIABLE}, to nothing where the container has no AF_XDP"
        " device",
    )


def _note_af_xdp(
    interfaces: Interfaces,
    resources: Resources | None,
    environment: Mapping[str, str],
    found: Devices,
) -> None:
    """Collect the links of the AF_XDP device plugin; `checks` makes their arguments.

    The plugin names them in AFXDP_DEVICES, separated by blanks, and as IDs of resources
    afxdp/<pool>.
    """
    links = {one.name for one in interfaces.interfaces if one.link is not None}
    for name, source in _af_xdp_names(interfaces, resources, environment):
        sources = found.af_xdp.setdefault(name, [])
        if source not in sources:
            sources.append(source)
    for name in found.af_xdp:
        label = f"AF_XDP device {name:.64}"
        if not _LINK_NAME.fullmatch(name):
            raise unusable_device(f"AF_XDP device {name!r:.64}", "it is no name of a link")
        if found.known_links and name not in links:
            raise unusable_device(label, "the pod has no link of that name")
        found.seen.add(name)


def _af_xdp_names(
    interfaces: Interfaces, resources: Resources | None, environment: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield each name with its source, once for each source."""
    for name in environment.get(_AF_XDP_VARIABLE, "").split():
        yield name, _AF_XDP_VARIABLE
    for one in interfaces.af_xdp.devices if interfaces.af_xdp else ():
        yield one.name, variable_of(one)
    for device in resources.devices if resources else ():
        if device.resource_name.startswith(_AF_XDP_RESOURCES):
            yield device.id, f"PodResources, {device.resource_name}"
