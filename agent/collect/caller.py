"""Resolves the caller of a call: its own container and pod, and its processes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain

from netutil.agent.collect.container_directories import ContainerDirectories
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.collect.unknown_caller import unknown_caller
from netutil.agent.connections.registry import Connection
from netutil.agent.errors import (
    InvalidArgument,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    Reason,
    Unauthenticated,
    Unavailable,
)
from netutil.agent.facts.links import host_network_namespace
from netutil.agent.identity.cgroup_walk import processes_below
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.namespaces import find_process, outside_pod
from netutil.agent.identity.peer import Peer, identify_process, pod_key_of, requester_of
from netutil.agent.identity.process import Credentials, PinnedProcess, process_exited
from netutil.agent.parsers.cgroup import CgroupIdentity, choose_container
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.index import Match
from netutil.agent.pods.model import ContainerStatus
from netutil.agent.pods.sources.base import unavailable

_NEWER_LIST_SECONDS = 2.0
"""How long a process that is not found waits for a pod list that was asked for after the call."""
_MAX_PID = 2**22  # PID_MAX_LIMIT, proc_sys_kernel(5)


@dataclass(frozen=True, slots=True)
class Caller:
    """The identified caller of one call. `match` is None while there is no pod list."""

    peer: Peer
    cgroups: CgroupIdentity
    match: Match | None
    unavailable: Unavailable | None

    def require_match(self) -> Match:
        """Return the pod. Raises the pod source's `Unavailable` if there is none yet."""
        if self.match is None:
            assert self.unavailable is not None  # noqa: S101 - one of both is set
            raise self.unavailable
        return self.match

    def is_itself(self, pid: str) -> bool:
        """Return whether a request's pid is known to be that of the caller, which runs."""
        own = self.peer.process
        return own.has_number(pid) and own.alive()


class CallerResolver:
    """Turns connections into callers, and pids of requests into processes."""

    def __init__(
        self,
        tree: CgroupTree,
        pods: PodDirectory,
        reads: ReadPool,
    ) -> None:
        self.tree = tree
        self._pods = pods
        self.reads = reads
        self.host_namespaces = frozenset(filter(None, (host_network_namespace(),)))
        self.directories = ContainerDirectories(tree, reads)

    def identified(self, connection: Connection) -> Caller | None:
        """Return what `identify` does where nothing has to be waited for, else None.

        That is the rule: the process runs, its cgroup has a pod UID, and a fresh list names its
        container.
        """
        peer = connection.peer
        if peer is None or connection.error is not None:
            return None
        cgroups = peer.cgroups
        if cgroups.pod_uid is None or not peer.process.alive():
            return None
        match = self._pods.named(cgroups.pod_uid, cgroups.container_id)
        return None if match is None else Caller(peer, cgroups, match, None)

    async def identify(
        self, connection: Connection, wait_seconds: float, *, need_container: bool = False
    ) -> Caller:
        """Return the caller of a connection, once the pod list knows it.

        Raises the connection's refusal, `PermissionDenied` for a container or pod that a
        fresh list does not know. If there is no list, a caller whose cgroup
        has a pod UID is proven by that alone and returned without a pod.
        """
        if connection.error is not None:
            raise connection.error.with_traceback(None)  # or each call would add its frames
        if connection.peer is None:
            raise process_exited(0)
        peer = connection.peer
        cgroups = peer.cgroups
        if cgroups.pod_uid is None:
            cgroups = await self.choose(cgroups, wait_seconds)
            self.tree.ensure_made_by_root(cgroups)
        if not peer.process.alive() and not self.tree.has_container(cgroups):
            # A process that still holds the connection is elsewhere, and a pod that is created
            # again may have the same UID (a static one does): it is not the one that connected.
            raise process_exited(peer.process.pid)
        started_at = await self._started_at(peer.pod_key, peer.process, cgroups)
        try:
            match = await self._pods.lookup(
                cgroups.pod_uid,
                cgroups.container_id,
                timeout_seconds=wait_seconds,
                need_container=need_container,
                has_ended=partial(self._has_ended, started_at, cgroups),
            )
        except Unavailable as error:
            if cgroups.pod_uid is None:
                raise
            return Caller(peer, cgroups, None, error)
        if match is None:
            raise unknown_caller(cgroups, self._pods)
        return Caller(peer, cgroups, match, None)

    async def match(
        self, pod_key: str, process: PinnedProcess, cgroups: CgroupIdentity, wait_seconds: float
    ) -> Match:
        """Return the pod list's entry for a process of a pod. Raises as `identify`.

        `pod_key` is what its reads are counted under.
        """
        started_at = await self._started_at(pod_key, process, cgroups)
        match = await self._pods.lookup(
            cgroups.pod_uid,
            cgroups.container_id,
            timeout_seconds=wait_seconds,
            need_container=True,
            has_ended=partial(self._has_ended, started_at, cgroups),
        )
        if match is None:
            raise unknown_caller(cgroups, self._pods)
        return match

    async def _started_at(
        self, pod_key: str, process: PinnedProcess, cgroups: CgroupIdentity
    ) -> datetime | None:
        """Return when a process was started, for `_has_ended`; the earliest time if it has exited.

        None if that cannot be read, or is not needed: the list names its container. The file `stat`
        is not for the event loop, see `collect.environment_cache`.
        """
        listed = self._pods.peek(cgroups.pod_uid, cgroups.container_id)
        if not cgroups.container_id or (listed is not None and listed.container_name):
            return None
        try:
            read = partial(_read_started_at, process.share())
            return await self.reads.run(pod_key, read, "/proc/<pid>/stat")
        except Unauthenticated:
            return datetime.min.replace(tzinfo=UTC)
        except (QuotaExceeded, Unavailable):
            return None

    def _has_ended(
        self, started_at: datetime | None, cgroups: CgroupIdentity, reported: ContainerStatus
    ) -> bool:
        """Return whether the process may be of what a container was started again as.

        Then the container that is reported as running has no process any more, and this process
        is younger than it. The second is for gVisor, which starts the process of a pod before
        its containers, whose own cgroups are empty or not there (google/gvisor#13067).
        """
        if self.tree.runs_beside(cgroups, reported.id):
            return False
        if reported.started_at is None or started_at is None:
            return True
        # The list has whole seconds.
        return started_at >= reported.started_at + timedelta(seconds=1)

    async def choose(self, cgroups: CgroupIdentity, wait_seconds: float) -> CgroupIdentity:
        """Return the identity with the container that the pod list knows.

        For a process of which no cgroup has a pod UID; the owner of the cgroups is still to be
        looked at. Raises `PermissionDenied` if the list knows none, else as `identify`.
        """
        # One time for all: a workload may nest as many directories with such names as it likes.
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_seconds
        known, unknown = [], set[str]()
        for placement in cgroups.placements:
            for container_id, _ in placement.containers:
                if container_id in known:
                    break
                if container_id in unknown:
                    continue
                remaining = max(0.0, until - loop.time())
                if await self._pods.lookup(
                    None, container_id, timeout_seconds=remaining, need_container=True
                ):
                    known.append(container_id)
                    break
                unknown.add(container_id)
        if not known:
            raise unknown_caller(cgroups, self._pods)
        return choose_container(cgroups, known)

    async def process(self, caller: Caller, pid: str) -> tuple[PinnedProcess, CgroupIdentity]:
        """Return a new pin of the process that a request's `pid` names, and its container.

        Raises `InvalidArgument` for what is no pid, `NotFound` for none in the caller's
        view, `PermissionDenied` for one outside of the caller's pod. The caller of this closes it.
        """
        if not pid:
            return caller.peer.process.share(), caller.cgroups
        asked_at = datetime.now(UTC)
        number, own = parse_pid(pid), caller.peer.process
        if number == own.own_number:
            own.ensure_alive()
            return own.share(), caller.cgroups
        container_ids = self._containers_of_pod(caller)
        try:
            return await self._find(caller, number, container_ids)
        except NotFound:
            # Only the pod list says which containers are of this pod, and the one that is asked
            # for may have started since.
            if caller.cgroups.pod_uid is not None or self._is_list_after(asked_at):
                raise
            await self._newer_list()
            newer = self._containers_of_pod(caller)
            if newer <= container_ids:
                raise
        return await self._find(caller, number, newer)

    async def _find(
        self, caller: Caller, number: int, container_ids: frozenset[str]
    ) -> tuple[PinnedProcess, CgroupIdentity]:
        own = caller.peer.process.share()

        def find() -> tuple[PinnedProcess, CgroupIdentity]:
            try:
                directories = self.tree.pod_directories(caller.cgroups, container_ids)
                processes = chain.from_iterable(map(processes_below, directories))
                found = find_process(own, number, processes)
                caller.peer.process.own_number = own.own_number
            finally:
                own.close()
            if found.pid == own.pid:
                return found, caller.cgroups
            try:
                return found, self._in_same_pod(caller, container_ids, found, number)
            except BaseException:
                found.close()
                raise

        return await self.reads.run(caller.peer.pod_key, find, "/proc/<pid>/status")

    def _containers_of_pod(self, caller: Caller) -> frozenset[str]:
        """Return the IDs of the caller's container and of all that the list has in its pod alone.

        The others matter only where the cgroups have no pod UID.
        """
        own = caller.cgroups.container_id
        if caller.cgroups.pod_uid is not None or own is None:
            return frozenset(filter(None, (own,)))
        match = self._pods.peek(None, own) or caller.require_match()
        ids = (status.id for _, status in match.pod.container_statuses if status.id)
        listed = ((one, self._pods.peek(None, one)) for one in ids)
        uid = match.pod.metadata.uid
        return frozenset((own,)).union(
            one for one, found in listed if found and found.pod.metadata.uid == uid
        )

    def _is_list_after(self, time: datetime) -> bool:
        """Return whether the last list was asked for after a time."""
        last = self._pods.last
        return last is not None and last.observed_at >= time

    async def _newer_list(self) -> None:
        """Return once the pod list is as of now. Raises `Unavailable`."""
        try:
            async with asyncio.timeout(_NEWER_LIST_SECONDS):
                await self._pods.refresh()
        except TimeoutError:
            raise unavailable(
                "No fresh pod list came that would say which containers are of the caller's pod.",
                self._pods.describe(),
                "Try again; the agent goes on waiting for the source.",
            ) from None

    def _in_same_pod(
        self,
        caller: Caller,
        container_ids: frozenset[str],
        process: PinnedProcess,
        number: int,
    ) -> CgroupIdentity:
        try:
            found = identify_process(process, self.tree)
            if found.pod_uid is None:
                found = choose_container(found, container_ids)
                self.tree.ensure_made_by_root(found)
                process.ensure_alive()
        except PermissionDenied:
            raise outside_pod(number) from None
        if found.pod_uid is not None and found.pod_uid != caller.cgroups.pod_uid:
            raise outside_pod(number)
        return found


def _read_started_at(own: PinnedProcess) -> datetime:
    """Return when a process was started, and close its pin. Blocks."""
    try:
        return own.started_at()
    finally:
        own.close()


def parse_pid(pid: str) -> int:
    """Return a request's pid. Raises `InvalidArgument` unless it is a positive number."""
    if not (pid.isascii() and pid.isdigit() and len(pid) <= len(str(_MAX_PID))):
        raise _malformed(pid)
    number = int(pid)
    if not 0 < number <= _MAX_PID:
        raise _malformed(pid)
    return number


def _malformed(pid: str) -> InvalidArgument:
    return InvalidArgument(
        Reason.PID_MALFORMED,
        f"{pid[:32]!r} is no process id.",
        read="the request's field pid",
        advice="Send a positive decimal number, or leave it empty for the calling process.",
    )


def connection_of(process: PinnedProcess, tree: CgroupTree) -> Connection:
    """Return the connection that a pinned process would have. Raises as `identify_process`.

    The connection is in no registry; the caller closes the process.
    """
    status = process.status()
    credentials = Credentials(process.pid, status.uids[1], status.gids[1])
    cgroups = identify_process(process, tree)
    peer = Peer(credentials, process, cgroups, pod_key_of(cgroups, tree))
    return Connection(peer.pod_key, peer, None, requester_of(peer))
