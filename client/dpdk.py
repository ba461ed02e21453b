"""The EAL arguments that fit a container: its CPUs, devices and huge pages, for a DPDK program.

Pure: the answer to GetAll goes in. There is a whole command line or an error: DPDK fills
what is left out with what it finds on the node (every CPU, every PCI device), which is
never what a container means.

Source of the arguments: "EAL parameters" of the DPDK Getting Started Guide for Linux. `-a`
and the memif roles need DPDK 20.11; `--numa-mem` is the name of `--socket-mem` since 25.07.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

from netutil.client.cpulist import list_of, numbers_of
from netutil.client.devices import All, Hugepages
from netutil.client.dpdk_devices import Argument, device_arguments
from netutil.client.errors import (
    KINDS,
    Inconsistent,
    NetUtilError,
    NotFound,
    Unavailable,
)
from netutil.client.results import CPU, PartError, Pod

_MEBIBYTE = 1024 * 1024
_HUGEPAGES = re.compile(r"hugepages-([1-9][0-9]{0,9})(Ki|Mi|Gi)")
_UNITS = {"Ki": 1024, "Mi": _MEBIBYTE, "Gi": 1024 * _MEBIBYTE}
_PREFIX = re.compile(r"[A-Za-z0-9.-]+")
_LONGEST_PREFIX = 58
"""So /var/run/dpdk/<prefix>/mp_socket_<pid>_<time> has the 107 bytes of a socket's path."""
_DIGEST_CHARACTERS = 8
_MOST_LCORES = 128
"""RTE_MAX_LCORE as DPDK is built by default. `-l` takes no CPU of that number or above."""
_NEVER_READABLE = "NETWORK_NAMESPACE_NOT_READABLE"
"""As for the hardened agent, which is no reason to have no line ever: a warning, then."""
Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Arguments for rte_eal_init(3), and what is allowed but likely not meant."""

    arguments: tuple[Argument, ...]
    warnings: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """Every word in its order, as a program's argv has them."""
        return tuple(word for argument in self.arguments for word in argument.words)


def command_line(facts: All, *, numa_mem: bool = False) -> CommandLine:
    """The arguments for the container of `facts`; `--numa-mem` for `--socket-mem` on demand.

    Raises `NotFound` if the container has no CPU, no device for DPDK or no huge
    pages, `Inconsistent` if two facts contradict each other, and the error of a
    part that could not be had.
    """
    pod = _had(facts, facts.pod, "pod")
    cpu = _had(facts, facts.cpu, "cpu")
    interfaces = _had(facts, facts.interfaces, "interfaces")
    hugepages = _had(facts, facts.hugepages, "hugepages")
    for error in (interfaces.network_error, interfaces.allocated_error, hugepages.spec_error):
        if error is not None:
            raise _error_of(error)
    links = interfaces.link_error
    if links is not None and links.reason != _NEVER_READABLE:
        raise _error_of(links)
    if not pod.container_name:
        raise _why_unnamed(facts)
    cores, cpus, warnings = _cores(cpu)
    nodes = {one.numa_node for one in cpu.cpus if one.id in cpus and one.numa_node is not None}
    devices = device_arguments(interfaces, facts.resources, nodes)
    memory, complaints = _memory(hugepages, facts, pod.container_name, nodes or {0}, numa_mem)
    return CommandLine(
        (cores, *devices.arguments, memory, _file_prefix(pod)),
        (*warnings, *devices.warnings, *complaints),
    )


def _had(facts: All, part: Part | None, name: str) -> Part:
    if part is not None:
        return part
    for error in facts.errors:
        if error.part == name:
            raise _error_of(error)
    raise NetUtilError(f"the agent's answer lacks {name}", "INTERNAL")


def _why_unnamed(facts: All) -> NetUtilError:
    """Return why the container has no name: what its resources could not be had for."""
    for error in facts.errors:
        if error.part == "resources":
            return _error_of(error)
    return Unavailable(
        "the kubelet has not yet reported the calling container",
        "UNAVAILABLE",
        reason="CONTAINER_NOT_REPORTED",
        read="the pod list",
        advice="ask again in a moment, or with a longer --timeout",
    )


def _error_of(error: PartError) -> NetUtilError:
    kind = KINDS.get(error.code, NetUtilError)
    return kind(
        error.sentence, error.code, reason=error.reason, read=error.read, advice=error.advice
    )


def _cores(cpu: CPU) -> tuple[Argument, frozenset[int], tuple[str, ...]]:
    """`-l`: the exclusive CPUs if there are any, else all that the process may use."""
    usable, where = _numbers(cpu.effective_cpus), f"effective CPUs {cpu.effective_cpus}"
    if cpu.affinity is not None:
        usable &= _numbers(cpu.affinity)
        where += f", affinity of this process {cpu.affinity}"
    if cpu.exclusive_cpus:
        chosen = usable & _numbers(cpu.exclusive_cpus)
        if not chosen:
            raise Inconsistent(
                f"the container has CPUs {cpu.exclusive_cpus} for itself, but this process may use"
                f" {list_of(usable) or 'none'} only",
                "FAILED_PRECONDITION",
                reason="NO_USABLE_CPUS",
                read=where,
                advice="start the program without taskset, or mend the container's cpuset",
            )
        argument = _core_list(chosen, f"exclusive CPUs {cpu.exclusive_cpus}; {where}")
        return argument, chosen, tuple(_too_many(chosen))
    if not usable:
        raise NotFound(
            "there is no CPU that the process may use",
            "NOT_FOUND",
            reason="NO_USABLE_CPUS",
            read=where,
        )
    warning = "no CPU is exclusive: other containers run on them too"
    if cpu.exclusive_cpus is None:
        why = cpu.resources_error.sentence if cpu.resources_error else "it was not asked for"
        warning = f"whether the CPUs are exclusive is not known: {why}"
    return _core_list(usable, where), usable, (warning, *_too_many(usable))


def _numbers(cpus: str) -> frozenset[int]:
    try:
        return numbers_of(cpus)
    except ValueError:
        raise NetUtilError(f"the agent's answer has {cpus!r:.80} for CPUs", "INTERNAL") from None


def _core_list(cpus: Collection[int], source: str) -> Argument:
    """`-l`, or what EAL itself advises where a CPU's number is too large for it: a mapping."""
    if max(cpus) < _MOST_LCORES:
        return Argument(("-l", list_of(cpus)), source)
    mapped = ",".join(f"{lcore}@{cpu}" for lcore, cpu in enumerate(sorted(cpus)))
    why = f"lcores from 0 on, as -l takes no CPU above {_MOST_LCORES - 1}"
    return Argument((f"--lcores={mapped}",), f"{source}; {why}")


def _too_many(cpus: Collection[int]) -> Iterator[str]:
    if len(cpus) > _MOST_LCORES:
        yield f"there are {len(cpus)} CPUs; DPDK takes {_MOST_LCORES} unless it is built for more"


def _memory(
    hugepages: Hugepages, facts: All, container: str, nodes: set[int], numa_mem: bool
) -> tuple[Argument, tuple[str, ...]]:
    """`--socket-mem`: MiB on each NUMA node, from 0 on."""
    shares, source = _reserved(facts), "memory manager (PodResources)"
    if not shares:
        limits = _limits(hugepages, container)
        shares = dict(_spread(limits, sorted(nodes)))
        source = f"huge pages of container {container}, on the NUMA nodes of its CPUs"
    per_node: dict[int, int] = {}
    for (_, node), size_bytes in shares.items():
        per_node[node] = per_node.get(node, 0) + size_bytes
    amounts = [per_node.get(node, 0) // _MEBIBYTE for node in range(max(per_node) + 1)]
    if not any(amounts):
        raise _no_hugepages(container, "in whole pages they are less than 1 MiB on each NUMA node")
    option = "--numa-mem" if numa_mem else "--socket-mem"
    argument = Argument((f"{option}={','.join(map(str, amounts))}",), f"{source}, in MiB per node")
    return argument, tuple(_shortages(hugepages, shares))


def _limits(hugepages: Hugepages, container: str) -> dict[int, int]:
    """Bytes by page size: the container's limits, as far as its cgroup allows them."""
    granted = {one.page_size_bytes: one.limit_bytes for one in hugepages.usage}
    limits = {
        one.page_size_bytes: min(
            one.limit_bytes, granted.get(one.page_size_bytes) or one.limit_bytes
        )
        for one in hugepages.containers
        if one.container_name == container and one.limit_bytes
    }
    refused = [size for size in limits if granted.get(size) == 0]
    if refused:
        raise _no_hugepages(container, "its hugetlb cgroup allows none")
    if not limits:
        raise _no_hugepages(container, "it asks for none in the pod's spec")
    return limits


def _no_hugepages(container: str, why: str) -> NotFound:
    return NotFound(
        f"container {container} has no huge pages: {why}",
        "NOT_FOUND",
        reason="NO_HUGEPAGES",
        read="the pod's spec and the hugetlb cgroup",
        advice="give the container limits of hugepages-1Gi or hugepages-2Mi",
    )


def _reserved(facts: All) -> dict[tuple[int, int], int]:
    """Bytes by page size and node, as the kubelet's memory manager reserved them."""
    shares: dict[tuple[int, int], int] = {}
    for block in facts.resources.memory if facts.resources else ():
        match = _HUGEPAGES.fullmatch(block.type)
        if match is not None and block.numa_nodes:
            page_size = int(match[1]) * _UNITS[match[2]]
            for node, part in _parts(block.size_bytes, page_size, sorted(block.numa_nodes)):
                shares[page_size, node] = shares.get((page_size, node), 0) + part
    return shares


def _spread(limits: dict[int, int], nodes: list[int]) -> Iterator[tuple[tuple[int, int], int]]:
    for page_size, size_bytes in limits.items():
        for node, part in _parts(size_bytes, page_size, nodes):
            yield (page_size, node), part


def _parts(size_bytes: int, page_size: int, nodes: list[int]) -> Iterator[tuple[int, int]]:
    """Whole pages for each node, as even as can be, the first ones first."""
    pages, over = divmod(size_bytes // page_size, len(nodes))
    for position, node in enumerate(nodes):
        yield node, (pages + (position < over)) * page_size


def _shortages(hugepages: Hugepages, shares: dict[tuple[int, int], int]) -> Iterator[str]:
    """What the node's pools cannot give now, the container's own use counted as free."""
    used = {one.page_size_bytes: one.usage_bytes for one in hugepages.usage}
    for pool in hugepages.pools:
        for node in pool.numa_nodes:
            wanted = shares.get((pool.page_size_bytes, node.numa_node), 0)
            if wanted > node.free_bytes + used.get(pool.page_size_bytes, 0):
                yield (
                    f"NUMA node {node.numa_node} has {node.free_bytes // _MEBIBYTE} MiB free in"
                    f" huge pages of {pool.page_size_bytes // 1024} KiB,"
                    f" {wanted // _MEBIBYTE} MiB are asked for"
                )


def _file_prefix(pod: Pod) -> Argument:
    """Its own for each container, and the same after a restart, so that EAL clears what it left."""
    source = "UID of the pod, name of the container"
    prefix = f"{pod.uid}-{pod.container_name}"
    if len(prefix) > _LONGEST_PREFIX:
        digest = sha256(pod.container_name.encode()).hexdigest()[:_DIGEST_CHARACTERS]
        prefix = f"{prefix[: _LONGEST_PREFIX - _DIGEST_CHARACTERS - 1]}-{digest}"
        source += ", cut, with its SHA-256: EAL makes sockets' paths of it"
    if not _PREFIX.fullmatch(prefix):
        raise Inconsistent(
            "the pod's UID and the container's name make no file name",
            "FAILED_PRECONDITION",
            reason="NOT_AN_ARGUMENT",
            read="the pod list",
        )
    return Argument((f"--file-prefix={prefix}",), source)
