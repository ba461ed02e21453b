"""The devices of a container from two environments, and from variables of other plugins. Pure.

A process's own environment may have lost the variables: a login shell (`su -`) starts again. The
environment that the container was started with has them, as the device plugins gave them to the
runtime.

Beside PCIDEVICE_<RESOURCE> of the SR-IOV network device plugin (`parsers.devices`) this reads what
Intel's QAT device plugin sets for DPDK (cmd/qat_plugin/dpdkdrv/dpdkdrv.go, `PostAllocate`): one
variable for each function, numbered from 0:

    QAT0=0000:3d:01.0
    QAT1=0000:3d:01.1

and what the AF_XDP device plugin sets (poolManager.go, `Allocate`): the names of links, separated
by blanks. Of a container with devices of two pools the kubelet keeps the variable of one
(pkg/kubelet/cm/devicemanager/pod_devices.go, `deviceRunContainerOptions`):

    AFXDP_DEVICES=ens1f0 ens1f1
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from netutil.agent.parsers.addresses import is_link_name, normalise_pci_address
from netutil.agent.parsers.environment import (
    MAX_DEVICES,
    MAX_NAME_LENGTH,
    PREFIX,
    AllocatedDevice,
    DeviceProblem,
    parse_devices,
    too_many_devices,
)

AF_XDP_VARIABLE = "AFXDP_DEVICES"
_QAT = re.compile(r"QAT([0-9]{1,4})")


def device_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that this module and `parsers.devices` read."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(PREFIX) or name == AF_XDP_VARIABLE or _QAT.fullmatch(name)
    }


def parse_qat_devices(environment: Mapping[str, str]) -> tuple[AllocatedDevice, ...]:
    """Return the functions that variables QAT<n> name, by number.

    One that holds anything but a PCI address has a `problem`, as in `parse_devices`; an empty one
    names nothing. Raises `ResourceExhausted` for more than `MAX_DEVICES`.
    """
    found = []
    for variable, value in environment.items():
        match = _QAT.fullmatch(variable)
        name = value.strip()[:MAX_NAME_LENGTH]
        if match and name:
            address = normalise_pci_address(name) or ""
            problem = None if address else DeviceProblem.NOT_AN_ADDRESS
            device = AllocatedDevice(variable, 0, name, address, problem=problem)
            found.append((int(match[1]), device))
    found.sort(key=lambda one: (one[0], one[1].variable))
    if len(found) > MAX_DEVICES:
        raise too_many_devices("QAT*")
    return tuple(device for _, device in found)


def parse_af_xdp_devices(environment: Mapping[str, str]) -> tuple[AllocatedDevice, ...]:
    """Return the links that AFXDP_DEVICES names, by position.

    One that no link can be named has a `problem`, as in `parse_devices`. Raises `ResourceExhausted`
    for more than `MAX_DEVICES`.
    """
    names = environment.get(AF_XDP_VARIABLE, "").split(maxsplit=MAX_DEVICES)
    if len(names) > MAX_DEVICES:
        raise too_many_devices(AF_XDP_VARIABLE)
    return tuple(_af_xdp_device(position, name) for position, name in enumerate(names))


def _af_xdp_device(position: int, name: str) -> AllocatedDevice:
    problem = None if is_link_name(name) else DeviceProblem.NOT_A_LINK_NAME
    return AllocatedDevice(AF_XDP_VARIABLE, position, name[:MAX_NAME_LENGTH], "", problem=problem)


def af_xdp_devices_of_both(
    own: Mapping[str, str], start: Mapping[str, str] | None
) -> tuple[AllocatedDevice, ...]:
    """Return the links that AFXDP_DEVICES of either environment names, those of `own` first.

    `own`, `start`, the mark and the error are as in `devices_of_both`.
    """
    return _union(parse_af_xdp_devices(own), parse_af_xdp_devices(start or {}))


def devices_of_both(
    own: Mapping[str, str], start: Mapping[str, str] | None
) -> tuple[tuple[AllocatedDevice, ...], tuple[AllocatedDevice, ...]]:
    """Return the devices of PCIDEVICE_* variables and those of other plugins.

    `own` is the environment of the process, `start` the one that its container was started with,
    None where that is the same or not known. What only `start` names is marked (`from_start`).
    Each part is in the order of `parse_devices` and `parse_qat_devices`. Raises `ResourceExhausted`
    for more than `MAX_DEVICES` of either.
    """
    network, others = parse_devices(own), parse_qat_devices(own)
    if start is None:
        return network, others
    return (
        tuple(sorted(_union(network, parse_devices(start)), key=_by_variable)),
        _union(others, parse_qat_devices(start)),
    )


def _union(
    own: tuple[AllocatedDevice, ...], start: tuple[AllocatedDevice, ...]
) -> tuple[AllocatedDevice, ...]:
    """Return the devices of `own`, with what `start` alone says of them, then the others."""
    started: dict[tuple[str, str], AllocatedDevice] = {}
    for one in start:
        started.setdefault(_key(one), one)
    known = {_key(one) for one in own}
    both = [_with_info(one, started.get(_key(one))) for one in own]
    both += [replace(one, from_start=True) for one in start if _key(one) not in known]
    if len(both) > MAX_DEVICES:
        raise too_many_devices(both[-1].variable)
    return tuple(both)


def _with_info(own: AllocatedDevice, start: AllocatedDevice | None) -> AllocatedDevice:
    """Return the device with the info that the container was started with, if it has none."""
    if own.info is not None or own.problem is not None or start is None:
        return own
    return replace(own, info=start.info, problem=start.problem)


def _key(device: AllocatedDevice) -> tuple[str, str]:
    return device.variable, device.pci_address or device.name


def _by_variable(device: AllocatedDevice) -> tuple[str, int]:
    return device.variable, device.position
