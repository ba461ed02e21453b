"""The node's part of the map: CPUs by NUMA node and core, and the network devices. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from netutil.client.models.core import NodeCPU
from netutil.client.models.node import NetworkDevice
from netutil.client.nodemap.model import NodePicture
from netutil.client.nodemap.relations import Relations
from netutil.client.nodemap.scene import (
    Block,
    Box,
    Label,
    counted,
    fitted,
    flowing,
    moved,
    shown,
    stacked,
)

_PADDING = 10.0
_CPU_WIDTH, _CPU_HEIGHT = 42.0, 30.0
_ID_SIZE = 8.5
_CORE_GAP = 4.0
_CORE_HEADER = 16.0
_CHIP_WIDTH, _CHIP_HEIGHT = 62.0, 30.0
_HEADER = 26.0


class NodePanels:
    """Lays out one panel for each NUMA node."""

    def __init__(self, picture: NodePicture, relations: Relations) -> None:
        self._picture = picture
        self._relations = relations
        self._split = {
            core.cpus: (f"c{number}", core) for number, core in enumerate(relations.split_cores)
        }
        self._contested = {cpu for one in relations.conflicts for cpu in one.cpus}
        self._far = {one.subject for one in relations.crossings if one.kind == "device"}
        self._spread = {
            cpu
            for one in relations.crossings
            if one.kind == "cpus"
            for container in picture.pods[one.pod - 1].containers
            if container.name == one.subject
            for cpu in container.cpus
        }

    def panels(self, width: float) -> Iterator[Block]:
        """A block for each NUMA node, by number; objects without a known node come last."""
        cpus: dict[int | None, list[NodeCPU]] = defaultdict(list)
        devices: dict[int | None, list[NetworkDevice]] = defaultdict(list)
        for cpu in self._picture.cpus:
            cpus[cpu.numa_node].append(cpu)
        for device in self._heads():
            devices[device.pci.numa_node].append(device)
        nodes = sorted({*cpus, *devices}, key=lambda node: (node is None, node or 0))
        for node in nodes:
            yield self._panel(node, cpus[node], devices[node], width)

    def _panel(
        self,
        node: int | None,
        cpus: Sequence[NodeCPU],
        devices: Sequence[NetworkDevice],
        width: float,
    ) -> Block:
        name = "NUMA node not known" if node is None else f"NUMA node {node}"
        cores: dict[tuple[int, ...], list[NodeCPU]] = defaultdict(list)
        for cpu in cpus:
            cores[cpu.siblings or (cpu.id,)].append(cpu)
        space = width - 2 * _PADDING
        inner = stacked(
            [
                _joined_cores([self._core(each) for each in cores.values()], space),
                *(self._device(device, space) for device in devices),
            ],
            gap=10,
        )
        said = f"{counted(len(cpus), 'CPU')}, {counted(len(cores), 'core')}"
        label = Label(_PADDING, 18, f"{name}: {said if cpus else 'no CPUs'}", 13, "strong")
        height = _HEADER + inner.height + _PADDING
        frame = Box(0, 0, width, height, "panel", (label,))
        inside = moved(inner, _PADDING, _HEADER)
        return Block((frame, *inside.boxes), inside.labels, height)

    def _core(self, cpus: Sequence[NodeCPU]) -> Block:
        """A core with its CPUs side by side; a core of several pods or pools is marked."""
        key, split = self._split.get(cpus[0].siblings, ("", None))
        first = cpus[0]
        name = f"c{first.core}" if first.core is not None else "core -"
        width = len(cpus) * (_CPU_WIDTH + 2) + 4
        label = Label(5, 12, fitted(f"{name}{' split' if split else ''}", width - 8, 9), 9, "muted")
        title = f"socket {first.socket}, core {first.core}" if first.online else "offline"
        if split is not None:
            title += f", shared by {', '.join(split.owners)}"
        keys = (key, *(f"p{pod}" for pod in split.pods)) if split else ()
        height = _CORE_HEADER + _CPU_HEIGHT + 3
        kind = "core split" if split else "core"
        frame = Box(0, 0, width, height, kind, (label,), keys, title)
        cells = (
            self._cpu(cpu, 3 + index * (_CPU_WIDTH + 2), _CORE_HEADER, (key,) if key else ())
            for index, cpu in enumerate(cpus)
        )
        return Block((frame, *cells), (), height)

    def _cpu(self, cpu: NodeCPU, x: float, y: float, keys: tuple[str, ...]) -> Box:
        owners = self._relations.owners.get(cpu.id, ())
        pools = self._relations.pools_of_cpu.get(cpu.id, ())
        users = (*(f"#{pod}" for pod in owners), *pools)
        kind, text = "idle", "-"
        if not cpu.online:
            kind, text = "offline", "off"
        elif users:
            kind = "own" if owners else "shared"
            text = users[0] + ("+" if len(users) > 1 else "")
        if cpu.id in self._spread:
            kind += " far"
        if cpu.id in self._contested:
            kind += " conflict"
            text = f"{users[0]}!"
        marks = f"{cpu.id}{' iso' if cpu.isolated and cpu.online else ''}"
        labels = (
            Label(x + 4, y + 12, fitted(marks, _CPU_WIDTH - 4, _ID_SIZE), _ID_SIZE, "id"),
            Label(x + 4, y + 25, fitted(text, _CPU_WIDTH - 4, 12), 12, "user"),
        )
        whose = self._whose(owners, pools) or text.replace("-", "no container's")
        title = f"CPU {cpu.id}: {'conflict: ' if cpu.id in self._contested else ''}{whose}"
        keys += (*(f"p{pod}" for pod in owners), *(f"s{pool}" for pool in pools))
        return Box(x, y, _CPU_WIDTH, _CPU_HEIGHT, f"cpu {kind}", labels, keys, title)

    def _whose(self, owners: Sequence[int], pools: Sequence[str]) -> str:
        names = [f"given by the kubelet to {self._named(pod)} alone" for pod in owners]
        return ", ".join((*names, *(f"pool {pool}" for pool in pools)))

    def _named(self, number: int) -> str:
        pod = self._picture.pods[number - 1]
        return f"#{number} {shown(pod.namespace)}/{shown(pod.name)}"

    def _heads(self) -> list[NetworkDevice]:
        """The devices, without virtual functions of other devices."""
        there = {device.pci.address for device in self._picture.devices}
        return [one for one in self._picture.devices if one.pci.pf_address not in there]

    def _device(self, device: NetworkDevice, width: float) -> Block:
        """A device with its virtual functions that are in use by pods."""
        pci = device.pci
        functions = [one for one in self._picture.devices if one.pci.pf_address == pci.address]
        used = [one for one in functions if one.pci.address in self._relations.device_users]
        own_users = self._relations.device_users.get(pci.address, ())
        words = [pci.address, pci.driver or "no driver", *map(shown, device.interfaces)]
        words += [f"#{pod}" for pod in own_users]
        if functions:
            words.append(f"VFs: {len(used)} used, {len(functions) - len(used)} free")
        key = pf_key(pci.address)
        chips = flowing((self._function(one, key) for one in used), width - 2 * _PADDING, 6)
        text = " ".join(words)
        height = 22 + (chips.height + 8 if used else 0)
        kind = "device far" if pci.address in self._far else "device"
        label = Label(8, 15, fitted(text, width - 16), 11)
        keys = (key, *(f"p{pod}" for pod in own_users))
        frame = Box(0, 0, width, height, kind, (label,), keys, text)
        inside = moved(chips, _PADDING, 22)
        return Block((frame, *inside.boxes), inside.labels, height)

    def _function(self, function: NetworkDevice, key: str) -> Box:
        pci = function.pci
        users = self._relations.device_users[pci.address]
        far = pci.address in self._far
        index = "VF" if pci.vf_index is None else f"VF{pci.vf_index}"
        text = f"#{users[0]}{'+' if len(users) > 1 else ''}{' !' if far else ''}"
        labels = (
            Label(5, 12, fitted(index, _CHIP_WIDTH - 8, 9), 9, "id"),
            Label(5, 26, fitted(text, _CHIP_WIDTH - 8, 12), 12, "user"),
        )
        title = f"{pci.address} {pci.driver or 'no driver'}: {', '.join(map(self._named, users))}"
        keys = (key, *(f"p{pod}" for pod in users))
        kind = "function far" if far else "function"
        return Box(0, 0, _CHIP_WIDTH, _CHIP_HEIGHT, kind, labels, keys, title)


def pf_key(address: str) -> str:
    """The key of a physical function and its virtual functions."""
    return f"f{address}"


def _joined_cores(cores: Sequence[Block], width: float) -> Block:
    """Cores in reading order; all of a row are equally high."""
    if not cores:
        return Block((), (), 0)
    x = y = 0.0
    boxes: list[Box] = []
    for core in cores:
        if x and x + core.boxes[0].width > width:
            x, y = 0.0, y + core.height + _CORE_GAP
        boxes += moved(core, x, y).boxes
        x += core.boxes[0].width + _CORE_GAP
    return Block(tuple(boxes), (), y + cores[0].height)
