"""Shared resources of a node, and what crosses its NUMA nodes. Pure.

Pods are referred to by their 1-based number in the drawing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from netutil.client.cpulist import format_cpulist
from netutil.client.nodemap.model import (
    NodePicture,
    PicturedContainer,
    PicturedInterface,
    PicturedPod,
)

Key = TypeVar("Key")
Value = TypeVar("Value")
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Pool:
    """A set of CPUs, and the containers that run on exactly these CPUs.

    The kubelet reports no container that has them alone. Another program may nevertheless keep
    other containers off them.
    """

    name: str
    cpus: tuple[int, ...]
    pods: tuple[int, ...]
    containers: int
    numa_nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SplitCore:
    """A core with an exclusive CPU of one pod, and with siblings that others use.

    `owners` are pods ("#7") and pools ("pool A").
    """

    cpus: tuple[int, ...]
    owners: tuple[str, ...]
    pods: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Conflict:
    """CPUs that the kubelet gave one container alone, and that others may use as well.

    `users` are the pods ("#7") and pools ("pool A") of these CPUs, `pods` the numbers of the pods.
    """

    cpus: tuple[int, ...]
    users: tuple[str, ...]
    pods: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Crossing:
    """CPUs or a device of a pod on another NUMA node; `kind` is "cpus" or "device"."""

    pod: int
    kind: str
    sentence: str
    subject: str
    """Name of the container, or address or ID of the device."""


@dataclass(frozen=True, slots=True)
class Relations:
    """Everything that pods share, and what crosses NUMA nodes.

    `owners` are, by CPU, the pods to which the kubelet gave it alone; `device_users` are by
    address.
    """

    owners: Mapping[int, tuple[int, ...]]
    pools: tuple[Pool, ...]
    pools_of_cpu: Mapping[int, tuple[str, ...]]
    pools_of_pod: Mapping[int, tuple[str, ...]]
    split_cores: tuple[SplitCore, ...]
    conflicts: tuple[Conflict, ...]
    device_users: Mapping[str, tuple[int, ...]]
    crossings: tuple[Crossing, ...]

    def crossings_of(self, pod: int) -> tuple[Crossing, ...]:
        """The crossings of one pod."""
        return tuple(one for one in self.crossings if one.pod == pod)


def relate(picture: NodePicture) -> Relations:
    """The relations of a picture."""
    numa_node = {cpu.id: cpu.numa_node for cpu in picture.cpus if cpu.numa_node is not None}
    owners = _owners(picture)
    pools = _pools(picture, numa_node)
    pools_of_cpu: dict[int, list[str]] = defaultdict(list)
    pools_of_pod: dict[int, list[str]] = defaultdict(list)
    for pool in pools:
        for cpu in pool.cpus:
            pools_of_cpu[cpu].append(pool.name)
        for pod in pool.pods:
            pools_of_pod[pod].append(pool.name)
    return Relations(
        owners=owners,
        pools=pools,
        pools_of_cpu=_frozen(pools_of_cpu),
        pools_of_pod=_frozen(pools_of_pod),
        split_cores=tuple(_split_cores(picture, owners, _frozen(pools_of_cpu))),
        conflicts=tuple(_conflicts(picture, owners, _frozen(pools_of_cpu))),
        device_users=_device_users(picture),
        crossings=tuple(
            crossing
            for number, pod in enumerate(picture.pods, 1)
            for crossing in _crossings(number, pod, numa_node)
        ),
    )


def _frozen(found: Mapping[Key, list[Value]]) -> dict[Key, tuple[Value, ...]]:
    return {key: tuple(dict.fromkeys(values)) for key, values in found.items()}


def _owners(picture: NodePicture) -> dict[int, tuple[int, ...]]:
    found: dict[int, list[int]] = defaultdict(list)
    for number, pod in enumerate(picture.pods, 1):
        for container in pod.containers:
            if container.exclusive:
                for cpu in container.cpus:
                    found[cpu].append(number)
    return _frozen(found)


def _pools(picture: NodePicture, numa_node: Mapping[int, int]) -> tuple[Pool, ...]:
    """One pool for each set of CPUs that is not exclusive, the most used first."""
    users: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, pod in enumerate(picture.pods, 1):
        for container in pod.containers:
            if container.cpus and not container.exclusive:
                users[container.cpus].append(number)
    order = sorted(users, key=lambda cpus: (-len(users[cpus]), cpus))
    return tuple(
        Pool(
            name=_pool_name(index),
            cpus=cpus,
            pods=tuple(dict.fromkeys(users[cpus])),
            containers=len(users[cpus]),
            numa_nodes=_nodes(cpus, numa_node),
        )
        for index, cpus in enumerate(order)
    )


def _pool_name(index: int) -> str:
    """A, B, … Z, A2, B2, …"""
    rounds, letter = divmod(index, len(_ALPHABET))
    return _ALPHABET[letter] + (str(rounds + 1) if rounds else "")


def _split_cores(
    picture: NodePicture,
    owners: Mapping[int, tuple[int, ...]],
    pools_of_cpu: Mapping[int, tuple[str, ...]],
) -> Iterator[SplitCore]:
    for siblings in dict.fromkeys(cpu.siblings for cpu in picture.cpus if len(cpu.siblings) > 1):
        pods = tuple(dict.fromkeys(pod for cpu in siblings for pod in owners.get(cpu, ())))
        pools = tuple(dict.fromkeys(p for cpu in siblings for p in pools_of_cpu.get(cpu, ())))
        if pods and len(pods) + len(pools) > 1:
            names = (*(f"#{pod}" for pod in pods), *(f"pool {pool}" for pool in pools))
            yield SplitCore(siblings, names, pods)


def _conflicts(
    picture: NodePicture,
    owners: Mapping[int, tuple[int, ...]],
    pools_of_cpu: Mapping[int, tuple[str, ...]],
) -> Iterator[Conflict]:
    """One for each set of users, ordered by the first CPU."""
    counts = _exclusive_containers(picture)
    found: dict[tuple[tuple[int, ...], tuple[str, ...]], list[int]] = defaultdict(list)
    for cpu in sorted(owners):
        pools = pools_of_cpu.get(cpu, ())
        if counts[cpu] > 1 or pools:
            found[owners[cpu], pools].append(cpu)
    for (pods, pools), cpus in found.items():
        users = (*(f"#{pod}" for pod in pods), *(f"pool {pool}" for pool in pools))
        yield Conflict(tuple(cpus), users, pods)


def _exclusive_containers(picture: NodePicture) -> Counter[int]:
    """By CPU: the containers that the kubelet gave the CPU alone. One pod may have two of them."""
    return Counter(
        cpu
        for pod in picture.pods
        for container in pod.containers
        if container.exclusive
        for cpu in container.cpus
    )


def _device_users(picture: NodePicture) -> dict[str, tuple[int, ...]]:
    found: dict[str, list[int]] = defaultdict(list)
    for number, pod in enumerate(picture.pods, 1):
        for interface in pod.interfaces:
            if interface.pci_address:
                found[interface.pci_address].append(number)
        for container in pod.containers:
            for device in container.devices:
                found[device.id].append(number)
    return _frozen(found)


def _crossings(number: int, pod: PicturedPod, numa_node: Mapping[int, int]) -> Iterator[Crossing]:
    for container in pod.containers:
        nodes = _nodes(container.cpus, numa_node)
        if container.exclusive and len(nodes) > 1:
            sentence = f"{container.name}: own CPUs on {_named(nodes)}"
            yield Crossing(number, "cpus", sentence, container.name)
        yield from _far_devices(number, pod.interfaces, container, nodes)
    for interface in pod.interfaces:
        if interface.numa_node is None or _is_allotted(interface, pod.containers):
            continue
        nodes = _nodes([cpu for one in pod.containers for cpu in one.cpus], numa_node)
        if nodes and interface.numa_node not in nodes:
            subject = interface.pci_address
            sentence = _far(interface.name or subject, (interface.numa_node,), "CPUs", nodes)
            yield Crossing(number, "device", sentence, subject)


def _far_devices(
    number: int,
    interfaces: tuple[PicturedInterface, ...],
    container: PicturedContainer,
    nodes: tuple[int, ...],
) -> Iterator[Crossing]:
    """Devices of a container that has no CPU on their NUMA node."""
    by_address = {one.pci_address: one for one in interfaces}
    for device in container.devices:
        interface = by_address.get(device.id)
        near: tuple[int, ...] = device.numa_nodes
        if interface is not None and interface.numa_node is not None:
            near = (interface.numa_node,)
        if nodes and near and not set(near) & set(nodes):
            name = interface.name if interface is not None and interface.name else device.id
            sentence = _far(name, near, container.name, nodes)
            yield Crossing(number, "device", sentence, device.id)


def _is_allotted(interface: PicturedInterface, containers: tuple[PicturedContainer, ...]) -> bool:
    return any(interface.pci_address == one.id for each in containers for one in each.devices)


def _far(device: str, near: tuple[int, ...], who: str, nodes: tuple[int, ...]) -> str:
    return f"{device} on {_named(near)}, {who} on {_named(nodes)}"


def _named(nodes: tuple[int, ...]) -> str:
    return f"NUMA {format_cpulist(nodes)}"


def _nodes(cpus: tuple[int, ...] | list[int], numa_node: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(sorted({numa_node[cpu] for cpu in cpus if cpu in numa_node}))
