"""How many connections the file descriptors of this process are enough for."""

from __future__ import annotations

import logging
import resource

_LOG = logging.getLogger(__name__)

_PER_CONNECTION = 4
"""The socket, the peer's pidfd and its /proc/<pid>, a watched network namespace."""
_RESERVED = 128
"""For what the agent has open anyway, and for reads of /proc and /sys on behalf of callers."""
MAX_HELD_FILES = 4096
"""Descriptors of cgroup files that are held open between calls (`collect.container_cache`).

A container has 8 of its own on cgroup v1 and 5 on v2 where it asks for its CPUs, 20 at the most
where it asks for everything; so this is enough for 200 to 800. Each keeps 4.5 KiB in the kernel
(measured; the buffer of its reads is a page), which count as the agent's memory: 18 MiB."""


def descriptors_for(connections: int) -> int:
    """Return how many file descriptors the agent may have open with that many connections."""
    return connections * _PER_CONNECTION + _RESERVED


def affordable_connections(wanted: int) -> int:
    """Raise the soft limit of descriptors to the hard one; return `wanted`, or less if need be.

    So the limit is enforced at accept, where the client still gets an error, and not by a read on
    behalf of a caller that was admitted.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY or hard >= descriptors_for(wanted):
        return wanted
    affordable = max(1, (hard - _RESERVED) // _PER_CONNECTION)
    _LOG.warning(
        "agent: --max-connections needs %d file descriptors, the limit is %d: at most %d"
        " connections are accepted",
        descriptors_for(wanted),
        hard,
        affordable,
    )
    return affordable


def affordable_held_files(connections: int) -> int:
    """Return how many descriptors cgroup files may take beside that many connections.

    0 if there are none left: then the files are opened for each call. Connections come first,
    since there is nothing else that they could do.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return MAX_HELD_FILES
    return max(0, min(MAX_HELD_FILES, hard - descriptors_for(connections)))
