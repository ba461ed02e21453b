"""The first process of a container.

The process has the number 1 only where the container has a PID namespace of its own, and there a
process that unshares one is number 1 in it too; so the start times decide (proc_pid_stat(5),
starttime). Every other process of a container is started by it or after it: the runtime ends the
container with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from netutil.agent.errors import Reason, ResourceExhausted, Unauthenticated
from netutil.agent.identity.namespaces import MAX_PROCESSES
from netutil.agent.identity.pidfd import pin_pid
from netutil.agent.identity.process import PinnedProcess, process_exited
from netutil.agent.parsers.process import parse_stat


def find_first(pids: Iterable[int]) -> PinnedProcess:
    """Return a new pin of the process that started first of those of a container.

    Of two that started in one clock tick it is the one whose parent is none of them, as the
    runtime is the parent of the first. Blocks: not for the loop. Raises `Unauthenticated` if none
    is left, `ResourceExhausted` for a container of more than `MAX_PROCESSES`. That the process is
    in the container is for the caller of this function to check: the number may have been reused.
    """
    numbers: list[int] = []
    for pid in pids:
        if len(numbers) >= MAX_PROCESSES:
            raise _too_many()
        numbers.append(pid)
    inside = frozenset(numbers)
    best: tuple[int, bool, int] | None = None
    for pid in numbers:
        found = _start(pid)
        if found is None:
            continue
        start_ticks, parent = found
        rank = (start_ticks, parent in inside, pid)
        best = rank if best is None else min(best, rank)
    if best is None:
        raise process_exited(0)
    start_ticks, _, pid = best
    process = _pin_if_started(pid, start_ticks)
    if process is None:
        raise process_exited(pid)
    return process


def _pin_if_started(pid: int, start_ticks: int) -> PinnedProcess | None:
    """Return a new pin of the process that has a number, None if it started at another time."""
    try:
        process = pin_pid(pid)
    except Unauthenticated:
        return None
    try:
        if process.stat().start_ticks == start_ticks:
            return process
    except BaseException:
        process.close()
        raise
    process.close()
    return None


def _start(pid: int) -> tuple[int, int] | None:
    """Return the start time in clock ticks and the parent; None for a process that has exited."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes().decode("utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return parse_stat(text).start_ticks, int(text.rpartition(")")[2].split()[1])


def _too_many() -> ResourceExhausted:
    return ResourceExhausted(
        Reason.TOO_MANY_PROCESSES,
        f"The container has more than {MAX_PROCESSES} processes; which of them it was started"
        " with is not looked for.",
        read="cgroup.procs of the container",
        advice="Ask from a process that still has the container's environment.",
    )
