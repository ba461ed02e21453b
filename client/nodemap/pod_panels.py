"""The pods' part of the map: pools, crossings, shared cores, and a card for each pod. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netutil.client.cpulist import format_cpulist
from netutil.client.nodemap.model import NodePicture, PicturedContainer, PicturedPod
from netutil.client.nodemap.node_panels import pf_key
from netutil.client.nodemap.relations import Conflict, Crossing, Pool, Relations, SplitCore
from netutil.client.nodemap.scene import Block, Box, Label, counted, fitted, shown, width_of
from netutil.client.text import certainty_mark, container_name

_LINE = 15.0
_SIDE = 8.0
_MAX_LINES = 20
_MAX_CROSSINGS = 8
_MAX_FAULTS = 8
"""Lines of a card: a pod may report any number of interfaces."""


def card(
    kind: str,
    lines: Sequence[tuple[str, str]],
    width: float,
    keys: tuple[str, ...] = (),
    title: str = "",
    name: str = "",
) -> Block:
    """A box with lines, each of a kind and a text; text that is too long loses its middle."""
    labels = tuple(
        Label(_SIDE, 16 + index * _LINE, fitted(text, width - 2 * _SIDE), 11, line_kind)
        for index, (line_kind, text) in enumerate(lines)
    )
    height = 8 + len(lines) * _LINE + 4
    return Block((Box(0, 0, width, height, kind, labels, keys, title, name),), (), height)


def pool_card(pool: Pool, width: float) -> Block:
    """The CPUs of a pool, and the number of containers on them."""
    nodes = f"NUMA {format_cpulist(pool.numa_nodes)}" if pool.numa_nodes else "NUMA not known"
    spans = ", spans NUMA nodes" if len(pool.numa_nodes) > 1 else ""
    head = f"Pool {pool.name}: CPUs {format_cpulist(pool.cpus)}"
    said = f"{counted(len(pool.cpus), 'CPU')}, {nodes}{spans}"
    users = f"{counted(pool.containers, 'container')} of {counted(len(pool.pods), 'pod')}"
    kind = "pool spans" if spans else "pool"
    lines = (("strong", head), ("text", said), ("text", users))
    return card(kind, lines, width, (f"s{pool.name}",), head)


def crossing_card(
    number: int, crossings: Sequence[Crossing], picture: NodePicture, width: float
) -> Block:
    """The NUMA crossings of one pod."""
    pod = picture.pods[number - 1]
    lines = [*_name_lines(number, pod, width), *_warnings(crossings)]
    title = "\n".join((_full_name(number, pod), *(text for _, text in _warnings(crossings))))
    return card("crossing", lines, width, (f"p{number}",), title)


def broken_card(number: int, pod: PicturedPod, width: float) -> Block:
    """The network faults of one pod."""
    lines = [*_name_lines(number, pod, width), *_faults(pod)]
    title = "\n".join((_full_name(number, pod), *map(shown, pod.faults)))
    return card("broken", lines, width, (f"p{number}",), title)


def _faults(pod: PicturedPod) -> Iterator[tuple[str, str]]:
    for fault in pod.faults[:_MAX_FAULTS]:
        yield "warn", f"! {shown(fault)}"
    if len(pod.faults) > _MAX_FAULTS:
        yield "warn", f"! and {len(pod.faults) - _MAX_FAULTS} more"


def _warnings(crossings: Sequence[Crossing]) -> Iterator[tuple[str, str]]:
    for crossing in crossings[:_MAX_CROSSINGS]:
        yield "warn", f"! {shown(crossing.sentence)}"
    if len(crossings) > _MAX_CROSSINGS:
        yield "warn", f"! and {len(crossings) - _MAX_CROSSINGS} more"


def split_card(core: SplitCore, number: int, width: float) -> Block:
    """A core that others use too, although the kubelet gave one of its CPUs to one pod alone."""
    said = f"CPUs {format_cpulist(core.cpus)}: {', '.join(core.owners)}"
    keys = (f"c{number}", *(f"p{pod}" for pod in core.pods))
    return card("splitting", (("text", said),), width, keys, said)


def conflict_card(conflict: Conflict, width: float) -> Block:
    """CPUs with several users although the kubelet gave them to one container alone."""
    text = f"! CPUs {format_cpulist(conflict.cpus)}: {', '.join(conflict.users)}"
    keys = tuple(f"p{pod}" for pod in conflict.pods)
    return card("conflict", (("warn", text),), width, keys, text)


class PodCards:
    """Lays out a card for each pod."""

    def __init__(self, picture: NodePicture, relations: Relations) -> None:
        self._picture = picture
        self._relations = relations
        self._pinned = {pod for owners in relations.owners.values() for pod in owners}
        self._pools_by_cpus = {pool.cpus: pool.name for pool in relations.pools}

    def notable(self, number: int) -> bool:
        """Whether a pod has more than CPUs of a pool."""
        pod = self._picture.pods[number - 1]
        return (
            number in self._pinned
            or bool(pod.faults)
            or bool(self._relations.crossings_of(number))
            or any(one.devices for one in pod.containers)
            or any(one.pci_address for one in pod.interfaces)
        )

    def card(self, number: int, width: float) -> Block:
        """The card of one pod."""
        pod = self._picture.pods[number - 1]
        crossings = self._relations.crossings_of(number)
        lines = [*_name_lines(number, pod, width), *self._lines(pod)]
        if len(lines) > _MAX_LINES:
            left_out = len(lines) - _MAX_LINES + 1
            lines = [*lines[: _MAX_LINES - 1], ("muted", f"and {left_out} more lines")]
        lines += _faults(pod)
        lines += (("warn", f"not known: {shown(problem)}") for problem in pod.problems)
        lines += _warnings(crossings)
        kind = "pod own" if number in self._pinned else "pod"
        if crossings:
            kind = "pod crosses"
        if pod.faults:
            kind = "pod broken"
        title = "\n".join(text for _, text in lines)
        name = f"{shown(pod.namespace)}/{shown(pod.name)}"
        return card(kind, lines, width, self._keys(number, pod), title, name)

    def _keys(self, number: int, pod: PicturedPod) -> tuple[str, ...]:
        pools = self._relations.pools_of_pod.get(number, ())
        functions = dict.fromkeys(one.pf_address for one in pod.interfaces if one.pf_address)
        cores = (
            f"c{index}"
            for index, core in enumerate(self._relations.split_cores)
            if number in core.pods
        )
        return (
            f"p{number}",
            *(f"s{pool}" for pool in pools),
            *map(pf_key, map(shown, functions)),
            *cores,
        )

    def _lines(self, pod: PicturedPod) -> Iterator[tuple[str, str]]:
        for container in pod.containers:
            yield "text", f"{shown(container_name(container.name))}: {self._cpus(container)}"
        plain = [shown(one.name) for one in pod.interfaces if not one.pci_address and one.name]
        if pod.host_network:
            yield "muted", "host network"
        if plain:
            yield "muted", " ".join(plain)
        addresses = set()
        health = {one.id: one.health for each in pod.containers for one in each.devices}
        for interface in pod.interfaces:
            if interface.pci_address:
                addresses.add(interface.pci_address)
                near = _near(() if interface.numa_node is None else (interface.numa_node,))
                name = shown(interface.name) or "no interface"
                held = certainty_mark(interface.source)
                state = _state(health.get(interface.pci_address, ""))
                yield "device", f"{name} {shown(interface.pci_address)}{near}{held}{state}"
        # Two containers may share a claim.
        devices = (device for container in pod.containers for device in container.devices)
        for device in dict.fromkeys(devices):
            if device.id not in addresses:
                near = _near(device.numa_nodes)
                named = f"{shown(device.resource)} {shown(device.id)}{near}"
                yield "device", f"{named}{_state(device.health)}"

    def _cpus(self, container: PicturedContainer) -> str:
        if not container.cpus:
            return container.state or "does not run"
        if container.exclusive:
            return f"own {format_cpulist(container.cpus)}"
        return f"pool {self._pools_by_cpus[container.cpus]}"


def _full_name(number: int, pod: PicturedPod) -> str:
    return f"#{number} {shown(pod.namespace)}/{shown(pod.name)}"


def _name_lines(number: int, pod: PicturedPod, width: float) -> list[tuple[str, str]]:
    """The full name in one line, or in two lines if it does not fit."""
    named = _full_name(number, pod)
    if width_of(named) <= width - 2 * _SIDE:
        return [("strong", named)]
    return [("strong", f"#{number} {shown(pod.namespace)}/"), ("strong", shown(pod.name))]


def _near(numa_nodes: Sequence[int]) -> str:
    return f" NUMA {format_cpulist(numa_nodes)}" if numa_nodes else ""


def _state(health: str) -> str:
    return f" ({shown(health)})" if health else ""
