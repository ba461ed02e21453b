"""Which of the devices that are left may belong to which of the networks that have none. Pure.

No source says it: the resource name stands in the network-attachment-definition, which the agent
does not read, and the kubelet lists devices in another order than the environment does. So the
result is an inference or a guess, and is marked as one. The class of a device decides whether it is
a candidate at all (`netutil.agent.facts.interfaces`). NUMA nodes decide nothing: a report names
none of a network.

One network-attachment-definition has one resource, so networks of the same name have devices of
the same variable.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from netutil.agent.parsers.devices import AllocatedDevice
from netutil.agent.parsers.network_status import NetworkStatus

_NO_CHARACTER_OF_A_VARIABLE = re.compile(r"[^A-Z0-9]")


class DeviceSource(Enum):
    """From where it is known which device belongs to an interface; see enum DeviceSource."""

    NONE = "none"
    DEVICE_INFO = "device-info"
    LINK = "link"
    ENVIRONMENT = "environment"
    ELIMINATION = "elimination"
    RESOURCE_NAME = "resource-name"
    ORDER = "order"


@dataclass(frozen=True, slots=True)
class Pairing:
    """The device that is held to be a network's, None for none, and why, in a sentence."""

    device: AllocatedDevice | None
    source: DeviceSource
    reason: str


def pair(
    networks: Sequence[NetworkStatus], devices: Sequence[AllocatedDevice]
) -> tuple[Pairing, ...]:
    """Return a pairing for each network, in their order.

    With fewer devices than networks no network gets one: a network is the whole pod's, and its
    device may have been given to another container.
    """
    unpaired = Pairing(None, DeviceSource.NONE, _unpaired(len(networks), len(devices)))
    if len(devices) < len(networks):
        return (unpaired,) * len(networks)
    groups: dict[_Group, list[int]] = defaultdict(list)
    for index, network in enumerate(networks):
        groups[network.name, 0 if network.name else index].append(index)
    found: dict[int, Pairing] = {}
    for group, variable, source, part in _chosen(groups, devices):
        for index, device in zip(groups[group], part, strict=True):
            found[index] = Pairing(device, source, _reason(source, group[0], variable))
    return tuple(found.get(index, unpaired) for index in range(len(networks)))


_Group = tuple[str, int]
"""Networks of one name; one that is reported without a name stands alone, by its position."""
_Choice = tuple[_Group, str, DeviceSource, Sequence[AllocatedDevice]]
"""Networks, the variable of their devices, the source of both, the devices."""


def _chosen(
    groups: dict[_Group, list[int]], devices: Sequence[AllocatedDevice]
) -> Iterator[_Choice]:
    """Yield a choice for each group of networks that devices are found for.

    The largest group is first: a variable that has enough devices for it has enough for any
    smaller one, so where its choice is open, every later one is open too. What is left after a
    guess is a guess as well.
    """
    left: defaultdict[str, list[AllocatedDevice]] = defaultdict(list)
    for one in devices:
        left[one.variable].append(one)

    def taken(group: _Group, variable: str) -> Sequence[AllocatedDevice]:
        number = len(groups[group])
        part, left[variable] = left[variable][:number], left[variable][number:]
        return part

    def fitting(group: _Group) -> list[str]:
        return [one for one, its in left.items() if len(its) >= len(groups[group])]

    waiting = sorted(groups, key=lambda group: -len(groups[group]))
    certain = True
    for group in tuple(waiting):
        named = [one for one in fitting(group) if _is_named_as(one, group[0])]
        if len(named) == 1:
            waiting.remove(group)
            part = taken(group, named[0])
            source = DeviceSource.RESOURCE_NAME
            if len(part) > 1 or left[named[0]]:
                source = DeviceSource.ORDER  # the resource is found, which of its devices is not
            yield group, named[0], source, part
            certain = False
    for group in waiting:
        variables = fitting(group)
        if variables:
            part = taken(group, variables[0])
            certain = certain and len(variables) == 1 and not left[variables[0]]
            sure = certain and len(part) == 1
            source = DeviceSource.ELIMINATION if sure else DeviceSource.ORDER
            yield group, variables[0], source, part


def _is_named_as(variable: str, network: str) -> bool:
    """Tell whether a variable's resource bears the name of a network without its namespace."""
    word = _NO_CHARACTER_OF_A_VARIABLE.sub("_", network.rpartition("/")[2].upper())
    return bool(word) and variable.endswith(f"_{word}")


def _reason(source: DeviceSource, network: str, variable: str) -> str:
    match source:
        case DeviceSource.ELIMINATION:
            return f"inferred: no other network device is left, and {variable} has this one"
        case DeviceSource.RESOURCE_NAME:
            return f"a guess: the resource of {variable} bears the name of network {network}"
        case _:
            return f"a guess: by the order of {variable} and of the reported networks"


def _unpaired(networks: int, devices: int) -> str:
    if not devices:
        return ""
    return (
        f"not known: {networks} reported networks have no device, {devices} network devices of the"
        " environment no interface, and nothing says which belongs to which"
    )
