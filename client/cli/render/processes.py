"""`--processes`: two readings of the processes of pods as one table. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from netutil.client.cli.render.cells import or_nothing, unknown
from netutil.client.cli.render.node import ago
from netutil.client.cli.render.tables import Table
from netutil.client.cpulist import format_cpulist, parse_cpulist
from netutil.client.models.core import PartError
from netutil.client.models.processes import (
    ExclusiveCPUs,
    NodeProcess,
    NodeThread,
    PodProcesses,
    ProcessReading,
    ReadProcess,
)
from netutil.client.text import NOTHING

_MEBIBYTE = 2**20
_PERCENT = 100.0
_MIN_SECONDS = 0.01
_OWN = "own"


@dataclass(frozen=True, slots=True)
class ExclusiveUse:
    """CPUs that are exclusive to a container ("namespace/pod/container"), as a kernel list."""

    container: str
    cpus: str


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a process or a thread runs, and whose CPUs these are.

    `cpu_exclusive_of` is the container that the CPU is exclusive to, "" for none. `may_use` are
    exclusive CPUs of other containers that it is allowed to run on. Both are None where the
    exclusive CPUs or its own are not known.
    """

    allowed_cpus: str
    cpu: int | None
    cpu_exclusive_of: str | None
    may_use: tuple[ExclusiveUse, ...] | None


@dataclass(frozen=True, slots=True)
class ThreadUse:
    """A thread over an interval. `cpu_percent` is of one CPU, None without an earlier reading."""

    tid: int
    tid_inside: int
    name: str
    state: str
    cpu_percent: float | None
    cpu_seconds: float | None
    placement: Placement
    error: str


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """A process over an interval. `cpu_percent` as of a thread, all threads together."""

    namespace: str
    pod: str
    container: str
    container_id: str
    pid: int
    pid_inside: int
    name: str
    state: str
    thread_count: int
    cpu_percent: float | None
    cpu_seconds: float | None
    rss_bytes: int | None
    started_at: datetime
    placement: Placement
    threads: tuple[ThreadUse, ...]
    error: str


@dataclass(frozen=True, slots=True)
class PodGap:
    """What is missing of a pod."""

    namespace: str
    pod: str
    processes_truncated: bool
    threads_truncated: bool
    errors: tuple[PartError, ...]


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of one or all pods. `errors` are those of no single pod."""

    processes: tuple[ProcessUse, ...]
    gaps: tuple[PodGap, ...]
    exclusive_cpus: ExclusiveCPUs | None
    errors: tuple[PartError, ...]


class _Marks:
    """Whose the CPUs of a process are. Most processes have one of a few lists of CPUs."""

    def __init__(self, exclusive: ExclusiveCPUs | None) -> None:
        self._owners: list[tuple[str, frozenset[int]]] | None = None
        self._of_cpu: dict[int, str] = {}
        self._found: dict[str, tuple[ExclusiveUse, ...] | None] = {}
        if exclusive is None:
            return
        self._owners = [(one.full_name, parse_cpulist(one.cpus)) for one in exclusive.containers]
        self._of_cpu = {cpu: name for name, cpus in self._owners for cpu in cpus}

    def placement(self, own: str, allowed: str, cpu: int | None) -> Placement:
        """Where a process of a container runs."""
        on = None if self._owners is None or cpu is None else self._of_cpu.get(cpu, "")
        every = self._allowed(allowed)
        others = None if every is None else tuple(one for one in every if one.container != own)
        return Placement(allowed, cpu, on, others)

    def _allowed(self, allowed: str) -> tuple[ExclusiveUse, ...] | None:
        if self._owners is None or not allowed:
            return None
        if allowed not in self._found:
            cpus = parse_cpulist(allowed)
            shared = ((name, cpus & exclusive) for name, exclusive in self._owners)
            self._found[allowed] = tuple(
                ExclusiveUse(name, format_cpulist(both)) for name, both in shared if both
            )
        return self._found[allowed]


_ORDERS: dict[str, Callable[[ProcessUse], Any]] = {
    "cpu": lambda one: (-(one.cpu_percent or 0.0), one.namespace, one.pod, one.pid),
    "memory": lambda one: (-(one.rss_bytes or 0), one.namespace, one.pod, one.pid),
    "threads": lambda one: (-one.thread_count, one.namespace, one.pod, one.pid),
    "name": lambda one: (one.namespace, one.pod, one.container, one.pid),
}


def processes(before: ProcessReading | None, now: ProcessReading, order: str) -> Processes:
    """The processes of the later reading, with their use of CPUs between the two.

    A process or thread is the same if its number and its start are.
    """
    earlier = _by_identity(before)
    marks = _Marks(now.exclusive_cpus)
    found = [_use(pod, one, earlier, marks) for pod in now.pods for one in pod.processes]
    return Processes(
        processes=tuple(sorted(found, key=_ORDERS[order])),
        gaps=tuple(_gap(pod) for pod in now.pods if _is_incomplete(pod)),
        exclusive_cpus=now.exclusive_cpus,
        errors=now.errors,
    )


def _is_incomplete(pod: PodProcesses) -> bool:
    return bool(pod.errors or pod.processes_truncated or pod.threads_truncated)


def _gap(pod: PodProcesses) -> PodGap:
    return PodGap(
        pod.namespace, pod.pod, pod.processes_truncated, pod.threads_truncated, pod.errors
    )


_Earlier = Mapping[tuple[int, int], ReadProcess]


def _by_identity(reading: ProcessReading | None) -> _Earlier:
    pods = reading.pods if reading is not None else ()
    return {
        (one.process.pid, one.process.start_ticks): one for pod in pods for one in pod.processes
    }


def _use(pod: PodProcesses, read: ReadProcess, earlier: _Earlier, marks: _Marks) -> ProcessUse:
    one = read.process
    before = earlier.get((one.pid, one.start_ticks))
    own = f"{pod.namespace}/{pod.pod}/{one.container}"
    seconds = read.read_at_seconds - before.read_at_seconds if before else 0.0
    threads_before = {each.tid: each for each in before.process.threads} if before else {}
    return ProcessUse(
        namespace=pod.namespace,
        pod=pod.pod,
        container=one.container,
        container_id=one.container_id,
        pid=one.pid,
        pid_inside=one.pid_inside,
        name=one.name,
        state=one.state,
        thread_count=one.thread_count,
        cpu_percent=_percent(before.process if before else None, one, seconds),
        cpu_seconds=one.cpu_seconds,
        rss_bytes=one.rss_bytes,
        started_at=one.started_at,
        placement=marks.placement(own, one.allowed_cpus, one.cpu),
        threads=tuple(
            ThreadUse(
                tid=each.tid,
                tid_inside=each.tid_inside,
                name=each.name,
                state=each.state,
                cpu_percent=_percent(threads_before.get(each.tid), each, seconds),
                cpu_seconds=each.cpu_seconds,
                placement=marks.placement(own, each.allowed_cpus, each.cpu),
                error=each.error,
            )
            for each in one.threads
        ),
        error=one.error,
    )


def _percent(
    before: NodeProcess | NodeThread | None, now: NodeProcess | NodeThread, seconds: float
) -> float | None:
    """The use of CPUs since the earlier reading, None without one of the same process or thread."""
    if before is None or before.start_ticks != now.start_ticks or seconds < _MIN_SECONDS:
        return None
    if before.cpu_seconds is None or now.cpu_seconds is None:
        return None
    return max(0.0, (now.cpu_seconds - before.cpu_seconds) / seconds * _PERCENT)


def table(
    found: Processes, now: datetime, most_rows: int | None, width: int | None, *, pods: bool
) -> Table:
    """The table, with at most that many rows; fewer columns in a narrow terminal.

    `pods` is whether each row names the pod.
    """
    rows = [row for process in found.processes for row in _rows(process, now)]
    shown = rows[:most_rows]
    headers = tuple(
        header
        for header in _HEADERS
        if (pods or header != "POD") and (width is None or width >= _LEAST_COLUMNS.get(header, 0))
    )
    notes = [
        *([f"not shown: {len(rows) - len(shown)}"] if len(shown) < len(rows) else []),
        *(note for gap in found.gaps for note in _missing(gap)),
        *(note for error in found.errors for note in unknown(error.part, error)),
        *([_NOT_MARKED] if found.exclusive_cpus is None else []),
    ]
    threads = sum(one.thread_count for one in found.processes)
    return Table(
        f"{len(found.processes)} processes with {threads} threads",
        headers,
        tuple(tuple(row[header] for header in headers) for row in shown),
        tuple(notes),
        _NUMERIC,
        _TEXTS,
    )


_HEADERS = (
    *("POD", "CONTAINER", "PID", "INSIDE", "NAME", "STATE", "THREADS", "CPU%", "RSS MiB"),
    *("ALLOWED", "ON CPU", "AGE", "EXCLUSIVE CPUS"),
)
_NUMERIC = frozenset({"INSIDE", "THREADS", "CPU%", "RSS MiB", "ON CPU"})
_TEXTS = frozenset({"POD", "EXCLUSIVE CPUS"})
_LEAST_COLUMNS = {"INSIDE": 110, "STATE": 120, "AGE": 120, "THREADS": 100, "RSS MiB": 100}
"""Columns that a terminal needs for these columns of the table."""
_NOT_MARKED = "which CPUs are exclusive is not known: EXCLUSIVE CPUS is ?"


def _rows(one: ProcessUse, now: datetime) -> Iterator[Mapping[str, str]]:
    container = one.container or f"({one.container_id[:12] or 'pod'})"
    own = f"{one.namespace}/{one.pod}/{one.container}"
    yield {
        "POD": f"{one.namespace}/{one.pod}",
        "CONTAINER": container,
        "PID": str(one.pid),
        "INSIDE": str(one.pid_inside),
        "NAME": one.name,
        "STATE": one.state,
        "THREADS": str(one.thread_count),
        "CPU%": _percents(one.cpu_percent),
        "RSS MiB": NOTHING if one.rss_bytes is None else f"{one.rss_bytes / _MEBIBYTE:.1f}",
        "ALLOWED": one.placement.allowed_cpus or NOTHING,
        "ON CPU": or_nothing(one.placement.cpu),
        "AGE": ago(now, one.started_at),
        "EXCLUSIVE CPUS": one.error or exclusive(one.placement, own),
    }
    for each in one.threads:
        yield {
            "POD": f"{one.namespace}/{one.pod}",
            "CONTAINER": container,
            "PID": f"{one.pid}/{each.tid}",
            "INSIDE": str(each.tid_inside),
            "NAME": each.name,
            "STATE": each.state,
            "THREADS": "",
            "CPU%": _percents(each.cpu_percent),
            "RSS MiB": "",
            "ALLOWED": each.placement.allowed_cpus or NOTHING,
            "ON CPU": or_nothing(each.placement.cpu),
            "AGE": "",
            "EXCLUSIVE CPUS": each.error or exclusive(each.placement, own),
        }


def _percents(percent: float | None) -> str:
    return NOTHING if percent is None else f"{percent:.1f}"


def exclusive(placement: Placement, own: str) -> str:
    """Whose exclusive CPU it is on, and which of other containers it may use; "-" for neither."""
    on = placement.cpu_exclusive_of
    if on is None and placement.may_use is None:
        return "?"
    said: list[str] = []
    if on == own:
        said.append(_OWN)
    elif on:
        said.append(f"ON {placement.cpu} of {on}")
    others: Sequence[ExclusiveUse] = placement.may_use or ()
    if others:
        first = others[0]
        more = f" and of {len(others) - 1} more" if len(others) > 1 else ""
        said.append(f"may use {first.cpus} of {first.container}{more}")
    return ", ".join(said) or NOTHING


def _missing(gap: PodGap) -> Iterator[str]:
    name = f"{gap.namespace}/{gap.pod}"
    if gap.processes_truncated:
        yield f"{name} has more processes than the agent reads"
    if gap.threads_truncated:
        yield f"{name} has more threads than the agent reads"
    for error in gap.errors:
        yield f"{name}: {error.part} not known: {error.message} [{error.reason}]"
