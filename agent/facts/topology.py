"""CPU topology of the node: core, socket, NUMA node, siblings, and isolated CPUs.

Sources: /sys/devices/system/cpu (the kernel's ABI/stable/sysfs-devices-system-cpu
and ABI/testing/sysfs-devices-system-cpu) and /sys/devices/system/node.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from netutil.agent.facts.held_files import HeldDirectories, HeldFiles, HeldValue
from netutil.agent.facts.sysfs import BY_PATH, Files, names_if_there, text_if_there
from netutil.agent.parsers.cpulist import parse_cpu_list
from netutil.agent.yield_cpu import in_pieces

_CPU = re.compile(r"cpu([0-9]{1,5})")
_NODE = re.compile(r"node([0-9]{1,5})")
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO)
# nohz_full, where the kernel was started without it (older kernels).
_NO_MASK = "(null)"

_Sets = tuple[str | None, ...]
"""What the kernel says of all CPUs: which are online, isolated, and nohz_full."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """One CPU. `core`, `socket` and `siblings` are not known while it is offline.

    `core` is unique within a socket only; `siblings` are the CPUs of the same
    core, this one included.
    """

    id: int
    core: int | None
    socket: int | None
    numa_node: int | None
    siblings: tuple[int, ...]
    online: bool
    isolated: bool
    nohz_full: bool


def read_topology(host_root: str, cpus: Iterable[int] | None = None) -> tuple[Cpu, ...]:
    """Return `cpus`, or all that the node has, in ascending order.

    One that the node does not have is offline. Files: `online`, `isolated` and
    `nohz_full`; of each CPU `topology/core_id`, `physical_package_id` and `core_cpus_list`
    (before Linux 5.3 `thread_siblings_list`); `node<n>/cpulist`. Raises `FailedPrecondition`
    for a list that is not as the kernel writes it, OSError if a file that is there cannot be read.
    """
    system = os.path.join(host_root, "sys/devices/system")
    directory = os.path.join(system, "cpu")
    wanted = _all_cpus(directory) if cpus is None else sorted(set(cpus))
    online = _list_if_there(directory, "online")
    isolated = frozenset(_list_if_there(directory, "isolated") or ())
    nohz_full = frozenset(_list_if_there(directory, "nohz_full") or ())
    nodes = _nodes(os.path.join(system, "node"))
    found = []
    for number in in_pieces(wanted):
        own = os.path.join(directory, f"cpu{number}")
        topology = os.path.join(own, "topology")
        siblings = _list_if_there(topology, "core_cpus_list")
        if siblings is None:
            siblings = _list_if_there(topology, "thread_siblings_list") or ()
        # A kernel that cannot take CPUs away does not say which are there.
        is_online = number in online if online is not None else bool(siblings)
        found.append(
            Cpu(
                id=number,
                core=_number(topology, "core_id") if is_online else None,
                socket=_number(topology, "physical_package_id") if is_online else None,
                numa_node=nodes[number] if number in nodes else _node_of(own),
                siblings=siblings if is_online else (),
                online=is_online,
                isolated=number in isolated,
                nohz_full=number in nohz_full,
            )
        )
    return tuple(found)


class Topology:
    """A host's CPUs, each read once for as long as the kernel says the same of all of them.

    On a host of 256 CPUs theirs are a thousand files. Their content changes only when a CPU goes
    offline or comes, which `online` shows, or is kept for something else. The files that show it
    are held open and read at each look. `read` is for any thread, the others for one.
    """

    def __init__(self, host_root: str) -> None:
        self._host_root = host_root
        self._kept: tuple[_Sets | None, dict[int, Cpu]] = (None, {})
        self._files = HeldFiles(HeldDirectories())
        self._sets = HeldValue(self._files, self._read_sets)

    def known(self, cpus: Iterable[int]) -> tuple[Cpu, ...] | None:
        """Return those CPUs in ascending order; None if one has to be read. Raises OSError."""
        sets, known = self._kept
        if sets is None or sets != self._sets.get():
            return None
        found = [known.get(number) for number in sorted(set(cpus))]
        wanted = tuple(cpu for cpu in found if cpu is not None)
        return wanted if len(wanted) == len(found) else None

    def read(self, cpus: Iterable[int]) -> tuple[Cpu, ...]:
        """Return the same, read now. Raises as `read_topology`."""
        before = self._read_sets(BY_PATH)
        found = read_topology(self._host_root, cpus)
        if before == self._read_sets(BY_PATH):
            sets, known = self._kept
            self._kept = before, (known if sets == before else {}) | {one.id: one for one in found}
        return found

    def _read_sets(self, files: Files) -> _Sets:
        """Return the lists. None of these reads takes a lock (drivers/base/cpu.c)."""
        directory = os.path.join(self._host_root, "sys/devices/system/cpu")
        return tuple(_text(directory, name, files) for name in ("online", "isolated", "nohz_full"))


def _all_cpus(directory: str) -> list[int]:
    return sorted(int(match[1]) for name in _names(directory) if (match := _CPU.fullmatch(name)))


def _nodes(directory: str) -> dict[int, int]:
    """Return the NUMA node of each CPU that is online: only those are in the nodes' lists."""
    nodes: dict[int, int] = {}
    for name in _names(directory):
        if match := _NODE.fullmatch(name):
            listed = _list_if_there(os.path.join(directory, name), "cpulist") or ()
            nodes.update(dict.fromkeys(listed, int(match[1])))
    return nodes


def _node_of(directory: str) -> int | None:
    """Return the NUMA node of a CPU by its own link node<n>, which it keeps while offline."""
    for name in _names(directory):
        if match := _NODE.fullmatch(name):
            return int(match[1])
    return None


def _names(directory: str) -> list[str]:
    return names_if_there(directory, _ABSENT)


def _list_if_there(directory: str, name: str) -> tuple[int, ...] | None:
    text = _text(directory, name)
    if text is None:
        return None
    return () if text == _NO_MASK else parse_cpu_list(text, read=os.path.join(directory, name))


def _number(directory: str, name: str) -> int | None:
    """Return a number; None if it is not there, or is the kernel's -1 for "not known"."""
    text = _text(directory, name)
    return int(text) if text and text.isdigit() else None


def _text(directory: str, name: str, files: Files = BY_PATH) -> str | None:
    """Return the file's text, stripped; None if it is not there, or its CPU just went offline."""
    return text_if_there(directory, name, _ABSENT, files)
