"""Who watches, and what tells them that something may have changed.

There is one source of change per fact, whoever watches: the directory of pods and
that of resources each have one task that waits for news; the network namespaces and the
cgroups tell by themselves. A watcher is a subject that can be told; nobody polls
for one watcher. The tasks run while there are watchers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from netutil.agent.collect.container_cache import ContainerCache
from netutil.agent.errors import AgentError, Inconsistent, OverLimit, Reason, Unavailable
from netutil.agent.facts.cgroup_changes import CgroupChanges
from netutil.agent.facts.network_state import Namespace
from netutil.agent.podresources.directory import ResourceDirectory
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.index import Match
from netutil.agent.service.caller import Caller, Callers, WatchedDirectories
from netutil.agent.service.live import LiveNetworks

_LOG = logging.getLogger(__name__)
_SWEEP_SECONDS = 2.0
_AGAIN_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class Subject:
    """What one stream is about: its caller as of the last snapshot, and whether there is news."""

    caller: Caller | None = None
    resources: object = None
    namespace: Namespace | None = None
    cgroups: WatchedDirectories = field(default_factory=WatchedDirectories)
    ended: BaseException | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        """Let the stream look again."""
        self._news.set()

    def end(self, why: BaseException) -> None:
        """Let the stream end with an error."""
        self.ended = self.ended or why
        self._news.set()

    async def news(self) -> None:
        """Return when there is news. Raises the error that the stream is to end with."""
        await self._news.wait()
        self.look()

    def look(self) -> None:
        """Take what is told up to now as seen. Raises as `news`."""
        if self.ended is not None:
            raise self.ended
        self._news.clear()


class Watching:
    """The watchers of the node. Used on one event loop."""

    def __init__(
        self,
        callers: Callers,
        pods: PodDirectory,
        resources: ResourceDirectory,
        networks: LiveNetworks,
        containers: ContainerCache,
        refresh_seconds: float,
    ) -> None:
        self._callers = callers
        self._pods = pods
        self._resources = resources
        self._refresh_seconds = refresh_seconds
        self._subjects: set[Subject] = set()
        self._networks = networks
        self._containers = containers
        self._cgroups = CgroupChanges(containers.read_open)
        self._telling: asyncio.Task[None] | None = None
        self._stopped = False
        self.snapshots = 0

    def __len__(self) -> int:
        return len(self._subjects)

    @asynccontextmanager
    async def subject(self) -> AsyncIterator[Subject]:
        """Enter a watcher, which `follow` then attaches to the sources of change."""
        if self._stopped:
            raise _restarting()
        subject = Subject()
        self._subjects.add(subject)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell())
        try:
            yield subject
        finally:
            self._subjects.discard(subject)
            self._leave_namespace(subject)
            self._leave_cgroups(subject)
            if not self._subjects:
                await self._end_telling()

    async def follow(self, subject: Subject, caller: Caller) -> None:
        """Take a caller's state as that of the next snapshot: what differs from now on is told."""
        subject.caller = caller
        subject.resources = self._peek(caller)
        if not subject.cgroups.own:
            subject.cgroups = self._callers.watched_directories(caller.cgroups)
            self._cgroups.join(subject.cgroups.own, subject.tell)
            self._cgroups.join_above(subject.cgroups.above, subject.tell)
        await self._follow_namespace(subject, caller)

    def stop(self) -> None:
        """End all streams, and those that come: the agent is stopping."""
        self._stopped = True
        for subject in self._subjects:
            subject.end(_restarting())

    async def close(self) -> None:
        """Wait until nothing is told any more."""
        self.stop()
        await self._end_telling()

    async def _end_telling(self) -> None:
        telling, self._telling = self._telling, None
        if telling is not None:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _tell(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._tell_of_pods())
                group.create_task(self._tell_of_resources())
                group.create_task(self._sweep())
        except Exception as error:  # noqa: BLE001 - a bug, told to every watcher
            # Watchers that nobody tells anything would trust an old snapshot for ever.
            _LOG.exception("watch: nobody can be told of changes any more")
            for subject in tuple(self._subjects):
                subject.end(RuntimeError(f"the sources of change failed: {error}"))

    async def _tell_of_pods(self) -> None:
        generation = 0
        while not self._stopped:
            try:
                generation = await self._pods.changed(generation)
            except Unavailable:
                return  # the agent stops, and every stream is told so
            for subject in tuple(self._subjects):
                if subject.caller is not None and self._differs(subject.caller):
                    subject.tell()

    async def _tell_of_resources(self) -> None:
        while True:
            await self._resources.refresh()
            for subject in tuple(self._subjects):
                if subject.caller is not None and subject.resources != self._peek(subject.caller):
                    subject.tell()
            await asyncio.sleep(self._refresh_seconds)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            for subject in self._subjects:
                if subject.caller is not None:
                    self._containers.renew(subject.caller.cgroups)
            self._cgroups.sweep()
            for subject in tuple(self._subjects):
                # A pod that the list lacks is remembered for some time; nothing else tells its end.
                if subject.caller is not None and self._is_forgotten(subject.caller):
                    subject.tell()

    def _differs(self, caller: Caller) -> bool:
        if self._pods.last is None:
            return False
        try:
            return _described(self._listed(caller)) != _described(caller.match)
        except Inconsistent:
            return True

    def _is_forgotten(self, caller: Caller) -> bool:
        cgroups = caller.cgroups
        known = self._pods.knows(cgroups.pod_uid, cgroups.container_id)
        return self._pods.last is not None and not known

    def _listed(self, caller: Caller) -> Match | None:
        if self._pods.last is None:
            return None
        found = self._pods.last.find(caller.cgroups.pod_uid, caller.cgroups.container_id)
        return found and found.if_only_container()

    def _peek(self, caller: Caller) -> object:
        if caller.match is None:
            return None
        metadata = caller.match.pod.metadata
        return self._resources.peek(metadata.namespace, metadata.name, caller.match.container_name)

    async def _follow_namespace(self, subject: Subject, caller: Caller) -> None:
        """Hear of the network namespace that the caller's process is in, unless it is the node's.

        One that cannot be entered is an error of the snapshot's interfaces as well.
        """
        if _on_host_network(caller):
            self._leave_namespace(subject)
            return
        pod_key, process = caller.peer.pod_key, caller.peer.process
        try:
            subject.namespace = await self._networks.follow(
                pod_key, process, subject.namespace, subject.tell
            )
        except AgentError as error:
            self._leave_namespace(subject)
            _LOG.info("watch: network namespace of pod %s: %s", pod_key, error)
            if isinstance(error, OverLimit):  # a shortage, or many reads: it passes
                asyncio.get_running_loop().call_later(_AGAIN_SECONDS, subject.tell)

    def _leave_cgroups(self, subject: Subject) -> None:
        self._cgroups.leave((*subject.cgroups.own, *subject.cgroups.above), subject.tell)

    def _leave_namespace(self, subject: Subject) -> None:
        if subject.namespace is not None:
            self._networks.leave(subject.namespace, subject.tell)
            subject.namespace = None


def _on_host_network(caller: Caller) -> bool:
    return caller.match is not None and caller.match.pod.spec.host_network


def _described(match: Match | None) -> object:
    """Return all of a match but when it was read."""
    return match and (match.pod, match.container_name)


def _restarting() -> Unavailable:
    return Unavailable(
        Reason.AGENT_RESTARTING,
        "The agent is restarting.",
        advice="Watch again; a new agent takes over the same path.",
    )
