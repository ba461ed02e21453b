"""Collects the networks of pods as their annotations report them."""

from __future__ import annotations

from functools import partial

from netutil.agent.collect.caller import Caller
from netutil.agent.collect.link_collector import LinkCollector
from netutil.agent.collect.pod_lookup import PodLookup
from netutil.agent.collect.pod_networks import ensure_networks_understood, networks_of
from netutil.agent.collect.read_pool import MAX_INLINE_SIZE, ReadPool
from netutil.agent.errors import AgentError, NotFound
from netutil.agent.facts.network import (
    Networks,
    network_characters,
    of_interface,
)
from netutil.agent.pods.model import Pod
from netutil.agent.recent_cache import RecentCache

_PODS_REMEMBERED = 512


class NetworkCollector:
    """Reads the reported networks of pods, once for each entry of the pod list."""

    def __init__(self, lookup: PodLookup, links: LinkCollector, reads: ReadPool) -> None:
        self._lookup = lookup
        self._links = links
        self._reads = reads
        # Worked out once for each list that the pod came in: another list has other objects.
        self.reported: RecentCache[str, tuple[Pod, Networks]] = RecentCache(_PODS_REMEMBERED)
        """The networks of pods as their annotations report them, by pod UID."""

    async def of_process(self, caller: Caller, pid: str, interface: str = "") -> Networks:
        """Return the networks that are reported of the caller's pod, all or those of an interface.

        Raises `NotFound` if none of that interface is reported, and instead of it the error of an
        annotation that may name one and is not understood. The live links are looked at only if
        a name is requested that they may have to resolve.
        """
        await self._lookup.ensure_in_pod(caller, pid)
        networks = await self._reported(caller)
        reported = caller.require_match().pod.spec.host_network
        if not interface or networks.are_named:
            return of_interface(networks, interface, host_network=reported)
        live = await self._links.of_process(caller, pid)

        def work() -> Networks:
            links, host_network = live.links or (), live.host_network
            try:
                return of_interface(networks, interface, links, host_network=host_network)
            except NotFound as error:
                raise live.error or error from None

        return await self._reads.run_sized(caller.peer.pod_key, work, len(live.links or ()))

    async def or_error(self, caller: Caller) -> tuple[Networks | None, AgentError | None]:
        """Return the networks, or why they are not known: no pod list, a broken annotation."""
        if caller.match is None:
            return None, caller.unavailable
        try:
            return await self._reported(caller), None
        except AgentError as error:
            return None, error.with_traceback(None)  # its frames hold the annotation

    def known(self, pod: Pod) -> Networks | None:
        """Return the networks of a pod if they were worked out for this entry of its list."""
        kept, networks = self.reported.get(pod.metadata.uid) or (None, None)
        return networks if kept is pod else None

    async def _reported(self, caller: Caller) -> Networks:
        """Return the networks of the caller's pod as its annotations report them."""
        pod = caller.require_match().pod
        known = self.known(pod)
        if known is not None:
            return known
        ensure_networks_understood(pod)
        annotations = pod.metadata.annotations or {}
        size = network_characters(annotations)
        networks = await self._reads.run_sized(caller.peer.pod_key, partial(networks_of, pod), size)
        if size <= MAX_INLINE_SIZE:
            self.reported[pod.metadata.uid] = (pod, networks)
        return networks
