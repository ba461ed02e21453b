"""Collects the facts of a caller: one method for each kind of answer.

Nothing here knows requests or messages. `pid` is as in a request: "" is the calling process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, TypeVar, cast

from netutil.agent.collect import amounts
from netutil.agent.collect.caller import Caller, CallerResolver
from netutil.agent.collect.claim_devices import ClaimDevices
from netutil.agent.collect.claim_sources import ClaimSources
from netutil.agent.collect.container_cache import ContainerCache
from netutil.agent.collect.device_health import device_health, with_health
from netutil.agent.collect.environment_cache import (
    EnvironmentCache,
    HeldEnvironment,
    read_held,
)
from netutil.agent.collect.live_networks import (
    ON_HOST_NETWORK,
    LiveLinks,
    LiveNetworks,
    PciDevices,
    only,
)
from netutil.agent.collect.pci_cache import PciCache
from netutil.agent.collect.pod_networks import ensure_networks_understood, networks_of
from netutil.agent.collect.process_affinity import process_affinity
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.collect.results import (
    NO_FUNCTIONS,
    NO_HEALTH,
    NOTHING_GIVEN,
    Allocated,
    AskedCpus,
    AskedHugepages,
    Cpus,
    GivenDevices,
    GivenFunctions,
    Hugepages,
    Interfaces,
    InterfacesAnswer,
)
from netutil.agent.collect.unnamed_container import unnamed
from netutil.agent.errors import AgentError, FailedPrecondition, NotFound, Reason
from netutil.agent.facts.claims import NO_CLAIMS, Claims, interface_claims
from netutil.agent.facts.cpu import CpuFacts
from netutil.agent.facts.cpu_partition import CpusetPartition
from netutil.agent.facts.hugepages import (
    HeldPools,
    HugepagePool,
    HugepageUsage,
    read_pools,
)
from netutil.agent.facts.interfaces import PCI_BUS, Interface, merge
from netutil.agent.facts.links import names_parent_devices
from netutil.agent.facts.network import (
    Networks,
    network_characters,
    of_interface,
)
from netutil.agent.facts.network_state import MAX_INLINE_LINKS
from netutil.agent.facts.topology import Cpu, Topology
from netutil.agent.identity.process import PinnedProcess
from netutil.agent.kubelet.podresources.directory import ResourceDirectory
from netutil.agent.kubelet.podresources.model import ContainerResources, DynamicResource
from netutil.agent.parsers.cgroup import CgroupIdentity
from netutil.agent.parsers.cpulist import parse_cpu_list
from netutil.agent.parsers.environment import (
    MAX_DEVICES,
    AllocatedDevice,
    Environment,
    too_many_devices,
)
from netutil.agent.parsers.pci import PciInfo
from netutil.agent.parsers.plugin_devices import af_xdp_devices_of_both, devices_of_both
from netutil.agent.pods.claims import may_refer_to_claims
from netutil.agent.pods.index import Match
from netutil.agent.pods.model import Pod
from netutil.agent.recent_cache import RecentCache

T = TypeVar("T")
R = TypeVar("R")
_INLINE_LIMIT = 1024
_START_AND_OWNERSHIP = "start and ownership"
_MAX_KEPT_BYTES = 8 * 1024
"""Of an answer about interfaces: it is copied for each call."""
_MAX_KEPT_CHARACTERS = 4096
"""Of the variables that name devices: those are kept with an answer, at most 96 KiB."""
_KERNEL_RELEASE = os.uname().release
_PODS_REMEMBERED = 512
_MAX_SETS = 256


_Listed = tuple[Match | None, AgentError | None]
"""The pod list's entry for a process, or why there is none."""
EnvironmentRead = tuple[HeldEnvironment | AgentError | None, Allocated]
"""An environment, why there is none, or None where it is not asked for; and what it names."""


def _named(
    own: HeldEnvironment, start: HeldEnvironment | None, start_error: AgentError | None
) -> Allocated:
    started = start.device_variables if start else None
    try:
        devices, others = devices_of_both(own.device_variables, started)
        af_xdp = af_xdp_devices_of_both(own.device_variables, started)
    except AgentError as error:
        return Allocated(error=error.with_traceback(None), start_error=start_error)
    characters = own.device_characters + (start.device_characters if start else 0)
    return Allocated(devices, None, others, start_error, af_xdp, characters)


@dataclass(frozen=True, slots=True)
class InterfaceParts:
    """What the answer about interfaces is made of."""

    networks: Networks | None
    network_error: AgentError | None
    allocated: Allocated
    live: LiveLinks
    match: Match | None
    claims: Claims = NO_CLAIMS

    def are_same(self, other: InterfaceParts) -> bool:
        """Return whether another answer would be the same, but for counters."""
        return (
            self.live.links is other.live.links
            and self.networks is other.networks
            and self.network_error is other.network_error
            and self.observed_at == other.observed_at
            and self.allocated == other.allocated
            and (self.claims is other.claims or self.claims == other.claims)
        )

    @property
    def observed_at(self) -> datetime | None:
        """Return when the pod was listed."""
        return self.match.observed_at if self.match is not None else None


@dataclass(frozen=True, slots=True)
class _KeptAnswer:
    """An answer about interfaces, and what it was made of; `functions` are by PCI address."""

    parts: InterfaceParts
    functions: Mapping[str, PciInfo | None]
    answer: Any


class Collector:
    """Gathers for callers that are identified."""

    def __init__(
        self,
        callers: CallerResolver,
        reads: ReadPool,
        resources: ResourceDirectory,
        host_root: str,
        containers: ContainerCache,
        live: LiveNetworks,
        claims: ClaimSources | None = None,
    ) -> None:
        """`claims` is None where the devices of claims are not to be read."""
        self._live = live
        self._callers = callers
        self._reads = reads
        self._resources = resources
        self._host_root = host_root
        self.environments = EnvironmentCache()
        self.pci = PciCache(host_root)
        self.claim_devices = ClaimDevices(claims or ClaimSources(), reads, self.pci)
        self._containers = containers
        self._topology = Topology(host_root)
        self._pools = HeldPools(host_root)
        # Worked out once for each list that the pod came in: another list has other objects.
        self._networks: RecentCache[str, tuple[Pod, Networks]] = RecentCache(_PODS_REMEMBERED)

    @property
    def reported_networks(self) -> RecentCache[str, tuple[Pod, Networks]]:
        """Return the networks of pods as their annotations report them, by pod UID."""
        return self._networks

    async def match(self, caller: Caller, pid: str, wait_seconds: float) -> tuple[Match, str]:
        """Return the pod list's entry of a process's container, and the container's ID."""
        if not pid:
            return caller.require_match(), caller.cgroups.container_id or ""
        process, cgroups = await self._callers.process(caller, pid)
        try:
            match = await self._callers.match(caller.peer.pod_key, process, cgroups, wait_seconds)
        finally:
            process.close()
        return match, cgroups.container_id or ""

    async def environment(self, caller: Caller, pid: str) -> HeldEnvironment:
        """Return the environment of a process, if it is for the caller."""
        pod_key, key = caller.peer.pod_key, _environment_key(caller, pid)
        read = partial(read_held, held=self.environments.get(pod_key, key))
        found = await self._callers.read_environ(caller, pid, read)
        self.environments.put(pod_key, key, found)
        return found

    async def environment_and_devices(self, caller: Caller, pid: str) -> EnvironmentRead:
        """Return the environment of a process and the devices that it names, read once for both.

        Either may be an error instead; nothing is raised for it. The devices are those of the
        process's own environment and of the one that its container was started with.
        """
        pod_key, key = caller.peer.pod_key, _environment_key(caller, pid)
        start_key = ("start", caller.cgroups.container_id, key[1])
        read = partial(read_held, held=self.environments.get(pod_key, key))
        read_start = partial(read_held, held=self.environments.get(pod_key, start_key))
        try:
            own, start = await self._callers.read_environments(caller, pid, read, read_start)
        except AgentError as error:
            error.with_traceback(None)  # it is kept, and its frames hold the process
            return error, Allocated(error=error)
        self.environments.put(pod_key, key, own)
        if isinstance(start, AgentError):
            return own, await self._allocated(caller, key, own, None, start)
        if start is not None:
            self.environments.put(pod_key, start_key, start)
        return own, await self._allocated(caller, key, own, start, None)

    async def _allocated(
        self,
        caller: Caller,
        key: Hashable,
        own: HeldEnvironment,
        start: HeldEnvironment | None,
        start_error: AgentError | None,
    ) -> Allocated:
        """Return the devices of two environments, named once while both are held.

        `key` is what `own` is held under.
        """
        names = partial(_named, own, start, start_error)
        size = own.device_characters + (start.device_characters if start else 0)
        if start_error is not None:
            return await self.run_offloaded(caller, names, size)
        if own.is_named_with(start):
            return cast(Allocated, own.named)
        allocated = await self.run_offloaded(caller, names, size)
        if allocated.error is None:
            self.environments.keep_named(caller.peer.pod_key, key, own, start, allocated)
        return allocated

    async def networks(self, caller: Caller, pid: str, interface: str = "") -> Networks:
        """Return the networks that are reported of the caller's pod, all or those of an interface.

        Raises `NotFound` if none of that interface is reported, and instead of it the error of an
        annotation that may name one and is not understood. The live links are looked at only if
        a name is requested that they may have to resolve.
        """
        await self._ensure_in_pod(caller, pid)
        networks = await self._reported(caller)
        reported = caller.require_match().pod.spec.host_network
        if not interface or networks.are_named:
            return of_interface(networks, interface, host_network=reported)
        live = await self._links(caller, pid)

        def work() -> Networks:
            links, host_network = live.links or (), live.host_network
            try:
                return of_interface(networks, interface, links, host_network=host_network)
            except NotFound as error:
                raise live.error or error from None

        return await self.run_offloaded(caller, work, len(live.links or ()))

    async def _links(self, caller: Caller, pid: str) -> LiveLinks:
        """Return the links of a process. Waits for nothing if they are known as they are now."""
        if _is_on_host_network(caller):
            await self._ensure_in_pod(caller, pid)
            return ON_HOST_NETWORK
        own = caller.peer.process
        if not pid or own.has_number(pid):
            found = self._live.current(own)
            return found or await self._live.links(caller.peer.pod_key, own, own)
        process, _ = await self._callers.process(caller, pid)
        try:
            return await self._live.links(caller.peer.pod_key, process, own)
        finally:
            process.close()

    def _own_links(self, caller: Caller) -> LiveLinks | None:
        """Return the links of the caller itself, None where they are to be waited for."""
        if _is_on_host_network(caller):
            return ON_HOST_NETWORK
        return self._live.current(caller.peer.process)

    def _known_networks(self, pod: Pod) -> Networks | None:
        """Return the networks of a pod if they were worked out for this entry of its list."""
        kept, networks = self._networks.get(pod.metadata.uid) or (None, None)
        return networks if kept is pod else None

    async def _reported(self, caller: Caller) -> Networks:
        """Return the networks of the caller's pod as its annotations report them."""
        pod = caller.require_match().pod
        known = self._known_networks(pod)
        if known is not None:
            return known
        ensure_networks_understood(pod)
        annotations = pod.metadata.annotations or {}
        size = network_characters(annotations)
        networks = await self.run_offloaded(caller, partial(networks_of, pod), size)
        if size <= _INLINE_LIMIT:
            self._networks[pod.metadata.uid] = (pod, networks)
        return networks

    async def cpus(self, caller: Caller, pid: str, *, partition: bool = False) -> Cpus:
        """Return the CPUs, even after the caller's end if a child asks over its connection.

        `partition` asks for the cpuset partition as well. What the container asks for is of the
        pod list as it is; nothing is waited for.
        """
        if not pid or _is_itself(caller, pid):
            return self.own_cpus(caller, partition=partition)
        process, cgroups = await self._callers.process(caller, pid)
        try:
            match, unknown = await self._listed(caller, pid)
            return self._cpus(process, cgroups, (match, unknown), partition=partition)
        finally:
            process.close()

    def own_cpus(self, caller: Caller, *, partition: bool = False) -> Cpus:
        """Return the CPUs of the caller itself, as `cpus`. Nothing of it waits or blocks."""
        listed = caller.match, caller.unavailable
        return self._cpus(caller.peer.process, caller.cgroups, listed, partition=partition)

    async def _listed(self, caller: Caller, pid: str) -> _Listed:
        """Return the pod list's entry for a process, or why there is none now."""
        try:
            match, _ = await self.match(caller, pid, 0)
        except AgentError as error:
            return None, error.with_traceback(None)
        return match, None

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

    async def resources(self, caller: Caller, pid: str, seconds: float) -> ContainerResources:
        """Return what the kubelet allocated to a process's container."""
        match, _ = await self.match(caller, pid, seconds)
        if not match.container_name:
            raise unnamed(match, pid)
        metadata = match.pod.metadata
        started_by, may_own_cpus = _start_and_ownership(match)
        found = await self._resources.get_container(
            metadata.namespace,
            metadata.name,
            match.container_name,
            not_before=started_by,
            timeout_seconds=seconds,
        )
        # Kubelets before Kubernetes 1.22 list shared CPUs too.
        return found if may_own_cpus else found.without_cpus

    def known_resources(self, caller: Caller) -> ContainerResources | None:
        """Return what `resources` does for the calling process itself.

        None where the kubelet has to be asked, and for what it raises.
        """
        match = caller.match
        if match is None or not match.container_name:
            return None
        metadata = match.pod.metadata
        key = (metadata.namespace, metadata.name)
        started_by, may_own_cpus = _start_and_ownership(match)
        found = self._resources.known(key, match.container_name, started_by)
        return found if found is None or may_own_cpus else found.without_cpus

    def known_devices(self, caller: Caller, found: ContainerResources) -> GivenDevices | None:
        """Return what `given_devices` does of the calling process itself.

        None where something has to be read.
        """
        match, functions = caller.match, self.known_functions(found)
        if match is None or functions is None or may_refer_to_claims(match.pod):
            return None
        health = device_health(match)
        if functions is NO_FUNCTIONS and health is NO_HEALTH:
            return NOTHING_GIVEN
        return GivenDevices(functions, NO_CLAIMS, health)

    async def given_devices(
        self, caller: Caller, pid: str, found: ContainerResources
    ) -> GivenDevices:
        """Return the PCI functions, claims and health of what a process's container was given."""
        functions = await self.given_functions(caller, found)
        match, error = await self._listed(caller, pid)
        if match is None:
            return GivenDevices(functions, Claims(error=error))
        claims = await self.claim_devices.read(
            caller.peer.pod_key, match, pid, found.dynamic_resources
        )
        claims = with_health(claims, match, found.dynamic_resources)
        return GivenDevices(functions, claims, device_health(match))

    async def _claims(self, caller: Caller, pid: str) -> Claims:
        """Return the claims that a process's container refers to."""
        if caller.match is not None and not may_refer_to_claims(caller.match.pod):
            return NO_CLAIMS
        match, error = await self._listed(caller, pid)
        if match is None:
            return Claims(error=error)
        return await self.claim_devices.read(caller.peer.pod_key, match, pid, self._prepared(match))

    def _prepared(self, match: Match) -> tuple[DynamicResource, ...]:
        """Return what the kubelet said last that it prepared for a container, () where it did not.

        Of any age: the claims of a container are prepared before it starts, and do not change.
        """
        metadata = match.pod.metadata
        key = (metadata.namespace, metadata.name)
        started_by, _ = _start_and_ownership(match)
        found = self._resources.held(key, match.container_name, started_by)
        return found.dynamic_resources if found is not None else ()

    def known_functions(self, found: ContainerResources) -> GivenFunctions | None:
        """Return what `given_functions` does, None where something has to be read."""
        addresses = found.pci_addresses
        if not addresses:
            return NO_FUNCTIONS
        held = self.pci.held(addresses)
        return _given(held) if held is not None else None

    async def given_functions(self, caller: Caller, found: ContainerResources) -> GivenFunctions:
        """Return the PCI functions among the devices that the kubelet's managers gave.

        Most containers have none: then nothing is read.
        """
        addresses = found.pci_addresses
        if len(addresses) > MAX_DEVICES:
            return GivenFunctions(error=too_many_devices("PodResources"))
        functions = self.known_functions(found)
        if functions is not None:
            return functions

        def read() -> GivenFunctions:
            devices, known = PciDevices(self.pci), dict[str, PciInfo | None]()
            for address in addresses:
                with contextlib.suppress(OSError):  # it is kept, as the error of the devices
                    known[address] = devices.look(address)
            return _given(known, devices.error)

        try:
            return await self._reads.run(caller.peer.pod_key, read, "/sys/bus/pci/devices")
        except AgentError as error:
            return GivenFunctions(error=error.with_traceback(None))

    async def hugepages(self, caller: Caller, pid: str) -> Hugepages:
        """Return the huge pages; the kernel's half also while there is no pod list."""
        if not pid or _is_itself(caller, pid):
            found = self.own_hugepages(caller)
            return found or await self._read_hugepages(caller, caller.cgroups)
        process, cgroups = await self._callers.process(caller, pid)
        process.close()
        return self._hugepages(caller, cgroups) or await self._read_hugepages(caller, cgroups)

    def own_hugepages(self, caller: Caller) -> Hugepages | None:
        """Return the huge pages of the caller itself, None where they are to be waited for."""
        return self._hugepages(caller, caller.cgroups)

    def _hugepages(self, caller: Caller, cgroups: CgroupIdentity) -> Hugepages | None:
        pools = self._pools.known()
        return None if pools is None else self._merge(caller, cgroups, pools)

    async def _read_hugepages(self, caller: Caller, cgroups: CgroupIdentity) -> Hugepages:
        read = partial(read_pools, self._host_root)
        pools = await self._reads.run(caller.peer.pod_key, read, "/sys/kernel/mm/hugepages")
        return self._merge(caller, cgroups, pools)

    def _merge(
        self, caller: Caller, cgroups: CgroupIdentity, pools: tuple[HugepagePool, ...]
    ) -> Hugepages:
        container = self._containers.container(cgroups)
        usage = self._containers.read(container, container.usage)
        if caller.match is None:
            return Hugepages((), usage, pools, caller.unavailable)
        pod = caller.match.pod
        asked = container.kept.get("asked hugepages", (pod,), amounts.asked_hugepages)
        return container.kept.get("hugepages", (asked, usage, pools), _hugepages)

    async def interfaces(
        self,
        caller: Caller,
        pid: str,
        interface: str,
        answer: InterfacesAnswer[T, R],
        known: Allocated | None = None,
    ) -> R:
        """Return the answer about the interfaces as reported and as they are now.

        `interface` names one of them. `known` are the devices of an environment that was read
        before. While nothing but counters changed, the answer that was made last is used again.
        Raises `NotFound` for an interface that neither side knows, and what hides a side where the
        other does not know it.
        """
        allocated = known or await self.allocated(caller, pid)
        if known is None and not pid and not interface:
            found = self.known_interfaces(caller, answer, allocated)
            if found is not None:
                return found
        networks, network_error = await self._networks_if_known(caller)
        claims = await self._claims(caller, pid)
        live = await self._links(caller, pid)
        parts = InterfaceParts(networks, network_error, allocated, live, caller.match, claims)
        kept = self._kept_answer(parts, interface, answer)
        if kept is not None:
            return kept
        answers = live.network.answers if live.network is not None else None
        counters = live.network.counters if live.network is not None else {}

        def make() -> tuple[T, R, PciDevices]:
            pci = PciDevices(self.pci)
            made = answer.make(self._merged(parts, interface, pci))
            return made, answer.with_counters(made, counters), pci

        # Not with devices: their files are read.
        size = 0 if self._are_few(parts) and not _may_have_devices(parts) else None
        made, counted, pci = await self.run_offloaded(caller, make, size)
        if answers is None or pci.error is not None or not self._are_few(parts):
            return counted
        if allocated.characters > _MAX_KEPT_CHARACTERS:
            return counted
        if answer.size_bytes(made) <= _MAX_KEPT_BYTES:
            answers[interface] = _KeptAnswer(parts, pci.found, made)
        return counted

    def known_interfaces(
        self, caller: Caller, answer: InterfacesAnswer[T, R], allocated: Allocated
    ) -> R | None:
        """Return what `interfaces` does of all those of the calling process itself.

        None where something has to be waited for or made. Raises what `interfaces` raises.
        """
        networks, network_error = None, caller.unavailable
        if caller.match is not None:
            if may_refer_to_claims(caller.match.pod):
                return None
            networks, network_error = self._known_networks(caller.match.pod), None
            if networks is None:
                return None
        live = self._own_links(caller)
        if live is None:
            return None
        parts = InterfaceParts(networks, network_error, allocated, live, caller.match)
        return self._kept_answer(parts, "", answer)

    def _kept_answer(
        self, parts: InterfaceParts, interface: str, answer: InterfacesAnswer[T, R]
    ) -> R | None:
        """Return the answer that was made last with the counters of now, None if it is another."""
        network = parts.live.network
        if network is None or network.answers is None:
            return None
        kept = network.answers.get(interface)
        if isinstance(kept, _KeptAnswer) and self._is_current(kept, parts):
            return answer.with_counters(kept.answer, network.counters)
        return None

    def _is_current(self, kept: _KeptAnswer, parts: InterfaceParts) -> bool:
        """Return whether an answer would be made of the same, PCI functions included."""
        return kept.parts.are_same(parts) and (
            not kept.functions or self.pci.held(kept.functions) == kept.functions
        )

    def _are_few(self, parts: InterfaceParts) -> bool:
        """Return whether an answer is made of little."""
        allocated, links = parts.allocated, parts.live.links or ()
        claimed = parts.claims.device_count if parts.claims is not NO_CLAIMS else 0
        if max(len(links), len(allocated.af_xdp or ()), claimed) > MAX_INLINE_LINKS:
            return False
        if parts.networks is None or parts.match is None:
            return True
        return network_characters(parts.match.pod.metadata.annotations or {}) <= _INLINE_LIMIT

    def _merged(self, parts: InterfaceParts, interface: str, pci: PciDevices) -> Interfaces:
        networks, allocated, live = parts.networks, parts.allocated, parts.live
        merged = merge(
            networks,
            live.links,
            allocated.devices,
            pci.look,
            claims=interface_claims(parts.claims),
            host_network=live.host_network,
            parents_are_named=names_parent_devices(_KERNEL_RELEASE, live.links or ()),
        )
        merged += _without_interface(merged, allocated.others, pci.look)
        if interface:
            hidden = networks.device_info_error if networks is not None else None
            device_info_error = hidden.without_frames() if hidden is not None else None
            errors = (
                parts.network_error,
                device_info_error,
                live.error,
                parts.claims.first_error,
            )
            merged = only(interface, merged, *errors, host_network=live.host_network)
        return Interfaces(
            merged,
            networks,
            parts.match,
            live.host_network,
            parts.network_error,
            _of_link(allocated, interface),
            live.error,
            pci.error or parts.claims.pci_error,
            parts.claims.first_error,
        )

    async def run_offloaded(
        self, caller: Caller, make: Callable[[], T], size: int | None = None
    ) -> T:
        """Return what `make` makes of `size` characters or entries that a workload wrote.

        On the loop only if they are known to be few: each may cost microseconds, and there may
        be millions.
        """
        if size is not None and size <= _INLINE_LIMIT:
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
        self,
        process: PinnedProcess,
        cgroups: CgroupIdentity,
        listed: _Listed,
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

    async def _ensure_in_pod(self, caller: Caller, pid: str) -> None:
        if pid:
            process, _ = await self._callers.process(caller, pid)
            process.close()


@lru_cache(maxsize=_MAX_SETS)
def _cpu_numbers(cpuset: str) -> tuple[int, ...]:
    """Return the numbers of a CPU set. A node has few different ones, each asked for often."""
    return parse_cpu_list(cpuset, read="cpuset.cpus")


def _is_on_host_network(caller: Caller) -> bool:
    """Return whether the pod list says that the caller's pod is in the node's network."""
    return caller.match is not None and caller.match.pod.spec.host_network


def _given(known: Mapping[str, PciInfo | None], error: AgentError | None = None) -> GivenFunctions:
    return GivenFunctions(
        tuple(filter(None, known.values())),
        tuple(address for address, pci in known.items() if pci is None),
        error,
    )


def _environment_key(caller: Caller, pid: str) -> tuple[int, str]:
    """Return the key of a held environment: the caller, and the process if it is another one.

    What is held is compared with the process before it is used, so the key need not be its only
    one for ever.
    """
    own = caller.peer.process
    return own.pid, "" if own.has_number(pid) else pid


def _is_itself(caller: Caller, pid: str) -> bool:
    """Return whether a request's pid is known to be that of the caller, which runs."""
    own = caller.peer.process
    return own.has_number(pid) and own.alive()


def _cpus(
    facts: CpuFacts,
    affinity: str | None,
    partition: CpusetPartition | None,
    pod: Pod,
    container_name: str,
) -> Cpus:
    return Cpus(facts, affinity, partition, amounts.asked_cpus(pod, container_name))


def _hugepages(
    asked: AskedHugepages, usage: tuple[HugepageUsage, ...], pools: tuple[HugepagePool, ...]
) -> Hugepages:
    return Hugepages(asked.containers, usage, pools, asked.error, asked.pod)


def _start_and_ownership(match: Match) -> tuple[datetime, bool]:
    """Return by when a match's container was started, and whether it may own CPUs.

    Both follow from the match alone, once the list says when the container was started.
    """
    known = match.kept.get(_START_AND_OWNERSHIP)
    if known is not None:
        return cast(tuple[datetime, bool], known)
    found = match.started_by, match.pod.may_own_cpus(match.container_name)
    if match.started_at is not None:
        match.kept.keep(_START_AND_OWNERSHIP, found, 0)
    return found


def _may_have_devices(parts: InterfaceParts) -> bool:
    """Return whether PCI functions may have to be looked at for an answer."""
    if parts.allocated.devices or parts.allocated.others or parts.claims.requests:
        return True
    if any(link.parent_device_bus == PCI_BUS for link in parts.live.links or ()):
        return True
    reported = parts.networks.status if parts.networks is not None else ()
    return any(status.device_info is not None for status in reported)


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
    """Return all variables, or the one that is asked for. Raises `NotFound` if it is not set."""
    if not key:
        return found.variables
    if key not in found.variables:
        raise NotFound(
            Reason.VARIABLE_NOT_SET,
            f"The process has no environment variable {key[:128]!r}.",
            read="/proc/<pid>/environ",
            advice="Variables that a process sets after its start are not shown there.",
        )
    return {key: found.variables[key]}
