"""What the agent's own process uses, by psutil.

The memory of its cgroup, which decides about new connections, is in `memory`: psutil knows no
cgroups. psutil is imported at the first call: it costs the start 13 ms and half a MiB.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """Resources of this process. `cpu_seconds` is user and system time since its start.

    `started_seconds` is the start since the epoch.
    """

    pid: int
    rss_bytes: int
    cpu_seconds: float
    threads: int
    descriptors: int
    started_seconds: float


def own_use() -> ProcessUse:
    """Return what this process uses now. Raises OSError for a shortage of descriptors."""
    import psutil  # noqa: PLC0415

    process = psutil.Process()
    with process.oneshot():
        times = process.cpu_times()
        return ProcessUse(
            pid=process.pid,
            rss_bytes=process.memory_info().rss,
            cpu_seconds=round(times.user + times.system, 2),
            threads=process.num_threads(),
            descriptors=process.num_fds(),
            started_seconds=process.create_time(),
        )


def own_threads() -> int:
    """Return how many threads this process has."""
    import psutil  # noqa: PLC0415

    return psutil.Process().num_threads()


def own_descriptors() -> int:
    """Return how many descriptors this process has open, with the one that counts them."""
    import psutil  # noqa: PLC0415

    return psutil.Process().num_fds()
