"""Collects the interfaces of callers: reported, live, and with their devices."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from netutil.agent.collect.caller import Caller
from netutil.agent.collect.device_collector import DeviceCollector
from netutil.agent.collect.environment_collector import EnvironmentCollector
from netutil.agent.collect.link_collector import LinkCollector
from netutil.agent.collect.live_networks import (
    LiveLinks,
    PciDevices,
    only,
)
from netutil.agent.collect.network_collector import NetworkCollector
from netutil.agent.collect.pci_cache import PciCache
from netutil.agent.collect.read_pool import MAX_INLINE_SIZE, ReadPool
from netutil.agent.collect.results import (
    Allocated,
    Interfaces,
    InterfacesAnswer,
)
from netutil.agent.errors import AgentError
from netutil.agent.facts.claims import NO_CLAIMS, Claims, interface_claims
from netutil.agent.facts.interfaces import PCI_BUS, Interface, merge
from netutil.agent.facts.links import names_parent_devices
from netutil.agent.facts.network import (
    Networks,
    network_characters,
)
from netutil.agent.facts.network_state import MAX_INLINE_LINKS
from netutil.agent.parsers.environment import (
    AllocatedDevice,
)
from netutil.agent.parsers.pci import PciInfo
from netutil.agent.pods.claims import may_refer_to_claims
from netutil.agent.pods.index import Match

T = TypeVar("T")
R = TypeVar("R")
_MAX_KEPT_BYTES = 8 * 1024
"""Of an answer about interfaces: it is copied for each call."""
_MAX_KEPT_CHARACTERS = 4096
"""Of the variables that name devices: those are kept with an answer, at most 96 KiB."""
_KERNEL_RELEASE = os.uname().release


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


class InterfaceCollector:
    """Joins what annotations, the kernel, environments and claims say of interfaces."""

    def __init__(
        self,
        networks: NetworkCollector,
        links: LinkCollector,
        environments: EnvironmentCollector,
        devices: DeviceCollector,
        reads: ReadPool,
        pci: PciCache,
    ) -> None:
        self._networks = networks
        self._links = links
        self._environments = environments
        self._devices = devices
        self._reads = reads
        self._pci = pci

    async def answer_of(
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
        allocated = known or await self._environments.devices(caller, pid)
        if known is None and not pid and not interface:
            found = self.known_answer(caller, answer, allocated)
            if found is not None:
                return found
        networks, network_error = await self._networks.or_error(caller)
        claims = await self._devices.claims(caller, pid)
        live = await self._links.of_process(caller, pid)
        parts = InterfaceParts(networks, network_error, allocated, live, caller.match, claims)
        kept = self._kept_answer(parts, interface, answer)
        if kept is not None:
            return kept
        answers = live.network.answers if live.network is not None else None
        counters = live.network.counters if live.network is not None else {}

        def make() -> tuple[T, R, PciDevices]:
            pci = PciDevices(self._pci)
            made = answer.make(self._merged(parts, interface, pci))
            return made, answer.with_counters(made, counters), pci

        # Not with devices: their files are read.
        size = 0 if _are_few(parts) and not _may_have_devices(parts) else None
        made, counted, pci = await self._reads.run_sized(caller.peer.pod_key, make, size)
        if answers is None or pci.error is not None or not _are_few(parts):
            return counted
        if allocated.characters > _MAX_KEPT_CHARACTERS:
            return counted
        if answer.size_bytes(made) <= _MAX_KEPT_BYTES:
            answers[interface] = _KeptAnswer(parts, pci.found, made)
        return counted

    def known_answer(
        self, caller: Caller, answer: InterfacesAnswer[T, R], allocated: Allocated
    ) -> R | None:
        """Return what `interfaces` does of all those of the calling process itself.

        None where something has to be waited for or made. Raises what `interfaces` raises.
        """
        networks, network_error = None, caller.unavailable
        if caller.match is not None:
            if may_refer_to_claims(caller.match.pod):
                return None
            networks, network_error = self._networks.known(caller.match.pod), None
            if networks is None:
                return None
        live = self._links.own(caller)
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
            not kept.functions or self._pci.held(kept.functions) == kept.functions
        )

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


def _are_few(parts: InterfaceParts) -> bool:
    """Return whether an answer is made of little."""
    allocated, links = parts.allocated, parts.live.links or ()
    claimed = parts.claims.device_count if parts.claims is not NO_CLAIMS else 0
    if max(len(links), len(allocated.af_xdp or ()), claimed) > MAX_INLINE_LINKS:
        return False
    if parts.networks is None or parts.match is None:
        return True
    return network_characters(parts.match.pod.metadata.annotations or {}) <= MAX_INLINE_SIZE
