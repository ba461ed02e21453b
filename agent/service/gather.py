"""What is true of a caller, gathered from the rooms below: one method for each kind of answer.

Nothing here knows requests or messages. `pid` is as in a request: "" is the calling process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

from cachetools import LRUCache
from netutil.agent.errors import (
    AgentError,
    Inconsistent,
    Missing,
    Reason,
    Unidentified,
)
from netutil.agent.facts.cpu import read_cpu
from netutil.agent.facts.environment import read_environment
from netutil.agent.facts.hugepages import (
    HugepagePool,
    HugepageUsage,
    asked,
    read_pools,
    read_usage,
)
from netutil.agent.facts.interfaces import merge
from netutil.agent.facts.network import (
    Networks,
    network_characters,
    read_networks,
)
from netutil.agent.facts.pci import read_pci
from netutil.agent.facts.topology import Cpu, Topology
from netutil.agent.identity.process import PinnedProcess
from netutil.agent.parsers.cgroup import CgroupIdentity
from netutil.agent.parsers.cpulist import parse_cpu_list
from netutil.agent.parsers.devices import AllocatedDevice, parse_devices
from netutil.agent.parsers.environment import Environment
from netutil.agent.podresources.directory import ResourceDirectory
from netutil.agent.podresources.model import ContainerResources
from netutil.agent.pods.index import Match
from netutil.agent.pods.model import Pod
from netutil.agent.service.caller import Caller, Callers
from netutil.agent.service.gathered import Cpus, Hugepages, Interfaces
from netutil.agent.service.live import links_if_known, only
from netutil.agent.service.reads import ReadPool
from netutil.agent.service.unnamed import unnamed

T = TypeVar("T")
_FEW = 1024
_PODS_REMEMBERED = 512

Allocated = tuple[tuple[AllocatedDevice, ...], AgentError | None]
"""The devices that an environment names, and why they are not known."""


EnvironmentRead = tuple[Environment | AgentError | None, Allocated]
"""An environment, why there is none, or None where it is not asked for; and what it names."""


class Gathering:
    """Gathers for callers that are identified."""

    def __init__(
        self, callers: Callers, reads: ReadPool, resources: ResourceDirectory, host_root: str
    ) -> None:
        self._callers = callers
        self._reads = reads
        self._resources = resources
        self._host_root = host_root
        self._topology = Topology(host_root)
        # Worked out once for each list that the pod came in: another list has other objects.
        self._networks: LRUCache[str, tuple[Pod, Networks]] = LRUCache(_PODS_REMEMBERED)

    async def match(self, caller: Caller, pid: str, wait_seconds: float) -> tuple[Match, str]:
        """Return the pod list's entry of a process's container, and the container's ID."""
        if not pid:
            return caller.known, caller.cgroups.container_id or ""
        process, cgroups = await self._callers.process(caller, pid)
        try:
            match = await self._callers.match(process, cgroups, wait_seconds)
        finally:
            process.close()
        return match, cgroups.container_id or ""

    async def environment(self, caller: Caller, pid: str) -> Environment:
        """Return the environment of a process, if it is for the caller."""
        return await self._callers.read_environ(caller, pid, read_environment)

    async def environment_and_devices(self, caller: Caller, pid: str) -> EnvironmentRead:
        """Return the environment of a process and the devices that it names, read once for both.

        Either may be an error instead; nothing is raised for it.
        """

        def read(directory: int) -> tuple[Environment, Allocated]:
            found = read_environment(directory)
            try:
                return found, (parse_devices(found.variables), None)
            except AgentError as error:
                return found, ((), error)

        try:
            return await self._callers.read_environ(caller, pid, read)
        except AgentError as error:
            error.with_traceback(None)  # it is kept, and its frames hold the process
            return error, ((), error)

    async def networks(self, caller: Caller, pid: str) -> Networks:
        """Return the networks that are reported of the caller's pod."""
        await self._ensure_in_pod(caller, pid)
        pod = caller.known.pod
        kept, networks = self._networks.get(pod.metadata.uid, (None, None))
        if kept is pod and networks is not None:
            return networks
        annotations = pod.metadata.annotations or {}
        size = network_characters(annotations)
        read = partial(read_networks, annotations, pod.ips, pod=pod.full_name)
        networks = await self.worked_out(caller, read, size)
        if size <= _FEW:
            self._networks[pod.metadata.uid] = (pod, networks)
        return networks

    async def cpus(self, caller: Caller, pid: str) -> Cpus:
        """Return the CPUs, even after the caller's end if a child asks over its connection."""
        process, cgroups = await self._process_or_gone(caller, pid)
        try:
            return self._cpus(process, cgroups)
        finally:
            if process is not None:
                process.close()

    async def topology(self, caller: Caller, cpuset: str) -> tuple[Cpu, ...]:
        """Return the CPUs of a set."""
        wanted = parse_cpu_list(cpuset, read="cpuset.cpus")
        known = self._topology.known(wanted)
        if known is not None:
            return known
        read = partial(self._topology.read, wanted)
        return await self._reads.run(caller.peer.pod_key, read, "/sys/devices/system/cpu")

    async def resources(self, caller: Caller, pid: str, seconds: float) -> ContainerResources:
        """Return what the kubelet allocated to a process's container."""
        match, _ = await self.match(caller, pid, seconds)
        if not match.container_name:
            raise unnamed(match)
        metadata = match.pod.metadata
        found = await self._resources.of_container(
            metadata.namespace,
            metadata.name,
            match.container_name,
            not_before=match.started_by,
            timeout_seconds=seconds,
        )
        # Kubelets before Kubernetes 1.22 list the shared CPUs for those who have none of
        # their own (kubernetes/kubernetes#100211, #97415).
        if match.pod.may_own_cpus(match.container_name):
            return found
        return replace(found, cpu_ids=())

    async def hugepages(self, caller: Caller, pid: str) -> Hugepages:
        """Return the huge pages; the kernel's half also while no pod list can be had."""
        process, cgroups = await self._process_or_gone(caller, pid)
        if process is not None:
            process.close()
        directory = self._callers.hugetlb_directory(cgroups)

        def read() -> tuple[tuple[HugepageUsage, ...], tuple[HugepagePool, ...]]:
            return read_usage(directory), read_pools(self._host_root)

        usage, pools = await self._reads.run(
            caller.peer.pod_key, read, "the hugetlb cgroup and /sys/kernel/mm/hugepages"
        )
        try:
            pod = caller.known.pod
            containers, error = asked(pod.spec.hugepages, pod=pod.full_name), None
        except AgentError as raised:
            containers, error = (), raised
        return Hugepages(containers, usage, pools, error)

    async def interfaces(
        self,
        caller: Caller,
        pid: str,
        interface: str,
        make: Callable[[Interfaces], T],
        known: Allocated | None = None,
    ) -> T:
        """Return what `make` makes of the interfaces as reported and as they are now.

        `interface` names one of them. `known` are the devices of an environment that was read
        before. `make` runs where the links were read, off the loop. Raises `Missing` for an
        interface that neither side knows.
        """
        networks, network_error = await self._networks_if_known(caller, pid)
        allocated, allocated_error = known or await self.allocated(caller, pid)
        process, _ = await self._callers.process(caller, pid)
        pci, node = partial(read_pci, self._host_root), self._callers.host_namespaces
        reported = caller.match is not None and caller.match.pod.spec.host_network

        def work() -> T:
            host_network, links, link_error = links_if_known(process, node, reported=reported)
            merged = merge(networks, links, allocated, pci, host_network=host_network)
            if interface:
                merged = only(interface, merged)
            return make(
                Interfaces(
                    merged,
                    networks,
                    caller.match,
                    host_network,
                    network_error,
                    allocated_error,
                    link_error,
                )
            )

        return await self._reads.run(caller.peer.pod_key, work, "/proc/<pid>/ns/net")

    async def worked_out(self, caller: Caller, make: Callable[[], T], size: int | None = None) -> T:
        """Return what `make` makes of `size` characters or entries that a workload wrote.

        On the loop only if they are known to be few: each may cost microseconds, and there may
        be millions.
        """
        if size is not None and size <= _FEW:
            return make()
        return await self._reads.run(caller.peer.pod_key, make, "what the pod itself wrote")

    async def _networks_if_known(
        self, caller: Caller, pid: str
    ) -> tuple[Networks | None, AgentError | None]:
        """Return None while no pod list can be had. Raises for an annotation that is broken."""
        if caller.match is None:
            return None, caller.unavailable
        return await self.networks(caller, pid), None

    async def allocated(self, caller: Caller, pid: str) -> Allocated:
        """Return the devices that a process's environment names."""
        _, allocated = await self.environment_and_devices(caller, pid)
        return allocated

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
