"""The map as a graph in Graphviz's language: pods on the left, resources on the right. Pure.

A dashed edge crosses NUMA nodes; a red edge is a conflict.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from netutil.client.cpulist import format_cpulist
from netutil.client.models.core import NodeCPU
from netutil.client.nodemap.model import NodePicture, PicturedPod
from netutil.client.nodemap.relations import Relations, relate
from netutil.client.nodemap.scene import shown
from netutil.client.text import certainty_mark

_FAR = 'color="#d55e00" style=dashed penwidth=2 label="crosses NUMA nodes"'
_CONFLICT = 'color="#b3261e" penwidth=3 label="conflict: others may use it"'
_BROKEN = 'color="#b3261e" penwidth=3'
_MAX_CONTAINERS = 20
MAX_DOT_PODS = 50
"""Pods of a readable graph: `dot` draws them all in one column."""
_CORE = 'shape=box style=filled fillcolor="#cfe5f4"'
_POOL = 'shape=ellipse style=filled fillcolor="#e6f4fc"'
_DEVICE = 'shape=box style="rounded,filled" fillcolor="#c9ede1"'


def dot(picture: NodePicture) -> str:
    """A graph for `dot -Tsvg` and similar programs."""
    relations = relate(picture)
    lines = [
        "graph map {",
        "rankdir=LR; ranksep=3; nodesep=0.1;",
        f"label={_quoted(f'Node {shown(picture.node_name)}')};",
        'node [fontname="monospace" fontsize=10]; edge [fontname="monospace" fontsize=8];',
        *_hardware(picture, relations),
        *(
            line
            for number, pod in enumerate(picture.pods, 1)
            for line in _pod(number, pod, picture, relations)
        ),
        "}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _hardware(picture: NodePicture, relations: Relations) -> Iterator[str]:
    """A cluster for each NUMA node with the cores and devices that pods use; then the pools."""
    clusters: dict[int | None, list[str]] = defaultdict(list)
    for siblings, cpus in _cores(picture).items():
        if any(cpu.id in relations.owners for cpu in cpus):
            label = f"core {cpus[0].core}: CPUs {format_cpulist(siblings)}"
            clusters[cpus[0].numa_node].append(f"{_core(siblings)} [{_CORE} {_label(label)}];")
    there = {device.pci.address: device.pci for device in picture.devices}
    used = {address for address in relations.device_users if address in there}
    used |= {there[address].pf_address for address in used} & there.keys()
    for address in sorted(used):
        pci = there[address]
        function = f" VF {pci.vf_index}" if pci.vf_index is not None else ""
        label = f"{address}{function} {pci.driver or 'no driver'}"
        clusters[pci.numa_node].append(f"{_device(address)} [{_DEVICE} {_label(label)}];")
    for node in sorted(clusters, key=lambda node: (node is None, node or 0)):
        name = "not known" if node is None else str(node)
        yield f"subgraph {_quoted(f'cluster NUMA {name}')} {{ {_label(f'NUMA node {name}')};"
        yield from clusters[node]
        yield "}"
    for address in sorted(used):
        if there[address].pf_address in used:
            yield f'{_device(there[address].pf_address)} -- {_device(address)} [label="VF"];'
    for pool in relations.pools:
        label = f"pool {pool.name}: CPUs {format_cpulist(pool.cpus)}"
        yield f"{_pool(pool.name)} [{_POOL} {_label(label)}];"


def _pod(
    number: int, pod: PicturedPod, picture: NodePicture, relations: Relations
) -> Iterator[str]:
    me = f"pod{number}"
    named = f"#{number} {shown(pod.namespace)}/{shown(pod.name)}"
    broken = (f"network broken: {shown(fault)}" for fault in pod.faults)
    missing = (f"not known: {shown(problem)}" for problem in pod.problems)
    containers = (shown(one.name) for one in pod.containers[:_MAX_CONTAINERS])
    label = "\n".join((named, *containers, *broken, *missing))
    mark = f" {_BROKEN}" if pod.faults else ""
    yield f"{me} [shape=box{mark} {_label(label)}];"
    crossings = relations.crossings_of(number)
    spread = {one.subject for one in crossings if one.kind == "cpus"}
    far = {one.subject for one in crossings if one.kind == "device"}
    cores = _cores(picture)
    contested = {cpu for one in relations.conflicts for cpu in one.cpus}
    for container in pod.containers:
        if not container.exclusive:
            continue
        for siblings in cores:
            shared = set(siblings) & set(container.cpus)
            if shared:
                tag = _FAR if container.name in spread else ""
                tag = _CONFLICT if shared & contested else tag
                yield f"{me} -- {_core(siblings)} [{tag}];"
    for pool in relations.pools_of_pod.get(number, ()):
        yield f"{me} -- {_pool(pool)};"
    there = {device.pci.address for device in picture.devices}
    for address, name in _devices(pod).items():
        if address not in there:
            label = _label(f"{shown(name)} {shown(address)}")
            yield f"{_device(address)} [{_DEVICE} {label}];"
        tag = _FAR if address in far else _label(shown(name))
        yield f"{me} -- {_device(address)} [{tag}];"


def _devices(pod: PicturedPod) -> dict[str, str]:
    """By address or ID: the name of each device, with its health if that is not good."""
    devices = [device for container in pod.containers for device in container.devices]
    names = {
        one.pci_address: f"{one.name}{certainty_mark(one.source)}"
        for one in pod.interfaces
        if one.pci_address
    }
    for device in devices:
        names.setdefault(device.id, device.resource)
    health = {device.id: f" ({device.health})" for device in devices if device.health}
    return {address: f"{name}{health.get(address, '')}" for address, name in names.items()}


def _cores(picture: NodePicture) -> dict[tuple[int, ...], list[NodeCPU]]:
    found: dict[tuple[int, ...], list[NodeCPU]] = defaultdict(list)
    for cpu in picture.cpus:
        found[cpu.siblings or (cpu.id,)].append(cpu)
    return found


def _core(siblings: tuple[int, ...]) -> str:
    return f"core{siblings[0]}"


def _pool(name: str) -> str:
    return f"pool{name}"


def _device(address: str) -> str:
    """A name that no pod, core or pool has, whatever the device is called."""
    return _quoted(f"device {shown(address)}")


def _label(text: str) -> str:
    return f"label={_quoted(text)}"


def _quoted(text: str) -> str:
    """A quoted string of which nothing but the ends of lines is an escape or a character entity."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped.replace("&", "&amp;")}"'
