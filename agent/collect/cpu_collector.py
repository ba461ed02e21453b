"""Collects the CPUs of callers."""

from __future__ import annotations

import errno
import os
from functools import lru_cache, partial

from netutil.agent.collect import amounts
from netutil.agent.collect.caller import Caller, CallerResolver
from netutil.agent.collect.container_cache import ContainerCache
from netutil.agent.collect.pod_lookup import Listed, PodLookup
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.collect.results import (
    AskedCpus,
    Cpus,
)
from netutil.agent.errors import FailedPrecondition, Reason, Unauthenticated
from netutil.agent.facts.affinity import read_affinity
from netutil.agent.facts.cpu import CpuFacts
from netutil.agent.facts.cpu_partition import CpusetPartition
from netutil.agent.facts.topology import Cpu, Topology
from netutil.agent.identity.process import PinnedProcess
from netutil.agent.parsers.cgroup import CgroupIdentity
from netutil.agent.parsers.cpulist import parse_cpu_list
from netutil.agent.pods.model import Pod

_MAX_SETS = 256


class CpuCollector:
    """Gathers what the kernel grants a container of CPUs, and what the pod asks for."""

    def __init__(
        self,
        callers: CallerResolver,
        lookup: PodLookup,
        reads: ReadPool,
        containers: ContainerCache,
        host_root: str,
    ) -> None:
        self._callers = callers
        self._lookup = lookup
        self._reads = reads
        self._containers = containers
        self._topology = Topology(host_root)

    async def of_process(self, caller: Caller, pid: str, *, partition: bool = False) -> Cpus:
        """Return the CPUs, even after the caller's end if a child asks over its connection.

        `partition` asks for the cpuset partition as well. What the container asks for is of the
        pod list as it is; nothing is waited for.
        """
        if not pid or caller.is_itself(pid):
            return self.own(caller, partition=partition)
        process, cgroups = await self._callers.process(caller, pid)
        try:
            match, unknown = await self._lookup.listed(caller, pid)
            return self._cpus(process, cgroups, (match, unknown), partition=partition)
        finally:
            process.close()

    def own(self, caller: Caller, *, partition: bool = False) -> Cpus:
        """Return the CPUs of the caller itself, as `cpus`. Nothing of it waits or blocks."""
        listed = caller.match, caller.unavailable
        return self._cpus(caller.peer.process, caller.cgroups, listed, partition=partition)

    def _cpus(
        self,
        process: PinnedProcess,
        cgroups: CgroupIdentity,
        listed: Listed,
        *,
        partition: bool,
    ) -> Cpus:
        container = self._containers.container(cgroups)
        if container.cpu is None or container.partition is None:
            raise FailedPrecondition(
                Reason.CPUSET_NOT_FOUND,
                "The container is in no cpuset hierarchy that the agent can see.",
                read="/proc/<pid>/cgroup",
                advice="Mount the host's /sys into the agent and name it in --host-root.",
            )
        facts = self._containers.read(container, container.cpu)
        members = self._containers.read(container, container.partition) if partition else None
        affinity = process_affinity(process)
        match, unknown = listed
        if match is None:
            return Cpus(facts, affinity, members, AskedCpus(None, None, unknown))
        name = "CPUs" if members is None else "CPUs and partition"
        of = facts, affinity, members, match.pod, match.container_name
        return container.kept.get(name, of, _cpus)

    async def topology(self, caller: Caller, cpuset: str) -> tuple[Cpu, ...]:
        """Return the CPUs of a set."""
        known = self.known_topology(cpuset)
        if known is not None:
            return known
        wanted = _cpu_numbers(cpuset)
        read = partial(self._topology.read, wanted)
        return await self._reads.run(caller.peer.pod_key, read, "/sys/devices/system/cpu")

    def known_topology(self, cpuset: str) -> tuple[Cpu, ...] | None:
        """Return the CPUs of a set, None where one has to be read."""
        return self._topology.known(_cpu_numbers(cpuset))


@lru_cache(maxsize=_MAX_SETS)
def _cpu_numbers(cpuset: str) -> tuple[int, ...]:
    """Return the numbers of a CPU set. A node has few different ones, each asked for often."""
    return parse_cpu_list(cpuset, read="cpuset.cpus")


def _cpus(
    facts: CpuFacts,
    affinity: str | None,
    partition: CpusetPartition | None,
    pod: Pod,
    container_name: str,
) -> Cpus:
    return Cpus(facts, affinity, partition, amounts.asked_cpus(pod, container_name))


def process_affinity(process: PinnedProcess) -> str | None:
    """Return the CPUs that a process may use as a kernel list, None if it has ended.

    The CPUs are those of its first thread, or of another one that runs if the first has ended.
    Nothing of it blocks. Raises `QuotaExceeded` for a shortage.
    """
    try:
        try:
            return read_affinity(process.directory(), process.pid)
        except (ProcessLookupError, FileNotFoundError):
            return process.through_running_thread(_thread_affinity)
    except PermissionError:
        return _allowed(process)
    except Unauthenticated:
        return None


def _thread_affinity(thread: int) -> str:
    """Return the CPUs of the thread whose directory in /proc is open.

    Raises ProcessLookupError if it has ended: the link says " (deleted)" then (proc(5)).
    """
    number = os.readlink(f"/proc/self/fd/{thread}").rpartition("/")[2]
    if not number.isdecimal():
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return read_affinity(thread, int(number))


def _allowed(process: PinnedProcess) -> str | None:
    """Return what the process's status says: all that an agent without CAP_SYS_PTRACE may read.

    Those CPUs may be offline.
    """
    try:
        allowed = process.status().cpus_allowed
        process.ensure_alive()
    except Unauthenticated:
        return None
    return allowed
