"""Collects what the kubelet allocated to containers: devices, their PCI functions, claims."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime
from typing import cast

from netutil.agent.collect.caller import Caller
from netutil.agent.collect.claim_devices import ClaimDevices
from netutil.agent.collect.device_health import device_health, with_health
from netutil.agent.collect.live_networks import (
    PciDevices,
)
from netutil.agent.collect.pci_cache import PciCache
from netutil.agent.collect.pod_lookup import PodLookup
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.collect.results import (
    NO_FUNCTIONS,
    NO_HEALTH,
    NOTHING_GIVEN,
    GivenDevices,
    GivenFunctions,
)
from netutil.agent.collect.unnamed_container import unnamed
from netutil.agent.errors import AgentError
from netutil.agent.facts.claims import NO_CLAIMS, Claims
from netutil.agent.kubelet.podresources.directory import ResourceDirectory
from netutil.agent.kubelet.podresources.model import ContainerResources, DynamicResource
from netutil.agent.parsers.environment import (
    MAX_DEVICES,
    too_many_devices,
)
from netutil.agent.parsers.pci import PciInfo
from netutil.agent.pods.claims import may_refer_to_claims
from netutil.agent.pods.index import Match

_START_AND_OWNERSHIP = "start and ownership"


class DeviceCollector:
    """Gathers the allocations of containers, and what they are of."""

    def __init__(
        self,
        lookup: PodLookup,
        reads: ReadPool,
        resources: ResourceDirectory,
        pci: PciCache,
        claim_devices: ClaimDevices,
    ) -> None:
        self._lookup = lookup
        self._reads = reads
        self._resources = resources
        self._pci = pci
        self._claim_devices = claim_devices

    async def resources(self, caller: Caller, pid: str, seconds: float) -> ContainerResources:
        """Return what the kubelet allocated to a process's container."""
        match, _ = await self._lookup.match(caller, pid, seconds)
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

    async def given_devices(
        self, caller: Caller, pid: str, found: ContainerResources
    ) -> GivenDevices:
        """Return the PCI functions, claims and health of what a process's container was given."""
        functions = await self.given_functions(caller, found)
        match, error = await self._lookup.listed(caller, pid)
        if match is None:
            return GivenDevices(functions, Claims(error=error))
        claims = await self._claim_devices.read(
            caller.peer.pod_key, match, pid, found.dynamic_resources
        )
        claims = with_health(claims, match, found.dynamic_resources)
        return GivenDevices(functions, claims, device_health(match))

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
            devices, known = PciDevices(self._pci), dict[str, PciInfo | None]()
            for address in addresses:
                with contextlib.suppress(OSError):  # it is kept, as the error of the devices
                    known[address] = devices.look(address)
            return _given(known, devices.error)

        try:
            return await self._reads.run(caller.peer.pod_key, read, "/sys/bus/pci/devices")
        except AgentError as error:
            return GivenFunctions(error=error.with_traceback(None))

    def known_functions(self, found: ContainerResources) -> GivenFunctions | None:
        """Return what `given_functions` does, None where something has to be read."""
        addresses = found.pci_addresses
        if not addresses:
            return NO_FUNCTIONS
        held = self._pci.held(addresses)
        return _given(held) if held is not None else None

    async def claims(self, caller: Caller, pid: str) -> Claims:
        """Return the claims that a process's container refers to."""
        if caller.match is not None and not may_refer_to_claims(caller.match.pod):
            return NO_CLAIMS
        match, error = await self._lookup.listed(caller, pid)
        if match is None:
            return Claims(error=error)
        return await self._claim_devices.read(
            caller.peer.pod_key, match, pid, self._prepared(match)
        )

    def _prepared(self, match: Match) -> tuple[DynamicResource, ...]:
        """Return what the kubelet said last that it prepared for a container, () where it did not.

        Of any age: the claims of a container are prepared before it starts, and do not change.
        """
        metadata = match.pod.metadata
        key = (metadata.namespace, metadata.name)
        started_by, _ = _start_and_ownership(match)
        found = self._resources.held(key, match.container_name, started_by)
        return found.dynamic_resources if found is not None else ()


def _given(known: Mapping[str, PciInfo | None], error: AgentError | None = None) -> GivenFunctions:
    return GivenFunctions(
        tuple(filter(None, known.values())),
        tuple(address for address, pci in known.items() if pci is None),
        error,
    )


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
