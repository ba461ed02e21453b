"""The devices that a container's environment names.

Source: the SR-IOV network device plugin. It sets PCIDEVICE_<RESOURCE> to the
allocated devices, separated by commas, and since version 3.6 PCIDEVICE_<RESOURCE>_INFO
to a JSON object with one object for each of them:

    PCIDEVICE_INTEL_COM_SRIOV=0000:3b:02.0,0000:3b:02.1
    PCIDEVICE_INTEL_COM_SRIOV_INFO={"0000:3b:02.0":{"generic":{"deviceID":"0000:3b:02.0"}},…}

A workload may set these variables to anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from netutil.agent.errors import Exhausted, Reason
from netutil.agent.parsers.pci_address import normalise_pci_address

MOST_DEVICES = 256
MOST_PLACES = 4 * MOST_DEVICES
"""Places of one list, those that hold nothing included."""
LONGEST_INFO = 256 * 1024
"""Characters of all …_INFO variables together, in the order of their names."""
LONGEST_NAME = 128
LONGEST_VARIABLE = 512
"""Characters of a variable's name, which stands beside each of its devices. A resource's has at
most 317: a DNS subdomain, a slash and 63 characters (Kubernetes, "Extended resources")."""
DEEPEST_INFO = 16
"""Each level is three of a protobuf message, which has 100 at the most."""
PREFIX = "PCIDEVICE_"
_SUFFIX = "_INFO"


class DeviceProblem(StrEnum):
    """Why the info of a device cannot be told, or why a device is no PCI device or no link."""

    NOT_AN_ADDRESS = "is no PCI address"
    NOT_A_LINK_NAME = "is no name of a link"
    INFO_TOO_LONG = "has an info that is too long"
    INFO_NOT_JSON = "has an info that is not JSON"
    INFO_NOT_AN_OBJECT = "has an info that is no JSON object"
    INFO_NOT_PORTABLE = "has an info that nests too deep or holds what protobuf cannot"
    INFO_TOLD_BEFORE = "is named before, where its info stands"


@dataclass(frozen=True, slots=True)
class AllocatedDevice:
    """One device of a variable.

    `name` is what the variable holds, cut at `LONGEST_NAME` characters;
    `pci_address` is the same as sysfs spells it, or "" if it is none: subfunctions are
    named "mlx5_core.sf.4", and AF_XDP devices as their links are. `info` is None if nothing or
    nothing usable is said of it, and where the list has named the device before: a list of one
    address would else make of a variable an answer of as many times its size. `from_start`: the
    process's own environment does not name it, only the one that its container was started with
    does.
    """

    variable: str
    position: int
    name: str
    pci_address: str
    info: Mapping[str, Any] | None = None
    problem: DeviceProblem | None = None
    from_start: bool = False


def parse_devices(environment: Mapping[str, str]) -> tuple[AllocatedDevice, ...]:
    """Return the devices by name of the variable, then by position in it.

    A resource's own name may end in "info". So PCIDEVICE_X_INFO is a list of
    devices if it holds an address, or if there is no PCIDEVICE_X and it does
    not begin as JSON does. Raises `Exhausted` for more than `MOST_DEVICES`, or a list of more
    than `MOST_PLACES`.
    """
    lists = sorted(name for name in environment if _is_list(environment, name))
    listed = frozenset(lists)
    found: list[AllocatedDevice] = []
    left = LONGEST_INFO
    for variable in lists:
        information = variable + _SUFFIX
        text = environment.get(information) if information not in listed else None
        infos, problem = _infos(text, left)
        told: set[str] = set()
        if problem is not DeviceProblem.INFO_TOO_LONG:
            left -= len(text or "")
        if environment[variable].count(",") >= MOST_PLACES:
            raise too_many_devices(variable)
        for position, item in enumerate(environment[variable].split(",")):
            name = item.strip()[:LONGEST_NAME]
            if not name:
                continue
            found.append(_device(variable, position, name, infos, problem, told))
            if len(found) > MOST_DEVICES:
                raise too_many_devices(variable)
    return tuple(found)


def _is_list(environment: Mapping[str, str], name: str) -> bool:
    if not name.startswith(PREFIX) or name == PREFIX or len(name) > LONGEST_VARIABLE:
        return False
    if not name.endswith(_SUFFIX):
        return True
    value = environment[name]
    if value.lstrip().startswith("{"):
        return False
    if name.removesuffix(_SUFFIX) not in environment:
        return True
    return any(normalise_pci_address(item.strip()) for item in value.split(","))


def _device(
    variable: str,
    position: int,
    name: str,
    infos: Mapping[str, Any],
    problem: DeviceProblem | None,
    told: set[str],
) -> AllocatedDevice:
    address = normalise_pci_address(name) or ""
    info = infos.get(address or name)
    if info is not None and (address or name) in told:
        info, problem = None, DeviceProblem.INFO_TOLD_BEFORE
    told.add(address or name)
    if info is not None and not isinstance(info, dict):
        info, problem = None, DeviceProblem.INFO_NOT_AN_OBJECT
    if info is not None and not _is_portable(info, DEEPEST_INFO):
        info, problem = None, DeviceProblem.INFO_NOT_PORTABLE
    if not address and problem is None:
        problem = DeviceProblem.NOT_AN_ADDRESS
    return AllocatedDevice(variable, position, name, address, info, problem)


def _infos(text: str | None, longest: int) -> tuple[Mapping[str, Any], DeviceProblem | None]:
    """Return what a variable …_INFO says, by address."""
    if text is None:
        return {}, None
    if len(text) > longest:
        return {}, DeviceProblem.INFO_TOO_LONG
    try:
        document = json.loads(text)
    except RecursionError:
        return {}, DeviceProblem.INFO_NOT_PORTABLE
    except ValueError:
        return {}, DeviceProblem.INFO_NOT_JSON
    if not isinstance(document, dict):
        return {}, DeviceProblem.INFO_NOT_AN_OBJECT
    return {normalise_pci_address(key) or key: value for key, value in document.items()}, None


def _is_portable(value: object, deepest: int) -> bool:
    """Tell whether a google.protobuf.Struct can hold the value, and every client read it."""
    if deepest < 0:
        return False
    if isinstance(value, dict):
        return all(_is_text(key) and _is_portable(one, deepest - 1) for key, one in value.items())
    if isinstance(value, list):
        return all(_is_portable(one, deepest - 1) for one in value)
    if isinstance(value, str):
        return _is_text(value)
    if isinstance(value, int | float):
        return _is_double(value)
    return True


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _is_double(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def too_many_devices(variable: str) -> Exhausted:
    """Return the error for an environment of more devices than are told."""
    read = variable[:LONGEST_NAME]
    return Exhausted(
        Reason.TOO_MANY_DEVICES,
        f"The container's environment names more than {MOST_DEVICES} devices.",
        read=f"variables {PREFIX}* up to {read}" if variable.startswith(PREFIX) else read,
    )
