"""The live half of a pod's interfaces, as far as the agent may look at it."""

from __future__ import annotations

from collections.abc import Collection

from netutil.agent.errors import AgentError, Reason
from netutil.agent.facts.interfaces import Interface
from netutil.agent.facts.link import Link
from netutil.agent.facts.links import network_namespace, read_links
from netutil.agent.facts.network import interface_not_found
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


def only(name: str, found: tuple[Interface, ...]) -> tuple[Interface, ...]:
    """Return the interfaces of that name. Raises `Missing` if there is none."""
    wanted = tuple(one for one in found if one.name == name)
    if not wanted:
        names = [one.name for one in found]
        raise interface_not_found(name, names, "reported networks and /proc/<pid>/ns/net")
    return wanted
