"""The EAL arguments that fit a container: its CPUs, devices and huge pages, for a DPDK program.

Pure: the input is the answer to GetAll, and what the calling process sees of its container. The
result is a whole command line or an error: for missing arguments DPDK takes everything that it
finds on the node (every CPU, every PCI device), which is never intended for a container.

Source of the arguments: "EAL parameters" of the DPDK Getting Started Guide for Linux. `-a`
and the memif roles need DPDK 20.11; `--numa-mem` is the name of `--socket-mem` since 25.07.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

from netutil.client.cpulist import format_cpulist, parse_cpulist
from netutil.client.dpdk.checks import af_xdp_arguments, check_devices, memory_arguments
from netutil.client.dpdk.devices import device_arguments
from netutil.client.dpdk.functions import Argument
from netutil.client.dpdk.limits import allows_none, lowered, no_hugepages, none_allowed, throttled
from netutil.client.dpdk.view import OwnView
from netutil.client.errors import FailedPrecondition, NetUtilError, NotFound, Unavailable
from netutil.client.models.core import CPU, CgroupLevel, PartError, Pod, as_exception
from netutil.client.models.devices import (
    All,
    ContainerHugepages,
    Hugepages,
    HugepageUsage,
    Interfaces,
    PodHugepages,
    Resources,
)

_MEBIBYTE = 1024 * 1024
_HUGEPAGES = re.compile(r"hugepages-([1-9][0-9]{0,9})(Ki|Mi|Gi)")
_UNITS = {"Ki": 1024, "Mi": _MEBIBYTE, "Gi": 1024 * _MEBIBYTE}
_PREFIX = re.compile(r"[A-Za-z0-9.-]+")
_MAX_PREFIX = 58
"""So /var/run/dpdk/<prefix>/mp_socket_<pid>_<time> has the 107 bytes of a socket's path."""
_DIGEST_CHARACTERS = 8
_MAX_LCORES = 128
"""RTE_MAX_LCORE as DPDK is built by default. `-l` takes no CPU of that number or above."""
_MAX_NUMA_NODES = 32
"""RTE_MAX_NUMA_NODES as DPDK is built by default."""
_NEVER_READABLE = "NETWORK_NAMESPACE_NOT_READABLE"
"""As for the hardened agent, which is no reason to have no line ever: a warning, then."""
Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Arguments for rte_eal_init(3), and warnings about what is allowed but likely unintended."""

    arguments: tuple[Argument, ...]
    warnings: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """All words in order, as in argv."""
        return tuple(word for argument in self.arguments for word in argument.words)


def command_line(facts: All, *, numa_mem: bool = False, view: OwnView | None = None) -> CommandLine:
    """The arguments for the container of `facts`; with `numa_mem` `--numa-mem` for `--socket-mem`.

    `view` is what a process of the container sees of it; None if the calling process is in
    another container: then the checks are left out.
    Raises `NotFound` if the container has no CPU, no device for DPDK or no huge
    pages, `FailedPrecondition` if two facts contradict each other, and the error of a
    part that is missing.
    """
    pod = _had(facts, facts.pod, "pod")
    cpu = _had(facts, facts.cpu, "cpu")
    interfaces = _had(facts, facts.interfaces, "interfaces")
    hugepages = _had(facts, facts.hugepages, "hugepages")
    for error in (
        *(interfaces.network_error, interfaces.device_info_error, interfaces.allocated_error),
        *(interfaces.pci_error, hugepages.spec_error),
    ):
        if error is not None:
            raise as_exception(error)
    links = interfaces.link_error
    if links is not None and links.reason != _NEVER_READABLE:
        raise as_exception(links)
    if not pod.container_name:
        raise _why_unnamed(facts)
    cores, cpus, warnings = _cores(cpu)
    nodes = {
        one.numa_node for one in cpu.cpus or () if one.id in cpus and one.numa_node is not None
    }
    environment = facts.environment.envs if facts.environment else {}
    devices = device_arguments(interfaces, _resources(facts), nodes, environment)
    afxdp = tuple(af_xdp_arguments(devices, _mtus(interfaces), view))
    shares, source = _shares(hugepages, facts, pod.container_name, nodes or {0})
    memory = _memory(shares, source, pod.container_name, numa_mem)
    prefix = _file_prefix(pod)
    extra: tuple[Argument, ...] = ()
    if view is not None:
        devices.warnings += check_devices(devices, view)
        extra = tuple(
            memory_arguments(_by_size(shares), prefix.words[0].partition("=")[2], devices, view)
        )
    return CommandLine(
        (cores, *devices.arguments, *afxdp, memory, *extra, prefix),
        (
            *warnings,
            *throttled(cpu, cpus),
            *devices.warnings,
            *_shortages(hugepages, shares),
            *_far_memory(shares, nodes),
        ),
    )


def _resources(facts: All) -> Resources | PartError | None:
    if facts.resources is not None:
        return facts.resources
    return next((error for error in facts.errors if error.part == "resources"), None)


def _mtus(interfaces: Interfaces) -> dict[str, int]:
    return {one.name: one.link.mtu for one in interfaces.interfaces if one.link is not None}


def _by_size(shares: Mapping[tuple[int, int], int]) -> dict[int, int]:
    sizes: dict[int, int] = {}
    for (size, _), size_bytes in shares.items():
        if size_bytes:
            sizes[size] = sizes.get(size, 0) + size_bytes
    return sizes


def _far_memory(shares: Mapping[tuple[int, int], int], nodes: Collection[int]) -> Iterator[str]:
    far = sorted({node for (_, node), size_bytes in shares.items() if size_bytes} - set(nodes))
    if nodes and far:
        yield (
            f"huge pages are on NUMA node {format_cpulist(far)},"
            f" the CPUs are on {format_cpulist(nodes)}"
        )
    if far and far[-1] >= _MAX_NUMA_NODES:
        yield f"NUMA node {far[-1]}: DPDK takes {_MAX_NUMA_NODES} unless it is built for more"


def _had(facts: All, part: Part | None, name: str) -> Part:
    if part is not None:
        return part
    for error in facts.errors:
        if error.part == name:
            raise as_exception(error)
    raise NetUtilError(f"the agent's answer lacks {name}", "INTERNAL")


def _why_unnamed(facts: All) -> NetUtilError:
    """Return why the container has no name: the error of its resources."""
    for error in facts.errors:
        if error.part == "resources":
            return as_exception(error)
    return Unavailable(
        "the pod list does not name the process's container yet",
        "UNAVAILABLE",
        reason="CONTAINER_NOT_REPORTED",
        read="the pod list",
        advice="ask again in a moment, or with a longer --timeout",
    )


def _cores(cpu: CPU) -> tuple[Argument, frozenset[int], tuple[str, ...]]:
    """`-l` with the exclusive CPUs if there are any, else all CPUs that the process may use."""
    usable, where = _numbers(cpu.effective_cpus), f"effective CPUs {cpu.effective_cpus}"
    if cpu.affinity is not None:
        usable &= _numbers(cpu.affinity)
        where += f", affinity of this process {cpu.affinity}"
    if cpu.exclusive_cpus:
        chosen = usable & _numbers(cpu.exclusive_cpus)
        if not chosen:
            raise FailedPrecondition(
                f"the kubelet gave the container CPUs {cpu.exclusive_cpus}, but this process may"
                f" use {format_cpulist(usable) or 'none'} only",
                "FAILED_PRECONDITION",
                reason="NO_USABLE_CPUS",
                read=where,
                advice="start the program without taskset, or fix the container's cpuset",
            )
        argument = _core_list(chosen, f"kubelet: exclusive CPUs {cpu.exclusive_cpus}; {where}")
        return argument, chosen, tuple(_too_many(chosen))
    if not usable:
        raise NotFound(
            "there is no CPU that the process may use",
            "NOT_FOUND",
            reason="NO_USABLE_CPUS",
            read=where,
        )
    if (partition := _own_partition(cpu, usable)) is not None:
        argument = _core_list(usable, f"{where}; {partition}")
        return argument, usable, tuple(_too_many(usable))
    # An empty list may be inferred by the agent from QoS class and spec.
    warning = (
        "no exclusive CPUs: PodResources of the kubelet list none or, where the pod's status does"
        " not say what was granted (as before Kubernetes 1.22), none follow from its class and"
        " spec; other processes may run on these CPUs"
    )
    if cpu.exclusive_cpus is None:
        why = cpu.resources_error.message if cpu.resources_error else "it was not asked for"
        warning = f"whether the CPUs are exclusive is not known: {why}"
    return _core_list(usable, where), usable, (warning, *_too_many(usable))


def _own_partition(cpu: CPU, usable: Collection[int]) -> str | None:
    """The cpuset partition by which the kernel keeps others from these CPUs, None without one.

    Only the partition of the container's own cgroup counts: that of the pod is shared.
    """
    found = cpu.cpuset_partition
    if found is None or found.level is not CgroupLevel.CONTAINER or not found.exclusive_cpus:
        return None
    if not _numbers(found.exclusive_cpus).issuperset(usable):
        return None
    return f'the container\'s own cpuset partition "{found.state}", CPUs {found.exclusive_cpus}'


def _numbers(cpus: str) -> frozenset[int]:
    try:
        return parse_cpulist(cpus)
    except ValueError:
        raise NetUtilError(f"the agent's answer has {cpus!r:.80} for CPUs", "INTERNAL") from None


def _core_list(cpus: Collection[int], source: str) -> Argument:
    """`-l`, or what EAL itself advises where a CPU's number is too large for it: a mapping."""
    if max(cpus) < _MAX_LCORES:
        return Argument(("-l", format_cpulist(cpus)), source)
    mapped = ",".join(f"{lcore}@{cpu}" for lcore, cpu in enumerate(sorted(cpus)))
    why = f"lcores from 0 on, as -l takes no CPU above {_MAX_LCORES - 1}"
    return Argument((f"--lcores={mapped}",), f"{source}; {why}")


def _too_many(cpus: Collection[int]) -> Iterator[str]:
    if len(cpus) > _MAX_LCORES:
        yield f"there are {len(cpus)} CPUs; DPDK takes {_MAX_LCORES} unless it is built for more"


def _shares(
    hugepages: Hugepages, facts: All, container: str, nodes: set[int]
) -> tuple[dict[tuple[int, int], int], str]:
    """Bytes by page size and NUMA node, and their source."""
    shares = _reserved(facts)
    if shares:
        return shares, "memory manager (PodResources)"
    usage = {one.page_size_bytes: one for one in hugepages.usage}
    limits = _limits(hugepages, container, usage)
    holder = _holder(hugepages, container, limits) + lowered(limits, usage)
    source = f"huge pages of {holder}, on the NUMA nodes of its CPUs"
    allowed = {
        size: min(limit, usage[size].limit_bytes or limit) if size in usage else limit
        for size, limit in limits.items()
    }
    return dict(_spread(allowed, sorted(nodes))), source


def _memory(
    shares: Mapping[tuple[int, int], int], source: str, container: str, numa_mem: bool
) -> Argument:
    """`--socket-mem` with MiB of each NUMA node, from node 0 on."""
    per_node: dict[int, int] = {}
    for (_, node), size_bytes in shares.items():
        per_node[node] = per_node.get(node, 0) + size_bytes
    amounts = [per_node.get(node, 0) // _MEBIBYTE for node in range(max(per_node) + 1)]
    if not any(amounts):
        raise no_hugepages(container, "in whole pages they are less than 1 MiB on each NUMA node")
    option = "--numa-mem" if numa_mem else "--socket-mem"
    return Argument((f"{option}={','.join(map(str, amounts))}",), f"{source}, in MiB per node")


def _limits(
    hugepages: Hugepages, container: str, usage: Mapping[int, HugepageUsage]
) -> dict[int, int]:
    """The container's limits in bytes by page size, without sizes that a cgroup forbids.

    Granted limits take precedence over those of the spec. For a page size without a limit of the
    container, the limit is what the pod-level limit leaves beside the other running containers
    (Kubernetes 1.34).
    """
    own = _own(hugepages, container)
    for size in own:
        if allows_none(size, usage):
            raise none_allowed(container, usage[size], "")
    # A kubelet before 1.34 sets the container's limit to 0 in its cgroup.
    left = _left(hugepages, own)
    shared = {size: limit for size, limit in left.items() if not allows_none(size, usage)}
    if not own and not shared:
        if left:
            raise none_allowed(container, usage[min(left)], " of the pod's")
        raise no_hugepages(container, _why_none(hugepages))
    return {**shared, **own}


def _left(hugepages: Hugepages, own: Collection[int]) -> dict[int, int]:
    """Bytes that the pod-level limits leave, for page sizes without a limit of the container."""
    found = {}
    for pod in hugepages.pod or ():
        others = sum(
            _granted(one)
            for one in hugepages.containers or ()
            if one.page_size_bytes == pod.page_size_bytes and one.kind != "init"
        )
        if pod.page_size_bytes not in own and _granted(pod) > others:
            found[pod.page_size_bytes] = _granted(pod) - others
    return found


def _own(hugepages: Hugepages, container: str) -> dict[int, int]:
    return {
        one.page_size_bytes: _granted(one)
        for one in hugepages.containers or ()
        if one.container_name == container and _granted(one)
    }


def _holder(hugepages: Hugepages, container: str, limits: Collection[int]) -> str:
    """The owner of the limits: the container, and the pod for page sizes that it lacks."""
    own = _own(hugepages, container)
    parts = [f"container {container}"] if own else []
    if any(size not in own for size in limits):
        parts.append("the pod, which its containers share")
    return " and of ".join(parts)


def _granted(asked: ContainerHugepages | PodHugepages) -> int:
    """The granted limit; that of the spec if the kubelet reports none."""
    granted = asked.granted_limit_bytes
    return asked.limit_bytes if granted is None else granted


def _why_none(hugepages: Hugepages) -> str:
    if not hugepages.pod:
        return "neither it nor the pod as a whole asks for any in the pod's spec"
    return "the other containers have all that the pod may use"


def _reserved(facts: All) -> dict[tuple[int, int], int]:
    """Bytes by page size and NUMA node that the kubelet's memory manager reserved."""
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
    """Whole pages for each node, as even as possible, the remainder on the first nodes."""
    pages, over = divmod(size_bytes // page_size, len(nodes))
    for position, node in enumerate(nodes):
        yield node, (pages + (position < over)) * page_size


def _shortages(hugepages: Hugepages, shares: dict[tuple[int, int], int]) -> Iterator[str]:
    """Warnings for pools that are too small now; pages in use by the container count as free."""
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
    """A prefix per container that survives a restart, so that EAL removes its old files."""
    source = "UID of the pod, name of the container"
    prefix = f"{pod.uid}-{pod.container_name}"
    if len(prefix) > _MAX_PREFIX:
        digest = sha256(pod.container_name.encode()).hexdigest()[:_DIGEST_CHARACTERS]
        prefix = f"{prefix[: _MAX_PREFIX - _DIGEST_CHARACTERS - 1]}-{digest}"
        source += ", cut, with its SHA-256: EAL makes sockets' paths of it"
    if not _PREFIX.fullmatch(prefix):
        raise FailedPrecondition(
            "the pod's UID and the container's name make no file name",
            "FAILED_PRECONDITION",
            reason="NOT_AN_ARGUMENT",
            read="the pod list",
        )
    return Argument((f"--file-prefix={prefix}",), source)
