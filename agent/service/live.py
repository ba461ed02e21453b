"""The live half of a pod's interfaces, as far as the agent may look at it."""

from __future__ import annotations

import os
from collections.abc import Collection

from netutil.agent.collect.pci_cache import PciCache
from netutil.agent.errors import AgentError, Reason, unreadable
from netutil.agent.facts.interfaces import Interface
from netutil.agent.facts.link import Link
from netutil.agent.facts.links import network_namespace, read_links
from netutil.agent.facts.network import interface_not_found, link_not_listed
from netutil.agent.facts.pci import PciInfo
from netutil.agent.identity.process import PinnedProcess, gone

_WITHOUT_LINKS = (
    Reason.NETWORK_NAMESPACE_CHANGING,
    Reason.NETWORK_NAMESPACE_NOT_READABLE,
    Reason.NETWORK_NAMESPACE_TOO_LARGE,
    Reason.AGENT_OUT_OF_RESOURCES,
)

Found = tuple[bool, tuple[Link, ...] | None, AgentError | None]
"""Whether it is in the node's network namespace, else its links, and why there are none."""


def links_if_known(
    process: PinnedProcess, node: Collection[tuple[int, int]], *, reported: bool
) -> Found:
    """Return the links of a process, and close it. Blocks: not for the loop.

    Links that the agent may not or will not read, or that change all the time, are None; the rest
    stays known. `node` are the node's own network namespaces, `reported` what the pod's spec says
    of that. Raises `Unidentified` if the process is gone.
    """
    try:
        return *_links(process, node, reported=reported), None
    except AgentError as error:
        if error.reason not in _WITHOUT_LINKS:
            raise
        return False, None, error
    finally:
        process.close()


def _links(
    process: PinnedProcess, node: Collection[tuple[int, int]], *, reported: bool
) -> tuple[bool, tuple[Link, ...]]:
    if reported:
        return True, ()

    def look(thread: int) -> tuple[bool, tuple[Link, ...]]:
        if network_namespace(thread) in node:
            return True, ()
        return False, read_links(thread)

    try:
        found = process.through_running_thread(look)
    except (ProcessLookupError, FileNotFoundError):
        raise gone(process.pid) from None
    process.ensure_alive()
    return found


class PciDevices:
    """Looks devices of the host up. `error` is why one of them could not be read, None if none."""

    def __init__(self, functions: PciCache) -> None:
        self._functions = functions
        self.error: AgentError | None = None

    def look(self, address: str) -> PciInfo | None:
        """Return the device, None if the host has none. Raises OSError, and keeps it as `error`."""
        try:
            return self._functions.look(address)
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
    no interface of that name: whether it is there is then not known; `Missing` without them.
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
