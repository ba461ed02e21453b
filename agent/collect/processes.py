"""The processes of containers and their threads, for the operator. Never arguments or environment.

psutil reads what is of a process, and guards against a reused PID: its `Process` is the PID with
the start time. Two things are read here instead:

- What psutil takes from the status file, since psutil also finds a field in the line of the name,
  which the process chooses ("Threads:\\t99").
- Threads. psutil reads all threads of a process at once, without their names and CPUs, and for a
  thread's number /proc/<tid>/stat counts the time of the whole process (`do_task_stat` in the
  kernel's fs/proc/array.c). A thread is read through its directory in /proc/<pid>/task, which is
  never another thread's.

`Process.name()` is not called: for a long name it reads the arguments. Nothing here takes the
memory lock of a process, which a workload can hold. Everything blocks: not for the loop.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from netutil.agent.facts.affinity import affinity_of
from netutil.agent.identity.process import read_file
from netutil.agent.parsers.cpulist import format_cpu_list
from netutil.agent.parsers.process import (
    TaskStatus,
    TaskUse,
    parse_stat,
    parse_task_status,
    parse_task_use,
)

if TYPE_CHECKING:
    import psutil

SLICE_ROWS = 128
"""Processes and threads that are read in one go: some ten milliseconds."""
SLICE_CPU_LIST_CHARACTERS = 64 * 1024
"""A list of many single CPUs is long, and every thread may have its own."""
MAX_CGROUPS = 4096
"""Cgroups of a container that are looked through: a workload may make as many as it likes."""
MAX_DESCRIPTORS = 10_000
"""Of a process, counted: a workload may open a million, and each one is an entry to read."""
_NO_PROCESSES = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP)
"""Of a cgroup that went away, and of a threaded one of cgroup v2, whose processes the nearest
domain above it lists."""
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_ZOMBIE = "zombie"
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "disk-sleep",
    "T": "stopped",
    "t": "tracing-stop",
    "Z": _ZOMBIE,
    "X": "dead",
    "I": "idle",
    "P": "parked",
}
"""As psutil calls them (`psutil.STATUS_…`)."""
_DENIED = "the kernel denies the agent a part of it"
_FACTS = ("cpu_affinity", "cpu_num", "cpu_times", "memory_info", "status")


@dataclass(frozen=True, slots=True)
class ThreadFacts:
    """One thread. `number` is the host's, `number_inside` that of the innermost PID namespace.

    `cpu_seconds` is its user and system time, `start_ticks` its start in clock ticks since the
    start of the node. `cpu` is the CPU that it runs on or ran on last. `allowed_cpus` is a kernel
    list, None where the kernel denies it.
    """

    number: int
    number_inside: int
    name: str
    state: str
    allowed_cpus: str | None
    cpu: int
    cpu_seconds: float
    start_ticks: int

    @property
    def error(self) -> str:
        """Return why a part is not known, "" if all is."""
        return _DENIED if self.allowed_cpus is None else ""


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """One process: `allowed_cpus`, `cpu` and `state` are its first thread's.

    `cpu_seconds` is of all its threads. `rss_bytes` is None for a zombie. None means not known
    otherwise, and `error` says why. `started_seconds` is the start since the epoch, to the second.
    `threads` are those read in this slice. `descriptors` are counted by `read_process` alone, up to
    `MAX_DESCRIPTORS`.
    """

    number: int
    number_inside: int
    name: str
    state: str
    thread_count: int
    allowed_cpus: str | None
    cpu: int | None
    cpu_seconds: float | None
    rss_bytes: int | None
    started_seconds: float
    start_ticks: int
    threads: tuple[ThreadFacts, ...] = ()
    descriptors: int | None = None

    @property
    def error(self) -> str:
        """Return why a part is not known, "" if all is that such a process has."""
        known = (self.allowed_cpus, self.cpu, self.cpu_seconds, self.rss_bytes)
        return _DENIED if None in known and self.state != _ZOMBIE else ""


@dataclass(slots=True)
class Quota:
    """How many processes and threads may still be read; `read_cgroup` takes from it."""

    processes: int
    threads: int
    processes_truncated: bool = False
    threads_truncated: bool = False
    hidden: int = 0
    """Processes that have no number in the agent's PID namespace."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Processes that were read together.

    `read_at_seconds` is of CLOCK_MONOTONIC. `cost_seconds` is the CPU time of the read.
    """

    processes: tuple[ProcessFacts, ...]
    read_at_seconds: float
    cost_seconds: float


def read_cgroup(
    directory: str,
    quota: Quota,
    *,
    with_threads: bool,
    boot_seconds: float,
    skips: Callable[[str], bool] = lambda name: False,
) -> Iterator[Slice]:
    """Yield the processes of a cgroup and all below it, as they are when they are read.

    `boot_seconds` is when the node started, since the epoch. `skips` says of the name of a cgroup
    below whether it is left out, with all below it. What is beyond the quota is not read,
    and the quota says that there is more. A process with many threads is in several slices, each
    with the next ones of its threads. Raises OSError for a shortage, and for a file that cannot be
    read.
    """
    rows: list[ProcessFacts] = []
    began, cpu_before, size, characters = time.monotonic(), time.thread_time(), 0, 0
    for process in _members(directory, quota, skips):
        for one in _read_process(process, quota, with_threads, boot_seconds):
            rows.append(one)
            size += len(one.threads) + 1
            characters += _characters(one) + sum(map(_characters, one.threads))
            if size >= SLICE_ROWS or characters >= SLICE_CPU_LIST_CHARACTERS:
                yield Slice(tuple(rows), began, time.thread_time() - cpu_before)
                rows = []
                # Maybe on another thread than before.
                began, cpu_before, size, characters = time.monotonic(), time.thread_time(), 0, 0
    if rows:
        yield Slice(tuple(rows), began, time.thread_time() - cpu_before)


def read_process(number: int) -> ProcessFacts | None:
    """Return the facts of one process without its threads, None if it has ended.

    `number` is the host's. Raises OSError for a shortage.
    """
    import psutil  # noqa: PLC0415

    try:
        process = psutil.Process(number)
    except psutil.NoSuchProcess:
        return None
    descriptors = _count_descriptors(number)
    found = _process(process, boot_seconds())  # last: it shows that the number is still its own
    return None if found is None else replace(found, descriptors=descriptors)


def boot_seconds() -> float:
    """Return when the node started, in seconds since the epoch (`btime` in /proc/stat)."""
    import psutil  # noqa: PLC0415  only an operator's call needs it

    return psutil.boot_time()


def _characters(one: ProcessFacts | ThreadFacts) -> int:
    return len(one.allowed_cpus or "")


def _members(directory: str, quota: Quota, skips: Callable[[str], bool]) -> list[psutil.Process]:
    """Return the processes of a cgroup, without those that have ended.

    A number is listed, then its process is identified, then the number is listed again: so the
    process that is identified is the cgroup's.
    """
    import psutil  # noqa: PLC0415

    found: dict[int, psutil.Process] = {}
    for number in _numbers_below(directory, quota, skips):
        if number in found:  # it was moved from one cgroup to another
            continue
        if number == 0:
            quota.hidden += 1
            continue
        if quota.processes <= 0:
            quota.processes_truncated = True
            break
        quota.processes -= 1
        try:
            found[number] = psutil.Process(number)
        except psutil.NoSuchProcess:
            continue
    listed: set[int] = set()
    for number in _numbers_below(directory, quota, skips):
        if number in found:
            listed.add(number)
        if len(listed) == len(found):
            break
    return [process for number, process in found.items() if number in listed]


def _numbers_below(directory: str, quota: Quota, skips: Callable[[str], bool]) -> Iterator[int]:
    """Yield the host pids in a cgroup and those below it (cgroup.procs), as they are now.

    Of at most `MAX_CGROUPS` cgroups, with paths that the kernel takes: the quota says that there
    are more. Raises OSError for what cannot be read.
    """
    waiting, found = deque([directory]), 1
    while waiting:
        folder = waiting.popleft()
        try:
            with open(f"{folder}/cgroup.procs", encoding="ascii") as numbers:
                yield from map(int, numbers)
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False) or skips(entry.name):
                        continue
                    if found == MAX_CGROUPS:
                        quota.processes_truncated = True
                        break
                    found += 1
                    waiting.append(entry.path)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # a workload may nest cgroups past PATH_MAX
                quota.processes_truncated = True
            elif error.errno not in _NO_PROCESSES:
                raise


def _read_process(
    process: psutil.Process, quota: Quota, with_threads: bool, boot: float
) -> Iterator[ProcessFacts]:
    """Yield a process, with threads in pieces of at most a slice; nothing if it has ended."""
    found = _process(process, boot)
    if found is None:
        return
    if not with_threads or (found.state == _ZOMBIE and found.thread_count <= 1):
        yield found
        return
    for threads in _pieces(process.pid, _thread_numbers(process.pid, quota)):
        if not _is_same(process):
            return
        yield replace(found, threads=threads)


def _pieces(pid: int, numbers: list[int]) -> Iterator[tuple[ThreadFacts, ...]]:
    """Yield the threads of a process in pieces of a slice at most; one empty piece for none."""
    piece: list[ThreadFacts] = []
    characters, is_first = 0, True
    for number in numbers:
        one = _thread(pid, number)
        if one is None:
            continue
        piece.append(one)
        characters += _characters(one)
        if len(piece) == SLICE_ROWS or characters >= SLICE_CPU_LIST_CHARACTERS:
            yield tuple(piece)
            piece = []
            characters, is_first = 0, False
    if piece or is_first:
        yield tuple(piece)


def _is_same(process: psutil.Process) -> bool:
    """Return whether a process still runs: whether its number is not another's by now.

    `Process.is_running` also notes a reused number in a set that nothing here would empty.
    """
    import psutil  # noqa: PLC0415

    try:
        return psutil.Process(process.pid) == process
    except psutil.NoSuchProcess:
        return False


def _process(process: psutil.Process, boot: float) -> ProcessFacts | None:
    """Return the facts of a process without threads, None if it has ended."""
    import psutil  # noqa: PLC0415

    number = process.pid
    try:
        status = _status(Path(f"/proc/{number}/status").read_bytes())
        start_ticks = parse_stat(_text(Path(f"/proc/{number}/stat").read_bytes())).start_ticks
        found = process.as_dict(_FACTS)  # None for what is denied, and for a zombie's memory
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return None
    if not _is_same(process):
        return None
    times, memory, cpus = found["cpu_times"], found["memory_info"], found["cpu_affinity"]
    state = found["status"]
    return ProcessFacts(
        number=number,
        number_inside=status.number_inside,
        name=status.name,
        state=state or "",
        thread_count=status.threads,
        allowed_cpus=None if cpus is None else format_cpu_list(cpus),
        cpu=found["cpu_num"],
        cpu_seconds=None if times is None else round(times.user + times.system, 2),
        rss_bytes=None if memory is None or state == _ZOMBIE else memory.rss,
        started_seconds=boot + start_ticks / _TICKS_PER_SECOND,
        start_ticks=start_ticks,
    )


def _thread_numbers(pid: int, quota: Quota) -> list[int]:
    """Return the threads of a process in rising order, as many as the quota allows."""
    try:
        with os.scandir(f"/proc/{pid}/task") as entries:
            names = [entry.name for entry in islice(entries, quota.threads + 1)]
    except (FileNotFoundError, ProcessLookupError):
        return []
    if len(names) > quota.threads:
        quota.threads_truncated = True
        names.pop()
    quota.threads -= len(names)
    return [int(name) for name in names]


def _thread(pid: int, number: int) -> ThreadFacts | None:
    """Return a thread, None if it has ended: then its directory cannot be read any more."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        directory = os.open(f"/proc/{pid}/task/{number}", flags)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        status = _status(read_file(directory, "status"))
        cpus = _affinity(number)
        use = _use(read_file(directory, "stat"))  # last: it shows that the number is still its own
    except (FileNotFoundError, ProcessLookupError):
        return None
    finally:
        os.close(directory)
    return ThreadFacts(
        number=number,
        number_inside=status.number_inside,
        name=status.name,
        state=_STATES.get(use.state, use.state),
        allowed_cpus=cpus,
        cpu=use.cpu,
        cpu_seconds=use.cpu_ticks / _TICKS_PER_SECOND,
        start_ticks=use.start_ticks,
    )


def _count_descriptors(pid: int) -> int | None:
    """Return how many descriptors a process has, None if it has ended or the kernel denies that.

    `psutil.Process.num_fds` counts without a bound.
    """
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            return sum(1 for _ in islice(entries, MAX_DESCRIPTORS))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def _affinity(number: int) -> str | None:
    try:
        return affinity_of(number)
    except PermissionError:
        return None


def _status(text: bytes) -> TaskStatus:
    return parse_task_status(_text(text))


def _use(text: bytes) -> TaskUse:
    return parse_task_use(_text(text))


def _text(text: bytes) -> str:
    return text.decode("utf-8", errors="replace")
