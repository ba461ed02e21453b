"""Who a call is from, and what that caller may have: its own container and pod, nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar

from netutil.agent.door.table import Connection
from netutil.agent.errors import AgentError, Denied, Invalid, Reason, Unavailable, Unidentified
from netutil.agent.facts.cpu import CpuDirectories
from netutil.agent.facts.hugepages import HugetlbDirectory
from netutil.agent.facts.links import host_network_namespace
from netutil.agent.identity.access import ensure_same_ids, read_as_caller
from netutil.agent.identity.cgroups import UNIFIED, CgroupTree, containers_below, processes_below
from netutil.agent.identity.namespaces import find_process, outside_pod, shares_pid_namespace
from netutil.agent.identity.peer import Peer, identify_process
from netutil.agent.identity.process import Credentials, PinnedProcess, gone
from netutil.agent.parsers.cgroup import CgroupIdentity, choose_container
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.index import Match
from netutil.agent.pods.model import ContainerStatus
from netutil.agent.service.reads import ReadPool

T = TypeVar("T")
LONGEST_WAIT_SECONDS = 5.0
_LARGEST_PID = 2**22  # PID_MAX_LIMIT, proc_sys_kernel(5)


@dataclass(frozen=True, slots=True)
class Caller:
    """The identified caller of one call. `match` is None while no pod list can be had."""

    peer: Peer
    cgroups: CgroupIdentity
    match: Match | None
    unavailable: Unavailable | None

    @property
    def known(self) -> Match:
        """Return the pod. Raises the pod source's `Unavailable` if there is none yet."""
        if self.match is None:
            assert self.unavailable is not None  # noqa: S101 - one of both is set
            raise self.unavailable
        return self.match


class Callers:
    """Turns connections into callers, and pids of requests into processes.

    `walks` counts how often all cgroups of the node were walked, which only operators have done.
    """

    def __init__(self, tree: CgroupTree, pods: PodDirectory, reads: ReadPool) -> None:
        self._tree = tree
        self._pods = pods
        self._reads = reads
        self.host_namespaces = frozenset(filter(None, (host_network_namespace(),)))
        self.walks = 0

    async def identify(
        self, connection: Connection, wait_seconds: float, *, need_container: bool = False
    ) -> Caller:
        """Return the caller of a connection, once the pod list knows it.

        Raises the connection's refusal, `Denied` for a container or pod that a
        fresh list does not know. If no list can be had, a caller whose cgroup
        bears a pod UID is proven by that alone and returned without a pod.
        """
        if connection.refusal is not None:
            raise connection.refusal.with_traceback(None)  # or each call would add its frames
        if connection.peer is None:
            raise gone(0)
        peer = connection.peer
        cgroups = peer.cgroups
        if cgroups.pod_uid is None:
            cgroups = await self.choose(cgroups, wait_seconds)
            self._tree.ensure_made_by_root(cgroups)
        if not peer.process.alive() and not self._tree.has_container(cgroups):
            # Whoever still holds the connection is elsewhere, and a pod that is made anew
            # may bear the same UID (a static one does): it is not the one that connected.
            raise gone(peer.process.pid)
        try:
            match = await self._pods.lookup(
                cgroups.pod_uid,
                cgroups.container_id,
                timeout_seconds=wait_seconds,
                need_container=need_container,
                has_ended=partial(self._has_ended, peer.process, cgroups),
            )
        except Unavailable as error:
            if cgroups.pod_uid is None:
                raise
            return Caller(peer, cgroups, None, error)
        if match is None:
            raise _unknown(cgroups)
        return Caller(peer, cgroups, match, None)

    async def match(
        self, process: PinnedProcess, cgroups: CgroupIdentity, wait_seconds: float
    ) -> Match:
        """Return the pod list's entry for a process of the caller's pod. Raises as `identify`."""
        match = await self._pods.lookup(
            cgroups.pod_uid,
            cgroups.container_id,
            timeout_seconds=wait_seconds,
            need_container=True,
            has_ended=partial(self._has_ended, process, cgroups),
        )
        if match is None:
            raise _unknown(cgroups)
        return match

    def _has_ended(
        self, process: PinnedProcess, cgroups: CgroupIdentity, reported: ContainerStatus
    ) -> bool:
        """Return whether the process may be of what a container was started again as.

        Then the container that is reported as running has no process any more, and this process
        is younger than it. The second is for gVisor, which starts the process of a pod before
        its containers, whose own cgroups are empty or not there (google/gvisor#13067).
        """
        if self._tree.runs_beside(cgroups, reported.id):
            return False
        if reported.started_at is None:
            return True
        try:
            # The list has whole seconds.
            return process.started_at() - timedelta(seconds=1) >= reported.started_at
        except Unidentified:
            return False

    async def choose(self, cgroups: CgroupIdentity, wait_seconds: float) -> CgroupIdentity:
        """Return the identity with the container that the pod list knows.

        For a process of which no cgroup bears a pod UID; who made the cgroups is still to be
        looked at. Raises `Denied` if the list knows none, else as `identify`.
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
            raise _unknown(cgroups)
        return choose_container(cgroups, known)

    def cpu_directories(self, cgroups: CgroupIdentity) -> CpuDirectories | None:
        """Return where the container's CPU files stand, None where it has no cpuset hierarchy."""
        for controller in ("cpuset", UNIFIED):
            directory = self._tree.container_directory(cgroups, controller)
            if directory is not None:
                hierarchy = self._tree.hierarchies[controller]
                cpu = self._tree.container_directory(cgroups, controller and "cpu")
                return CpuDirectories(hierarchy.version, directory, hierarchy.directory, cpu)
        return None

    def hugetlb_directory(self, cgroups: CgroupIdentity) -> HugetlbDirectory | None:
        """Return where the container's hugetlb files stand, None where it has no such hierarchy."""
        for controller in ("hugetlb", UNIFIED):
            directory = self._tree.container_directory(cgroups, controller)
            if directory is not None:
                return HugetlbDirectory(self._tree.hierarchies[controller].version, directory)
        return None

    def watched_directories(self, cgroups: CgroupIdentity) -> tuple[str, ...]:
        """Return the directories whose files say what of CPUs and huge pages is granted."""
        cpu, hugetlb = self.cpu_directories(cgroups), self.hugetlb_directory(cgroups)
        found = [*((cpu.cpuset, cpu.cpu) if cpu else ()), hugetlb.directory if hugetlb else None]
        return tuple(dict.fromkeys(filter(None, found)))

    async def all_cpu_directories(self) -> dict[str, CpuDirectories]:
        """Return where the CPU files of every container on the node stand, by container ID."""
        controller = next((c for c in ("cpuset", UNIFIED) if c in self._tree.hierarchies), None)
        if controller is None:
            return {}
        hierarchy = self._tree.hierarchies[controller]
        self.walks += 1
        found = await self._reads.run(
            "", partial(containers_below, hierarchy, self._tree.node), hierarchy.directory
        )
        return {
            container_id: CpuDirectories(hierarchy.version, directory, hierarchy.directory, None)
            for container_id, directory in found.items()
        }

    async def process(self, caller: Caller, pid: str) -> tuple[PinnedProcess, CgroupIdentity]:
        """Return a new pin of the process that a request's `pid` names, and where it stands.

        Raises `Invalid` for what is no pid, `Missing` for none in the caller's
        view, `Denied` for one outside of the caller's pod. The caller of this closes it.
        """
        if not pid:
            return caller.peer.process.duplicate(), caller.cgroups
        number = parse_pid(pid)
        own = caller.peer.process.duplicate()
        scope = self._tree.scope_directory(caller.cgroups)

        def find() -> tuple[PinnedProcess, CgroupIdentity]:
            try:
                found = find_process(own, number, processes_below(scope) if scope else ())
            finally:
                own.close()
            try:
                return found, self._in_same_pod(caller, found, number)
            except BaseException:
                found.close()
                raise

        return await self._reads.run(caller.peer.pod_key, find, "/proc/<pid>/status")

    def _in_same_pod(self, caller: Caller, process: PinnedProcess, number: int) -> CgroupIdentity:
        try:
            found = identify_process(process, self._tree)
            if found.pod_uid is None and caller.cgroups.container_id:
                found = choose_container(found, [caller.cgroups.container_id])
        except Denied:
            raise outside_pod(number) from None
        same = (
            found.pod_uid == caller.cgroups.pod_uid
            if found.pod_uid
            else found.container_id == caller.cgroups.container_id
        )
        if not same:
            raise outside_pod(number)
        return found

    async def read_environ(self, caller: Caller, pid: str, read: Callable[[int], T]) -> T:
        """Return what `read` makes of a process, if its environment is for the caller."""
        process, cgroups = await self.process(caller, pid)
        try:
            own = caller.peer.process.duplicate()
        except AgentError:
            process.close()
            raise
        credentials = caller.peer.credentials

        def work() -> T:
            try:
                # The same number is the same process: both are alive at the end.
                if own.pid == process.pid:
                    answer = _read_own(own, credentials, read)
                else:
                    # Processes in the pod's own cgroup are in no container together.
                    in_container = cgroups.container_id is not None and (
                        cgroups.container_id == caller.cgroups.container_id
                    )
                    if not in_container and not shares_pid_namespace(own, process):
                        raise outside_pod(int(pid))
                    answer = read_as_caller(own, credentials, process, read)
                own.ensure_alive()
                process.ensure_alive()
                return answer
            except ProcessLookupError:
                raise gone(process.pid) from None
            finally:
                process.close()
                own.close()

        return await self._reads.run(caller.peer.pod_key, work, f"/proc/{process.pid}/environ")


def _read_own(process: PinnedProcess, credentials: Credentials, read: Callable[[int], T]) -> T:
    ensure_same_ids(process, credentials)
    answer = read(process.directory())
    ensure_same_ids(process, credentials)
    return answer


def parse_pid(pid: str) -> int:
    """Return a request's pid. Raises `Invalid` for anything but a positive decimal number."""
    if not (pid.isascii() and pid.isdigit() and len(pid) <= len(str(_LARGEST_PID))):
        raise _malformed(pid)
    number = int(pid)
    if not 0 < number <= _LARGEST_PID:
        raise _malformed(pid)
    return number


def _malformed(pid: str) -> Invalid:
    return Invalid(
        Reason.PID_MALFORMED,
        f"{pid[:32]!r} is no process id.",
        read="the request's field pid",
        advice="Send a positive decimal number, or leave it empty for the calling process.",
    )


def _unknown(cgroups: CgroupIdentity) -> Denied:
    names = cgroups.pod_uid or ", ".join(
        container_id for p in cgroups.placements for container_id, _ in p.containers
    )
    return Denied(
        Reason.UNKNOWN_TO_POD_LIST,
        f"The kubelet does not know the caller's pod or container ({names}).",
        read="the pod list",
        advice="Containers started past the kubelet are not answered; compare with"
        " `netutil node pods` on the node.",
    )
