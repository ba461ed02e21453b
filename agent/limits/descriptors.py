"""Numbers of connections, namespaces and files that RLIMIT_NOFILE allows."""

from __future__ import annotations

import logging
import resource

_LOG = logging.getLogger(__name__)

_PER_CONNECTION = 3
"""The socket, the peer's pidfd and its /proc/<pid>."""
_PER_NAMESPACE = 8
"""Four that are held of a network namespace, and a pidfd and /proc/<pid> of each of the processes
that hold it (`collect.network_cache.MAX_HOLDERS`)."""
_NAMESPACES_SHARE = 4
"""Namespaces have a quarter of the descriptors at most."""
_PER_HELD_CGROUP = 2
"""The directory and a file in it (`identity.held_cgroups`)."""
_HELD_CGROUPS_SHARE = 4
"""Held cgroups have a quarter, at most, of what connections and namespaces leave."""
MAX_FIRST_PROCESSES = 512
"""Containers whose first process is kept pinned (`collect.environment_reader`)."""
_PER_FIRST_PROCESS = 2
"""The pidfd and its /proc/<pid>."""
_FIRST_PROCESSES_SHARE = 8
"""The first processes have an eighth, at most, of what is left beside the held cgroups."""
_MIN_FIRST_PROCESSES = 2
_RESERVED = 128
"""For what the agent has open anyway, and for reads of /proc and /sys on behalf of callers."""
MAX_HELD_FILES = 4096
"""Descriptors of cgroup files that are held open between calls (`collect.container_cache`).

A container has 8 of its own on cgroup v1 and 5 on v2 where it asks for its CPUs, at most 20
where it asks for everything; so this is enough for 200 to 800. Each keeps 4.5 KiB in the kernel
(measured; the buffer of its reads is a page), which count as the agent's memory: 18 MiB."""


def descriptors_for(connections: int, namespaces: int) -> int:
    """Return how many file descriptors the agent may have open.

    With that many connections, and network namespaces that are held.
    """
    return connections * _PER_CONNECTION + namespaces * _PER_NAMESPACE + _RESERVED


def affordable_namespaces(wanted: int) -> int:
    """Return how many network namespaces may be held: `wanted`, or less if need be, one at least.

    The others are read whenever they are asked for.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, hard // _NAMESPACES_SHARE // _PER_NAMESPACE))


def affordable_connections(wanted: int, namespaces: int) -> int:
    """Raise the soft limit of descriptors to the hard one; return `wanted`, or less if need be.

    `namespaces` is how many network namespaces may be held beside them.

    So the limit is enforced at accept, where the client still gets an error, and not by a read on
    behalf of a caller that was admitted.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY or hard >= descriptors_for(wanted, namespaces):
        return wanted
    affordable = max(1, (hard - descriptors_for(0, namespaces)) // _PER_CONNECTION)
    _LOG.warning(
        "agent: --max-connections needs %d file descriptors, the limit is %d: at most %d"
        " connections are accepted",
        descriptors_for(wanted, namespaces),
        hard,
        affordable,
    )
    return affordable


def affordable_held_cgroups(wanted: int, connections: int, namespaces: int) -> int:
    """Return how many cgroups may be held beside connections and namespaces.

    `wanted`, or less if need be. For the others paths are walked.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return wanted
    left = max(0, hard - descriptors_for(connections, namespaces))
    return min(wanted, left // _HELD_CGROUPS_SHARE // _PER_HELD_CGROUP)


def affordable_first_processes(connections: int, namespaces: int, cgroups: int) -> int:
    """Return of how many containers the first process may be kept pinned, two at least.

    That is beside connections, network namespaces and cgroups that are held. For the others the
    processes of the container are searched.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return MAX_FIRST_PROCESSES
    left = hard - descriptors_for(connections, namespaces) - cgroups * _PER_HELD_CGROUP
    affordable = left // _FIRST_PROCESSES_SHARE // _PER_FIRST_PROCESS
    return max(_MIN_FIRST_PROCESSES, min(MAX_FIRST_PROCESSES, affordable))


def affordable_held_files(connections: int, namespaces: int, cgroups: int, processes: int) -> int:
    """Return how many descriptors cgroup files may take beside all else.

    That is beside connections, network namespaces, cgroups and first processes that are held.

    0 if there are none left: then the files are opened for each call. Connections come first,
    since there is nothing else that they could do.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return MAX_HELD_FILES
    others = descriptors_for(connections, namespaces) + cgroups * _PER_HELD_CGROUP
    return max(0, min(MAX_HELD_FILES, hard - others - processes * _PER_FIRST_PROCESS))
