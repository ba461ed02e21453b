"""Reads the environments of callers, of other processes of their pods, and of containers' starts.

Whose environment is for which caller is the kernel's decision, see `identity.ptrace`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from netutil.agent.collect.caller import Caller, CallerResolver
from netutil.agent.collect.read_pool import Ready
from netutil.agent.errors import AgentError, NotFound, Reason, Unavailable
from netutil.agent.identity.cgroup_walk import processes_below
from netutil.agent.identity.first_process import find_first
from netutil.agent.identity.namespaces import outside_pod, shares_pid_namespace
from netutil.agent.identity.peer import Peer, identify_process
from netutil.agent.identity.process import Credentials, PinnedProcess, process_exited
from netutil.agent.identity.ptrace import read_as_caller, read_own
from netutil.agent.limits.descriptors import MAX_FIRST_PROCESSES
from netutil.agent.parsers.cgroup import CgroupIdentity, choose_container
from netutil.agent.recent_cache import RecentCache

T = TypeVar("T")
S = TypeVar("S")
_ENVIRON = "/proc/<pid>/environ"


class EnvironmentReader:
    """Reads environments for callers, and keeps the first process of their containers pinned."""

    def __init__(
        self, callers: CallerResolver, max_first_processes: int = MAX_FIRST_PROCESSES
    ) -> None:
        """`max_first_processes` is of how many containers the first process is kept pinned."""
        self._callers = callers
        self._tree = callers.tree
        self._reads = callers.reads
        # A container's first process stays the same until it ends, and the container with it.
        self.first_processes: RecentCache[str, PinnedProcess] = RecentCache(
            max_first_processes, calls_per_period=3
        )
        """By container ID. Each is closed when it is released."""

    def read(self, caller: Caller, pid: str, read: Callable[[int], T]) -> Ready[T] | Awaitable[T]:
        """Return what `read` makes of a process, if its environment is for the caller.

        Calls of one process for itself share a read; so `read` is to be the same for all of them.
        That of the caller itself is mostly ready at once.
        """
        peer = caller.peer
        if pid and not peer.process.has_number(pid):
            return self._read_another(caller, pid, read)
        work = partial(_read_own, peer.process.share(), peer.credentials, read)
        found = self._reads.begin_brief(peer.pod_key, work, _ENVIRON)
        return self._read_for_all(peer, work) if found is None else found

    async def _read_another(self, caller: Caller, pid: str, read: Callable[[int], T]) -> T:
        target, _ = await self._target(caller, pid)

        def work() -> T:
            try:
                return target.read(read)
            finally:
                target.close()

        answer = await self._reads.run_brief(caller.peer.pod_key, work, target.what)
        # The same number is the same process: both are alive at the end.
        caller.peer.process.ensure_alive()
        return answer

    async def _read_for_all(self, peer: Peer, work: Callable[[], T]) -> T:
        """Return what `work` makes of the calling process, with one read for all waiting calls.

        The read is made with the pin of one connection; a process of the same number that is alive
        afterwards, as the pin of another connection shows it, is still the same.
        """
        joined = self._reads.join(peer.pod_key, peer.credentials, _ENVIRON)
        if joined is not None:
            found: T = await joined
            peer.process.ensure_alive()
            return found
        return await self._reads.run(peer.pod_key, work, _ENVIRON, peer.credentials)

    async def read_both(
        self, caller: Caller, pid: str, read: Callable[[int], T], read_start: Callable[[int], S]
    ) -> tuple[T, S | AgentError | None]:
        """Return what `read` does, and what `read_start` makes of the container's start.

        That is the first process of the container of the process: None where the process is that
        one, and an error where it cannot be read. The rule is that of `read`: what the
        kernel would not let the caller read itself is `PermissionDenied`. The error is `NotFound`
        where the container has no cgroup that the agent can see.
        """
        target, cgroups = await self._target(caller, pid)
        container_id = cgroups.container_id or ""
        known = self.first_processes.get(container_id)
        own: list[T] = []
        first: list[PinnedProcess] = []

        def work() -> S | AgentError | None:
            try:
                own.append(target.read(read))
                first.append(self._first_of(cgroups, known))
                return _read_start(target, first[0], cgroups.container_id, read_start)
            except AgentError as error:
                if not own:
                    raise
                return error.with_traceback(None)  # it is kept, and its frames hold processes
            finally:
                target.close()

        start: S | AgentError | None
        try:
            start = await self._reads.run_brief(caller.peer.pod_key, work, target.what)
        except Unavailable as error:
            if not own:
                raise
            start = error.with_traceback(None)  # it is the first process that cannot be read
        if pid:
            caller.peer.process.ensure_alive()
        if first and first[0] is not known:
            self.first_processes[container_id] = first[0]
        return own[0], start

    async def _target(self, caller: Caller, pid: str) -> tuple[_Target, CgroupIdentity]:
        process, cgroups = await self._callers.process(caller, pid)
        own = process
        if process.pid != caller.peer.process.pid:
            try:
                own = caller.peer.process.share()
            except AgentError:
                process.close()
                raise
        target = _Target(
            own,
            process,
            caller.peer.credentials,
            pid,
            caller.cgroups.container_id,
            cgroups.container_id,
        )
        return target, cgroups

    def _first_of(self, cgroups: CgroupIdentity, known: PinnedProcess | None) -> PinnedProcess:
        """Return a container's first process: `known` while that runs. Blocks.

        No other one can be it: a container ends with its first process. The pin is for the cache.
        """
        if known is not None and known.alive():
            return known
        directory, container_id = self._tree.any_container_directory(cgroups), cgroups.container_id
        if directory is None or container_id is None:
            raise _no_container()
        first = find_first(processes_below(directory))
        try:
            found = identify_process(first, self._tree)
            if found.pod_uid is None:
                found = choose_container(found, [container_id])
        except BaseException:
            first.close()
            raise
        if found.container_id != container_id:
            first.close()
            raise process_exited(first.pid)
        return first


@dataclass(frozen=True, slots=True)
class _Target:
    """The process whose environment is asked for, and the caller whose power it is read with.

    `own` is the caller, and the same object as `process` where it asks for itself. `container_id`
    is the caller's, `target_container_id` that of the process. Used on one thread at a time.
    """

    own: PinnedProcess
    process: PinnedProcess
    credentials: Credentials
    pid: str
    container_id: str | None
    target_container_id: str | None

    @property
    def what(self) -> str:
        return f"/proc/{self.process.pid}/environ"

    def read(self, read: Callable[[int], T]) -> T:
        """Return what `read` makes of the process. Blocks.

        Raises `PermissionDenied`, `Unauthenticated`.
        """
        try:
            if self.own is self.process:
                return read_own(self.own, self.credentials, read)
            return self.read_another(self.process, self.target_container_id, read)
        except ProcessLookupError:
            raise process_exited(self.process.pid) from None

    def read_another(
        self, process: PinnedProcess, container_id: str | None, read: Callable[[int], T]
    ) -> T:
        """Return what `read` makes of another process, which is in the container of that ID."""
        # Processes in the pod's own cgroup are in no container together.
        in_container = container_id is not None and container_id == self.container_id
        if not in_container and not shares_pid_namespace(self.own, process):
            raise outside_pod(int(self.pid))
        return read_as_caller(self.own, self.credentials, process, read)

    def close(self) -> None:
        self.own.close()
        self.process.close()


def _read_start(
    target: _Target,
    first: PinnedProcess,
    container_id: str | None,
    read: Callable[[int], T],
) -> T | None:
    """Return what `read` makes of the first process of the target's container.

    None where it is the target itself: both run, and have one number. Blocks. Raises as
    `EnvironmentReader.read_both`.
    """
    if first.pid == target.process.pid:
        return None
    try:
        return target.read_another(first, container_id, read)
    except ProcessLookupError:
        raise process_exited(first.pid) from None


def _read_own(own: PinnedProcess, credentials: Credentials, read: Callable[[int], T]) -> T:
    """Return what `read` makes of the calling process, and close its pin. Blocks."""
    try:
        return read_own(own, credentials, read)
    except ProcessLookupError:
        raise process_exited(own.pid) from None
    finally:
        own.close()


def _no_container() -> NotFound:
    return NotFound(
        Reason.PID_NOT_FOUND,
        "The process is in no container's cgroup that the agent can see, so the process that"
        " its container was started with is not known.",
        read="/proc/<pid>/cgroup",
    )
