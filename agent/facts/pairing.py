"""Pairs the remaining devices with the remaining networks of a pod. Pure.

No source says it: the resource name is in the network-attachment-definition, which the agent
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from netutil.agent.parsers.environment import MAX_DEVICES, AllocatedDevice
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
    CLAIM = "claim"


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
    sizes = {group: len(indices) for group, indices in groups.items()}
    for group, variable, source, part in _Matching(sizes, devices).choices():
        for index, device in zip(groups[group], part, strict=True):
            found[index] = Pairing(device, source, _reason(source, group[0], variable))
    return tuple(found.get(index, unpaired) for index in range(len(networks)))


_Group = tuple[str, int]
"""Networks of one name; one that is reported without a name is alone, by its position."""
_Choice = tuple[_Group, str, DeviceSource, Sequence[AllocatedDevice]]
"""Networks, the variable of their devices, the source of both, the devices."""


class _Matching:
    """The networks that wait, and the devices that are left of each variable.

    The largest group of networks is first: a variable that has enough devices for it has enough for
    any smaller one, so where its choice is open, that of every other group is open too.
    """

    def __init__(self, sizes: Mapping[_Group, int], devices: Sequence[AllocatedDevice]) -> None:
        self._sizes = sizes
        self._waiting = sorted(sizes, key=lambda group: -sizes[group])
        self._left: defaultdict[str, list[AllocatedDevice]] = defaultdict(list)
        for one in devices:
            self._left[one.variable].append(one)

    def choices(self) -> Iterator[_Choice]:
        """Yield a choice for each group that devices are found for, the surest first."""
        for group in tuple(self._waiting):
            variables = self._fitting(group)
            if len(variables) != 1 or len(self._left[variables[0]]) > self._sizes[group]:
                break
            yield self._taken(group, variables[0], DeviceSource.ELIMINATION)
        for group in tuple(self._waiting):
            named = [one for one in self._fitting(group) if _is_named_as(one, group[0])]
            if len(named) == 1:
                yield self._taken(group, named[0], DeviceSource.RESOURCE_NAME)
        for group in tuple(self._waiting):
            variables = self._fitting(group)
            if variables:
                yield self._taken(group, variables[0], DeviceSource.ORDER)

    def _fitting(self, group: _Group) -> list[str]:
        return [one for one, its in self._left.items() if len(its) >= self._sizes[group]]

    def _taken(self, group: _Group, variable: str, source: DeviceSource) -> _Choice:
        self._waiting.remove(group)
        number, its = self._sizes[group], self._left[variable]
        self._left[variable] = its[number:]
        if number > 1 or len(its) > number:
            source = DeviceSource.ORDER  # the resource is found, which of its devices is not
        return group, variable, source, its[:number]


def _is_named_as(variable: str, network: str) -> bool:
    """Return whether a variable's resource has the name of a network without its namespace."""
    word = _NO_CHARACTER_OF_A_VARIABLE.sub("_", network.rpartition("/")[2].upper())
    return bool(word) and variable.endswith(f"_{word}")


def _reason(source: DeviceSource, network: str, variable: str) -> str:
    match source:
        case DeviceSource.ELIMINATION:
            return f"inferred: {variable} has the only device that fits"
        case DeviceSource.RESOURCE_NAME:
            return f"a guess: the resource of {variable} has the name of network {network}"
        case _:
            return f"a guess: by the order of {variable} and of the reported networks"


def _unpaired(networks: int, devices: int) -> str:
    if not devices or networks > MAX_DEVICES:
        return ""  # else an annotation of thousands would make an answer many times its size
    return (
        f"not known: {networks} reported networks have no device, {devices} network devices of the"
        " environment no interface, and nothing says which belongs to which"
    )
