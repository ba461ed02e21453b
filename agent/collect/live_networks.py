"""The live links of a process, as far as the agent may read its network namespace."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass

from netutil.agent.collect.network_cache import LiveNetwork, NetworkCache
from netutil.agent.collect.pci_cache import PciCache
from netutil.agent.errors import AgentError, FailedPrecondition, Reason, unreadable
from netutil.agent.facts.interfaces import Interface
from netutil.agent.facts.links import Link, network_namespace
from netutil.agent.facts.network import interface_not_found, link_not_listed
from netutil.agent.facts.network_state import Namespace, NamespaceChangedError
from netutil.agent.identity.process import PinnedProcess, process_exited
from netutil.agent.parsers.pci import PciInfo

_WITHOUT_LINKS = (
    Reason.NETWORK_NAMESPACE_CHANGING,
    Reason.NETWORK_NAMESPACE_NOT_READABLE,
    Reason.NETWORK_NAMESPACE_TOO_LARGE,
    Reason.AGENT_OUT_OF_RESOURCES,
)
_MAX_TRIES = 4


@dataclass(frozen=True, slots=True)
class LiveLinks:
    """The links of a process: of its network namespace, none of the node's own, or an error."""

    host_network: bool = False
    network: LiveNetwork | None = None
    error: AgentError | None = None

    @property
    def links(self) -> tuple[Link, ...] | None:
        """Return the links without counters, None where they are not known."""
        if self.network is not None:
            return self.network.state.links
        return () if self.host_network else None


ON_HOST_NETWORK = LiveLinks(host_network=True)


class LiveNetworks:
    """Looks into the network namespaces of processes, and never into the node's own.

    `node` are the node's own network namespaces.
    """

    def __init__(self, cache: NetworkCache, node: Collection[Namespace]) -> None:
        self._cache = cache
        self._node = node

    def current(self, process: PinnedProcess) -> LiveLinks | None:
        """Return the links of a process if they are known as they are now, else None.

        Does not block. Raises as `links`.
        """
        try:
            namespace = _namespace_of(process)
        except AgentError as error:
            return _without_links(error)
        if namespace in self._node:
            return ON_HOST_NETWORK
        network = self._cache.current(process, namespace)
        if network is None:
            return None
        process.ensure_alive()
        return LiveLinks(network=network)

    async def links(
        self, pod_key: str, process: PinnedProcess, holder: PinnedProcess | None
    ) -> LiveLinks:
        """Return the links of a process.

        `holder` is a process of the same pod, which may be the same one: if it is in the same
        namespace, that is held for it. Links that the agent may not or will not read, or that
        change all the time, are an error; the rest stays known. Raises `Unauthenticated` if the
        process has exited.
        """
        try:
            network = await self._network(pod_key, process, holder)
        except AgentError as error:
            return _without_links(error)
        process.ensure_alive()
        return LiveLinks(network=network) if network is not None else ON_HOST_NETWORK

    async def follow(
        self,
        pod_key: str,
        process: PinnedProcess,
        known: Namespace | None,
        on_change: Callable[[], None],
    ) -> Namespace | None:
        """Have `on_change` called on each change in the namespace that a process is in now.

        `known` is the one that was followed before, which is left if it is another. Returns the one
        that is followed, None for the node's own. Raises as the reading of links, and
        `QuotaExceeded` if no more namespaces can be followed: then `known` is followed still.
        """
        for _ in range(_MAX_TRIES):
            namespace = _namespace_of(process)
            if namespace == known and self._cache.is_subscribed(namespace, on_change):
                return namespace
            try:
                if namespace not in self._node:
                    await self._cache.subscribe(pod_key, process, namespace, on_change)
            except NamespaceChangedError:
                continue
            if known is not None and known != namespace:
                self.unfollow(known, on_change)
            return None if namespace in self._node else namespace
        raise _changing()

    def unfollow(self, namespace: Namespace, on_change: Callable[[], None]) -> None:
        """Undo `follow`. Nothing happens if it was undone before."""
        self._cache.unsubscribe(namespace, on_change)

    async def _network(
        self, pod_key: str, process: PinnedProcess, holder: PinnedProcess | None
    ) -> LiveNetwork | None:
        """Return the network, None for the node's own."""
        for _ in range(_MAX_TRIES):
            namespace = _namespace_of(process)
            if namespace in self._node:
                return None
            try:
                if holder is process or (holder and _namespace_of(holder) == namespace):
                    return await self._cache.network(pod_key, holder, namespace)
                return await self._cache.read_once(pod_key, process, namespace)
            except NamespaceChangedError:
                continue
            except (ProcessLookupError, FileNotFoundError):
                raise process_exited(process.pid) from None
        raise _changing()


def _changing() -> FailedPrecondition:
    return FailedPrecondition(
        Reason.NETWORK_NAMESPACE_CHANGING,
        "The process changes its network namespace all the time.",
        read="/proc/<pid>/ns/net",
        advice="Ask again once it has settled in one.",
    )


def _namespace_of(process: PinnedProcess) -> Namespace:
    try:
        return process.through_running_thread(network_namespace)
    except (ProcessLookupError, FileNotFoundError):
        raise process_exited(process.pid) from None


def _without_links(error: AgentError) -> LiveLinks:
    if error.reason not in _WITHOUT_LINKS:
        raise error
    return LiveLinks(error=error.with_traceback(None))


class PciDevices:
    """Looks devices of the host up, and keeps what it `found` by address.

    `error` is why one of them could not be read, None if none.
    """

    def __init__(self, functions: PciCache) -> None:
        self._functions = functions
        self.found: dict[str, PciInfo | None] = {}
        self.error: AgentError | None = None

    def look(self, address: str) -> PciInfo | None:
        """Return the device, None if the host has none. Raises OSError, and keeps it as `error`."""
        try:
            found = self.found[address] = self._functions.look(address)
            return found
        except OSError as error:
            path = os.path.join(self._functions.directory, address)
            self.error = self.error or unreadable(error, path)
            raise


def only(
    name: str,
    found: tuple[Interface, ...],
    *unknown: AgentError | None,
    host_network: bool = False,
) -> tuple[Interface, ...]:
    """Return the interfaces of that name.

    `unknown` are the errors of what could name one as well. Raises the first of them if there is
    no interface of that name: whether it is there is then not known; `NotFound` without them.
    `host_network`: the pod is in the node's network, and its links are not listed.
    """
    wanted = tuple(one for one in found if one.name == name)
    for error in filter(None, unknown):
        if not wanted:
            raise error
    names = [one.name for one in found]
    if not wanted and host_network:
        raise link_not_listed(name, names, "reported networks")
    if not wanted:
        raise interface_not_found(name, names, "reported networks and /proc/<pid>/ns/net")
    return wanted
