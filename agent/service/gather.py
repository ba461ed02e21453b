"""What is true of a caller, gathered from the rooms below: one method for each kind of answer.

Nothing here knows requests or messages. `pid` is as in a request: "" is the calling process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from netutil.agent.errors import (
    AgentError,
    Inconsistent,
    Missing,
    Reason,
    Unidentified,
)
from netutil.agent.facts.cpu import read_cpu
from netutil.agent.facts.cpu_partition import read_partition
from netutil.agent.facts.environment import read_environment
from netutil.agent.facts.hugepages import (
    HugepagePool,
    HugepageUsage,
    read_pools,
    read_usage,
)
from netutil.agent.facts.interfaces import Interface, merge
from netutil.agent.facts.links import names_parent_devices
from netutil.agent.facts.network import (
    Networks,
    network_characters,
    of_interface,
)
from netutil.agent.facts.pci import PciInfo
from netutil.agent.facts.topology import Cpu, Topology
from netutil.agent.identity.process import PinnedProcess
from netutil.agent.parsers.cgroup import CgroupIdentity
from netutil.agent.parsers.cpulist import parse_cpu_list
from netutil.agent.parsers.devices import MOST_DEVICES, AllocatedDevice, too_many_devices
from netutil.agent.parsers.environment import Environment
from netutil.agent.parsers.pci_address import normalise_pci_address
from netutil.agent.parsers.plugin_devices import (
    af_xdp_devices_of_both,
    device_variables,
    devices_of_both,
)
from netutil.agent.podresources.directory import ResourceDirectory
from netutil.agent.podresources.model import ContainerResources
from netutil.agent.pods.index import Match
from netutil.agent.pods.model import Pod
from netutil.agent.recent_cache import RecentCache
from netutil.agent.service import amounts
from netutil.agent.service.caller import Caller, Callers
from netutil.agent.service.gathered import (
    Allocated,
    AskedCpus,
    Cpus,
    GivenFunctions,
    Hugepages,
    Interfaces,
)
from netutil.agent.service.live import PciDevices, links_if_known, only
from netutil.agent.service.pod_networks import ensure_networks_understood, networks_of
from netutil.agent.service.reads import ReadPool
from netutil.agent.service.unnamed import unnamed

T = TypeVar("T")
_FEW = 1024
_PODS_REMEMBERED = 512

EnvironmentRead = tuple[Environment | AgentError | None, Allocated]
"""An environment, why there is none, or None where it is not asked for; and what it names."""


@dataclass(frozen=True, slots=True)
class _Variables:
    """The variables of an environment that name devices, and how long their values are."""

    variables: dict[str, str]
    characters: int

    @classmethod
    def of(cls, environment: Environment) -> _Variables:
        found = device_variables(environment.variables)
        return cls(found, sum(map(len, found.values())) + len(found))


def _named(own: _Variables, start: _Variables | None, start_error: AgentError | None) -> Allocated:
    started = start.variables if start else None
    try:
        devices, others = devices_of_both(own.variables, started)
        af_xdp = af_xdp_devices_of_both(own.variables, started)
    except AgentError as error:
        return Allocated(error=error.with_traceback(None), start_error=start_error)
    return Allocated(devices, None, others, start_error, af_xdp)


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
        self._networks: RecentCache[str, tuple[Pod, Networks]] = RecentCache(_PODS_REMEMBERED)

    @property
    def reported_networks(self) -> RecentCache[str, tuple[Pod, Networks]]:
        """Return the networks of pods as their annotations report them, by pod UID."""
        return self._networks

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

        Either may be an error instead; nothing is raised for it. The devices are those of the
        process's own environment and of the one that its container was started with.
        """

        def read(directory: int) -> tuple[Environment, _Variables]:
            found = read_environment(directory)
            return found, _Variables.of(found)

        def read_start(directory: int) -> _Variables:
            return _Variables.of(read_environment(directory))

        try:
            found, own = await self._callers.read_environ(caller, pid, read)
        except AgentError as error:
            error.with_traceback(None)  # it is kept, and its frames hold the process
            return error, Allocated(error=error)
        start, start_error = None, None
        try:
            start = await self._callers.read_start_environ(caller, pid, read_start)
        except AgentError as error:
            start_error = error.with_traceback(None)
        size = own.characters + (start.characters if start else 0)
        names = partial(_named, own, start, start_error)
        return found, await self.worked_out(caller, names, size)

    async def networks(self, caller: Caller, pid: str, interface: str = "") -> Networks:
        """Return the networks that are reported of the caller's pod, all or those of an interface.

        Raises `Missing` if none of that interface is reported, and instead of it the error of an
        annotation that may name one and is not understood. The live links are read only if
        a name is asked for that they may have to tell.
        """
        await self._ensure_in_pod(caller, pid)
        networks = await self._reported(caller)
        reported = caller.known.pod.spec.host_network
        if not interface or networks.are_named:
            return of_interface(networks, interface, host_network=reported)
        process, _ = await self._callers.process(caller, pid)
        node = self._callers.host_namespaces

        def work() -> Networks:
            host_network, links, link_error = links_if_known(process, node, reported=reported)
            try:
                return of_interface(networks, interface, links or (), host_network=host_network)
            except Missing as error:
                raise link_error or error from None

        return await self._reads.run(caller.peer.pod_key, work, "/proc/<pid>/ns/net")

    async def _reported(self, caller: Caller) -> Networks:
        """Return the networks of the caller's pod as its annotations report them."""
        pod = caller.known.pod
        kept, networks = self._networks.get(pod.metadata.uid) or (None, None)
        if kept is pod and networks is not None:
            return networks
        ensure_networks_understood(pod)
        annotations = pod.metadata.annotations or {}
        size = network_characters(annotations)
        networks = await self.worked_out(caller, partial(networks_of, pod), size)
        if size <= _FEW:
            self._networks[pod.metadata.uid] = (pod, networks)
        return networks

    async def cpus(self, caller: Caller, pid: str, *, partition: bool = False) -> Cpus:
        """Return the CPUs, even after the caller's end if a child asks over its connection.

        `partition` asks for the cpuset partition as well.
        """
        process, cgroups = await self._process_or_gone(caller, pid)
        try:
            return self._cpus(process, cgroups, partition=partition)
        finally:
            if process is not None:
                process.close()

    async def asked_cpus(self, caller: Caller, pid: str) -> AskedCpus:
        """Return what a process's container and its pod ask for; nothing is waited for."""
        try:
            match, _ = await self.match(caller, pid, 0)
        except AgentError as error:
            return AskedCpus(None, None, error)
        return amounts.asked_cpus(match.pod, match.container_name)

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
            raise unnamed(match, pid)
        metadata = match.pod.metadata
        found = await self._resources.of_container(
            metadata.namespace,
            metadata.name,
            match.container_name,
            not_before=match.started_by,
            timeout_seconds=seconds,
        )
        # Kubelets before Kubernetes 1.22 list shared CPUs too.
        if match.pod.may_own_cpus(match.container_name):
            return found
        return replace(found, cpu_ids=())

    async def given_functions(self, caller: Caller, found: ContainerResources) -> GivenFunctions:
        """Return the PCI functions among the devices that the kubelet's managers gave.

        Most containers have none: then nothing is read.
        """
        ids = {device_id for one in found.devices for device_id in one.device_ids}
        addresses = sorted(set(filter(None, map(normalise_pci_address, ids))))
        if not addresses:
            return GivenFunctions()

        def read() -> GivenFunctions:
            devices, known = PciDevices(self._host_root), dict[str, PciInfo | None]()
            for address in addresses:
                with contextlib.suppress(OSError):  # it is kept, as the error of the devices
                    known[address] = devices.look(address)
            return GivenFunctions(
                tuple(filter(None, known.values())),
                tuple(address for address, pci in known.items() if pci is None),
                devices.error,
            )

        try:
            if len(addresses) > MOST_DEVICES:
                raise too_many_devices("PodResources")
            return await self._reads.run(caller.peer.pod_key, read, "/sys/bus/pci/devices")
        except AgentError as error:
            return GivenFunctions(error=error.with_traceback(None))

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
        except AgentError as error:
            return Hugepages((), usage, pools, error)
        asked = amounts.asked_hugepages(pod)
        return Hugepages(asked.containers, usage, pools, asked.error, asked.pod)

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
        interface that neither side knows, and what hides a side where the other does not know it.
        """
        networks, network_error = await self._networks_if_known(caller)
        allocated = known or await self.allocated(caller, pid)
        process, _ = await self._callers.process(caller, pid)
        pci, node = PciDevices(self._host_root), self._callers.host_namespaces
        reported = caller.match is not None and caller.match.pod.spec.host_network

        def work() -> T:
            host_network, links, link_error = links_if_known(process, node, reported=reported)
            merged = merge(
                networks,
                links,
                allocated.devices,
                pci.look,
                host_network=host_network,
                parents_are_named=names_parent_devices(os.uname().release, links or ()),
            )
            merged += _without_interface(merged, allocated.others, pci.look)
            if interface:
                hidden = networks.device_info_error if networks is not None else None
                device_info_error = hidden.without_frames() if hidden is not None else None
                errors = (network_error, device_info_error, link_error)
                merged = only(interface, merged, *errors, host_network=host_network)
            return make(
                Interfaces(
                    merged,
                    networks,
                    caller.match,
                    host_network,
                    network_error,
                    _of_link(allocated, interface),
                    link_error,
                    pci.error,
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

    async def _networks_if_known(self, caller: Caller) -> tuple[Networks | None, AgentError | None]:
        """Return the networks, or why they are not known: no pod list, a broken annotation."""
        if caller.match is None:
            return None, caller.unavailable
        try:
            return await self._reported(caller), None
        except AgentError as error:
            return None, error.with_traceback(None)  # its frames hold the annotation

    async def allocated(self, caller: Caller, pid: str) -> Allocated:
        """Return the devices that a process's environment names."""
        _, allocated = await self.environment_and_devices(caller, pid)
        return allocated

    def _cpus(
        self, process: PinnedProcess | None, cgroups: CgroupIdentity, *, partition: bool
    ) -> Cpus:
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
        return Cpus(facts, affinity, read_partition(directories) if partition else None)

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


def _of_link(allocated: Allocated, interface: str) -> Allocated:
    """Return the devices with the AF_XDP devices of one link only; "" is all."""
    if not interface or allocated.af_xdp is None:
        return allocated
    return replace(
        allocated, af_xdp=tuple(one for one in allocated.af_xdp if one.name == interface)
    )


def _without_interface(
    merged: tuple[Interface, ...],
    others: tuple[AllocatedDevice, ...],
    pci: Callable[[str], PciInfo | None],
) -> tuple[Interface, ...]:
    """Return an entry for each device of a plugin that gives no interfaces, once an address.

    What is no address is an entry for each variable.
    """
    known = {one.pci.address for one in merged if one.pci is not None}
    known |= {one.allocated.pci_address for one in merged if one.allocated is not None}
    known.discard("")
    left = {
        (one.pci_address or one.variable): one
        for one in reversed(others)
        if one.pci_address not in known
    }
    return merge(None, None, tuple(reversed(left.values())), pci)


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
