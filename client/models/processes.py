"""The processes of pods, as the operator socket lists them.

Fields have the names of node.proto, which says what each means.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from netutil.client.models.core import PartError


@dataclass(frozen=True, slots=True)
class ExclusiveContainer:
    """A container with CPUs of its own, and these CPUs as a kernel list."""

    namespace: str
    pod: str
    container: str
    cpus: str

    @property
    def full_name(self) -> str:
        """Namespace, pod and container, separated by slashes."""
        return f"{self.namespace}/{self.pod}/{self.container}"


@dataclass(frozen=True, slots=True)
class ExclusiveCPUs:
    """All containers of the node that have CPUs of their own."""

    containers: tuple[ExclusiveContainer, ...]


@dataclass(frozen=True, slots=True)
class NodeThread:
    """A thread of a process. `tid` and `start_ticks` together are never another thread's."""

    tid: int
    tid_inside: int
    name: str
    state: str
    allowed_cpus: str
    cpu: int | None
    cpu_seconds: float | None
    start_ticks: int
    error: str


@dataclass(frozen=True, slots=True)
class NodeProcess:
    """A process of a pod. `pid` and `start_ticks` together are never another process's.

    `error` says what could not be read, and why.
    """

    pid: int
    pid_inside: int
    name: str
    state: str
    container: str
    container_id: str
    thread_count: int
    allowed_cpus: str
    cpu: int | None
    cpu_seconds: float | None
    rss_bytes: int | None
    started_at: datetime
    start_ticks: int
    threads: tuple[NodeThread, ...]
    error: str


@dataclass(frozen=True, slots=True)
class ProcessesPart:
    """One message of the list: a part of the processes of one pod."""

    namespace: str
    pod: str
    processes: tuple[NodeProcess, ...]
    read_at_seconds: float
    exclusive_cpus: ExclusiveCPUs | None
    errors: tuple[PartError, ...]
    processes_truncated: bool
    threads_truncated: bool


@dataclass(frozen=True, slots=True)
class ReadProcess:
    """A process, and when it was read, by a clock that is never set."""

    process: NodeProcess
    read_at_seconds: float


@dataclass(frozen=True, slots=True)
class PodProcesses:
    """The processes of one pod. What is truncated: the pod has more than the agent reads."""

    namespace: str
    pod: str
    processes: tuple[ReadProcess, ...] = ()
    processes_truncated: bool = False
    threads_truncated: bool = False
    errors: tuple[PartError, ...] = ()


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """One whole list, by namespace and name of the pods.

    `exclusive_cpus` is None where they are not known; `errors` then says why.
    """

    pods: tuple[PodProcesses, ...]
    exclusive_cpus: ExclusiveCPUs | None
    errors: tuple[PartError, ...]


@dataclass(slots=True)
class _Pod:
    """A pod that is being put together: processes by PID and start, in the order of the list."""

    processes: dict[tuple[int, int], tuple[ReadProcess, list[NodeThread]]] = field(
        default_factory=dict
    )
    processes_truncated: bool = False
    threads_truncated: bool = False
    errors: list[PartError] = field(default_factory=list)

    def add(self, part: ProcessesPart) -> None:
        for one in part.processes:
            key = one.pid, one.start_ticks
            _, threads = self.processes.setdefault(
                key, (ReadProcess(replace(one, threads=()), part.read_at_seconds), [])
            )
            threads.extend(one.threads)
        self.processes_truncated |= part.processes_truncated
        self.threads_truncated |= part.threads_truncated
        self.errors.extend(part.errors)

    def whole(self, namespace: str, name: str) -> PodProcesses:
        return PodProcesses(
            namespace,
            name,
            tuple(
                replace(read, process=replace(read.process, threads=tuple(threads)))
                for read, threads in self.processes.values()
            ),
            self.processes_truncated,
            self.threads_truncated,
            tuple(self.errors),
        )


class ProcessesMerger:
    """Puts the messages of one list together."""

    def __init__(self) -> None:
        self._pods: dict[tuple[str, str], _Pod] = {}
        self._exclusive_cpus: ExclusiveCPUs | None = None
        self._errors: list[PartError] = []

    def add(self, part: ProcessesPart) -> None:
        """Take the next message."""
        if not part.pod:
            self._exclusive_cpus = part.exclusive_cpus
            self._errors.extend(part.errors)
            return
        self._pods.setdefault((part.namespace, part.pod), _Pod()).add(part)

    def reading(self) -> ProcessReading:
        """All that was taken."""
        pods = tuple(pod.whole(*name) for name, pod in self._pods.items())
        return ProcessReading(pods, self._exclusive_cpus, tuple(self._errors))
