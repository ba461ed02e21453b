"""What is true of a caller, gathered from the rooms below: one method for each kind of answer.

Nothing here knows requests or messages. `pid` is as in a request: "" is the calling process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from netutil.agent.errors import AgentError, Inconsistent, Missing, Reason, Unidentified
from netutil.agent.facts.cpu import CpuFacts, read_cpu
from netutil.agent.facts.environment import read_environment
from netutil.agent.facts.hugepages import (
    ContainerHugepages,
    HugepagePool,
    HugepageUsage,
    asked,
    read_pools,
    read_usage,
)
from netutil.agent.facts.interfaces import Interface, merge
from netutil.agent.facts.link import Link
from netutil.agent.facts.links import network_namespace, read_links
from netutil.agent.facts.network import Networks, interface_not_found, read_networks
from netutil.agent.facts.pci import read_pci
from netutil.agent.facts.topology import Cpu, read_topology
from netutil.agent.identity.process import PinnedProcess, gone
from netutil.agent.parsers.cgroup import CgroupIdentity
from netutil.agent.parsers.cpulist import parse_cpu_list
from netutil.agent.parsers.devices import AllocatedDevice, parse_devices
from netutil.agent.parsers.environment import Environment
from netutil.agent.podresources.directory import ResourceDirectory
from netutil.agent.podresources.model import ContainerResources
from netutil.agent.pods.index import Match
from netutil.agent.service.caller import Caller, Callers
from netutil.agent.service.reads import ReadPool


@dataclass(frozen=True, slots=True)
class Cpus:
    """A container's CPU facts, and the affinity of the process: None if it has ended."""

    facts: CpuFacts
    affinity: str | None


@dataclass(frozen=True, slots=True)
class Interfaces:
    """A pod's interfaces. `networks` and the devices may be unknown; the errors say why."""

    interfaces: tuple[Interface, ...]
    networks: Networks | None
    match: Match | None
    host_network: bool
    network_error: AgentError | None
    allocated_error: AgentError | None


@dataclass(frozen=True, slots=True)
class Hugepages:
    """Huge pages of a pod, of the process's container, and of the node."""

    containers: tuple[ContainerHugepages, ...]
    usage: tuple[HugepageUsage, ...]
    pools: tuple[HugepagePool, ...]
    spec_error: AgentError | None


class Gathering:
    """Gathers for callers that are identified."""

    def __init__(
        self, callers: Callers, reads: ReadPool, resources: ResourceDirectory, host_root: str
    ) -> None:
        self._callers = callers
        self._reads = reads
        self._resources = resources
        self._host_root = host_root

    async def match(self, caller: Caller, pid: str, wait_seconds: float) -> tuple[Match, str]:
        """Return the pod list's entry of a process's container, and the container's ID."""
        if not pid:
            return caller.known, caller.cgroups.container_id or ""
        process, cgroups = await self._callers.process(caller, pid)
        process.close()
        match = await self._callers.match(cgroups, wait_seconds)
        return match, cgroups.container_id or ""

    async def environment(self, caller: Caller, pid: str) -> Environment:
        """Return the environment of a process, if it is for the caller."""
        return await self._callers.read_environ(caller, pid, read_environment)

    async def networks(self, caller: Caller, pid: str) -> Networks:
        """Return the networks that are reported of the caller's pod."""
        await self._ensure_in_pod(caller, pid)
        pod = caller.known.pod
        return read_networks(pod.metadata.annotations or {}, pod.ips, pod=pod.full_name)

    async def cpus(self, caller: Caller, pid: str) -> Cpus:
        """Return the CPUs, even after the caller's end if a child asks over its connection."""
        process, cgroups = await self._process_or_gone(caller, pid)
        try:
            return self._cpus(process, cgroups)
        finally:
            if process is not None:
                process.close()

    async def topology(self, cpuset: str) -> tuple[Cpu, ...]:
        """Return the CPUs of a set."""
        wanted = parse_cpu_list(cpuset, read="cpuset.cpus")
        read = partial(read_topology, self._host_root, wanted)
        return await self._reads.run("", read, "/sys/devices/system/cpu")

    async def resources(self, caller: Caller, pid: str, seconds: float) -> ContainerResources:
        """Return what the kubelet allocated to a process's container."""
        match, _ = await self.match(caller, pid, seconds)
        metadata = match.pod.metadata
        return await self._resources.of_container(
            metadata.namespace,
            metadata.name,
            match.container_name,
            not_before=match.started_at,
            timeout_seconds=seconds,
        )

    async def hugepages(self, caller: Caller, pid: str) -> Hugepages:
        """Return the huge pages; the kernel's half also while no pod list can be had."""
        process, cgroups = await self._process_or_gone(caller, pid)
        if process is not None:
            process.close()
        directory = self._callers.hugetlb_directory(cgroups)
        usage = await self._reads.run(
            caller.peer.pod_key, partial(read_usage, directory), "the hugetlb cgroup"
        )
        pools = await self._reads.run(
            "", partial(read_pools, self._host_root), "/sys/kernel/mm/hugepages"
        )
        try:
            pod = caller.known.pod
            containers, error = asked(pod.spec.hugepages, pod=pod.full_name), None
        except AgentError as raised:
            containers, error = (), raised
        return Hugepages(containers, usage, pools, error)

    async def interfaces(self, caller: Caller, pid: str, interface: str) -> Interfaces:
        """Return the interfaces as reported and as they are now; `interface` names one of them.

        Raises `Missing` for one that neither side knows.
        """
        networks, network_error = await self._networks_if_known(caller, pid)
        allocated, allocated_error = await self._allocated(caller, pid)
        host_network, links = await self._links(caller, pid)
        pci = partial(read_pci, self._host_root)
        merged = await self._reads.run(
            caller.peer.pod_key,
            lambda: merge(networks, links, allocated, pci, host_network=host_network),
            "/sys/bus/pci/devices",
        )
        if interface:
            known = [one.name for one in merged]
            merged = tuple(one for one in merged if one.name == interface)
            if not merged:
                raise interface_not_found(
                    interface, known, "reported networks and /proc/<pid>/ns/net"
                )
        match = caller.match
        return Interfaces(merged, networks, match, host_network, network_error, allocated_error)

    async def _networks_if_known(
        self, caller: Caller, pid: str
    ) -> tuple[Networks | None, AgentError | None]:
        """Return None while no pod list can be had. Raises for an annotation that is broken."""
        if caller.match is None:
            return None, caller.unavailable
        return await self.networks(caller, pid), None

    async def _allocated(
        self, caller: Caller, pid: str
    ) -> tuple[tuple[AllocatedDevice, ...], AgentError | None]:
        try:
            return parse_devices((await self.environment(caller, pid)).variables), None
        except AgentError as error:
            return (), error

    async def _links(self, caller: Caller, pid: str) -> tuple[bool, tuple[Link, ...]]:
        """Return whether the process is in the node's network namespace, and else its links."""
        process, _ = await self._callers.process(caller, pid)
        reported = caller.match is not None and caller.match.pod.spec.host_network

        def read() -> tuple[bool, tuple[Link, ...]]:
            try:
                directory = process.directory()
                if reported or network_namespace(directory) in self._callers.host_namespaces:
                    return True, ()
                links = read_links(directory)
                process.ensure_alive()
            except (ProcessLookupError, FileNotFoundError):
                raise gone(process.pid) from None
            else:
                return False, links
            finally:
                process.close()

        return await self._reads.run(caller.peer.pod_key, read, "/proc/<pid>/ns/net")

    def _cpus(self, process: PinnedProcess | None, cgroups: CgroupIdentity) -> Cpus:
        directories = self._callers.cpu_directories(cgroups)
        if directories is None:
            raise Inconsistent(
                Reason.CPUSET_NOT_FOUND,
                "The container stands in no cpuset hierarchy that the agent can see.",
                read="/proc/<pid>/cgroup",
                advice="Mount the host's /sys into the agent and name it in --host-root.",
            )
        facts = read_cpu(directories)
        affinity = None
        if process is not None:
            try:
                affinity = process.status().cpus_allowed
                process.ensure_alive()
            except Unidentified:
                affinity = None
        return Cpus(facts, affinity)

    async def _process_or_gone(
        self, caller: Caller, pid: str
    ) -> tuple[PinnedProcess | None, CgroupIdentity]:
        try:
            return await self._callers.process(caller, pid)
        except Unidentified:
            if pid:
                raise
            return None, caller.cgroups

    async def _ensure_in_pod(self, caller: Caller, pid: str) -> None:
        if pid:
            process, _ = await self._callers.process(caller, pid)
            process.close()


def variables(found: Environment, key: str) -> dict[str, str]:
    """Return all variables, or the one that is asked for. Raises `Missing` if it is not set."""
    if not key:
        return found.variables
    if key not in found.variables:
        raise Missing(
            Reason.VARIABLE_NOT_SET,
            f"The process has no environment variable {key[:128]!r}.",
            read="/proc/<pid>/environ",
            advice="Variables that a process sets after its start are not shown there.",
        )
    return {key: found.variables[key]}
