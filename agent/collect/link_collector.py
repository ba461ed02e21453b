"""Collects the network links of processes as they are now."""

from __future__ import annotations

from netutil.agent.collect.caller import Caller, CallerResolver
from netutil.agent.collect.live_networks import (
    ON_HOST_NETWORK,
    LiveLinks,
    LiveNetworks,
)
from netutil.agent.collect.pod_lookup import PodLookup


class LinkCollector:
    """Finds the links of callers' network namespaces."""

    def __init__(self, callers: CallerResolver, lookup: PodLookup, live: LiveNetworks) -> None:
        self._callers = callers
        self._lookup = lookup
        self._live = live

    async def of_process(self, caller: Caller, pid: str) -> LiveLinks:
        """Return the links of a process. Waits for nothing if they are known as they are now."""
        if _is_on_host_network(caller):
            await self._lookup.ensure_in_pod(caller, pid)
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

    def own(self, caller: Caller) -> LiveLinks | None:
        """Return the links of the caller itself, None where they are to be waited for."""
        if _is_on_host_network(caller):
            return ON_HOST_NETWORK
        return self._live.current(caller.peer.process)


def _is_on_host_network(caller: Caller) -> bool:
    """Return whether the pod list says that the caller's pod is in the node's network."""
    return caller.match is not None and caller.match.pod.spec.host_network
