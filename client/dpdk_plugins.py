"""The devices of a DPDK line that device plugins gave, and no network names. Pure.

Sources: kubelet PodResources v1 (device IDs), AFXDP_DEVICES and resources afxdp/<pool> of the
AF_XDP device plugin (constants.go, poolManager.go), QAT<n> of Intel's QAT device plugin, which the
agent tells among the interfaces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from netutil.client.devices import Interfaces, PCIInfo, Resources
from netutil.client.dpdk_functions import (
    PCI_ADDRESS,
    READ,
    SHOWN_BY_DEVICES,
    SUBFUNCTION,
    Devices,
    add_function,
    names_a_device,
    unusable_device,
)
from netutil.client.errors import Inconsistent
from netutil.client.part_errors import error_of
from netutil.client.results import PartError

_AF_XDP_VARIABLE = "AFXDP_DEVICES"
_AF_XDP_RESOURCES = "afxdp/"
_MAX_NAMES = 4
_LINK_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")


def add_devices_of_plugins(
    interfaces: Interfaces, resources: Resources | PartError | None, found: Devices
) -> None:
    """Add the devices that PodResources alone name; say or raise what is not known of them."""
    start = interfaces.start_error
    named = any(names_a_device(one.allocated) for one in interfaces.interfaces)
    named = named or bool(found.af_xdp)
    if start is not None and not named and not isinstance(resources, Resources):
        raise _unknown_devices(start.sentence, resources)
    if start is not None:
        found.warnings.append(
            "the environment that the container was started with is not known, so a VFIO token in"
            f" it would be missing: {start.sentence}"
        )
    if not isinstance(resources, Resources):
        why = resources.sentence if resources else "the agent does not tell it"
        found.warnings.append(
            "a device that no variable and no network names is left out, and so is an AF_XDP device"
            f" that {_AF_XDP_VARIABLE} of this process does not name: {why}"
        )
        return
    for claim in resources.dynamic_resources:
        found.warnings.append(
            f"of resource claim {claim.claim_namespace}/{claim.claim_name} only devices are given"
            " that a variable or a network names"
        )
    facts = {one.address: one for one in resources.pci}
    for device in resources.devices:
        address, label = device.ID.lower(), f"device {device.ID} of {device.resourceName}"
        if address in found.seen or device.ID in found.seen:
            continue
        found.seen.add(address)
        if SUBFUNCTION.fullmatch(device.ID):
            found.add(("-a", f"auxiliary:{device.ID}"), f"{label}, subfunction (PodResources)")
        elif PCI_ADDRESS.fullmatch(address):
            pci = _plugin_function(label, address, facts, resources)
            add_function(label, pci, f"{label} (PodResources)", found, SHOWN_BY_DEVICES)
        elif start is not None and not named:
            raise _unknown_devices(start.sentence, None)
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
        raise error_of(resources.pci_error)
    if address in resources.absent_pci:
        why = f"the node has no PCI device {address}"
        raise unusable_device(label, why, SHOWN_BY_DEVICES)
    why = "this agent, older than the client, does not tell its driver"
    raise unusable_device(label, why, "upgrade the agent")


def _unknown_devices(why: str, resources: PartError | None) -> Inconsistent:
    other = f"; PodResources: {resources.sentence}" if resources else ""
    return Inconsistent(
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
    """Raise where PodResources and AFXDP_DEVICES are missing, and other variables are lost.

    The agent tells no AFXDP_DEVICES of the environment that the container was started with. That
    the process's own has lost variables is certain where only that one names a device; without
    that sign `add_devices_of_plugins` warns.
    """
    why = resources.sentence if isinstance(resources, PartError) else "the agent does not tell them"
    lost = sorted(
        {
            one.allocated.variable
            for one in interfaces.interfaces
            if one.allocated is not None and one.allocated.from_start
        }
    )
    if not lost:
        return
    raise Inconsistent(
        f"which AF_XDP devices the container was given is not known: this process's environment has"
        f" lost variables of the container ({', '.join(lost[:_MAX_NAMES])}), so it may have lost"
        f" {_AF_XDP_VARIABLE}; PodResources: {why}",
        "FAILED_PRECONDITION",
        reason="DEVICES_NOT_KNOWN",
        read=f"{_AF_XDP_VARIABLE} and PodResources",
        advice=f"run netutil dpdk in the container's start script, or set {_AF_XDP_VARIABLE}, to"
        " nothing where the container has no AF_XDP device",
    )


def note_af_xdp(
    interfaces: Interfaces,
    resources: Resources | PartError | None,
    environment: Mapping[str, str],
    found: Devices,
) -> None:
    """Note the links that the AF_XDP device plugin gave; `dpdk_checks` writes their arguments.

    It names them in AFXDP_DEVICES, separated by blanks, and as the IDs of resources afxdp/<pool>.
    Raises `Inconsistent` where neither can be had of a container that may have some.
    """
    names = environment.get(_AF_XDP_VARIABLE, "").split()
    given = resources if isinstance(resources, Resources) else None
    if given is None and _AF_XDP_VARIABLE not in environment:
        _ensure_af_xdp_is_known(interfaces, resources)
    for device in given.devices if given else ():
        if device.resourceName.startswith(_AF_XDP_RESOURCES):
            names.append(device.ID)
    links = {one.name for one in interfaces.interfaces if one.link is not None}
    for name in dict.fromkeys(names):
        label = f"AF_XDP device {name:.64}"
        if not _LINK_NAME.fullmatch(name):
            raise unusable_device(f"AF_XDP device {name!r:.64}", "it is no name of a link")
        if found.known_links and name not in links:
            raise unusable_device(label, "the pod has no link of that name")
        found.seen.add(name)
        found.af_xdp.append(name)
