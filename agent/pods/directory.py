"""Finds the pod of a container in the last pod list, or waits for a newer list.

A source is pulled (`pulled`) or pushes (`pushed`); what is promised here holds for both.
One list serves all waiting calls, and the cancellation of one call ends no other wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Set
from functools import partial

from netutil.agent.errors import FailedPrecondition, Unavailable
from netutil.agent.pods.feed import DirectoryStats, Generation, PodFeed
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.grace_cache import RecentlyRemoved, keys_of
from netutil.agent.pods.index import Match, PodList
from netutil.agent.pods.model import ContainerStatus, Pod
from netutil.agent.pods.polling import PollingFeed
from netutil.agent.pods.sources.base import PodSource, StreamingSource, shutting_down, unavailable
from netutil.agent.pods.streaming import POD_LISTS, StreamingFeed
from netutil.agent.recent_cache import RecentCache

MAX_LIST_WAIT_SECONDS = 5.0
"""How long one call waits for a pod list."""
MAX_LATE_SECONDS = 30.0
"""How long a container's name is waited for, over all calls: a kubelet takes a second or two."""
MAX_UNNAMED = 1024
"""Containers without a name of which it is kept since when they are asked for."""
_SWEEPS_KEPT = 27
"""After that many sweeps without such a question, and before twice as many, that is forgotten: in
less than ten minutes (`service.retention`)."""


class PodDirectory:
    """Answers which pod a container is of. Used on one event loop."""

    def __init__(
        self,
        source: PodSource | StreamingSource[Pod],
        refresh_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        flaws: Flaws | None = None,
    ) -> None:
        """`refresh_seconds` is the longest age of a pulled list while there are callers.

        `flaws` is where the source counts what it does not understand.
        """
        self.flaws = flaws or Flaws()
        self._describe = source.describe
        self.kind = source.kind
        self._changes = Generation(lambda: self.remembered.follow(self.last))
        self._closed = False
        self.remembered = RecentlyRemoved(clock)
        # The mark of the first look-up of a container that the list did not name then. A list
        # after it is enough to decide on that container: it ran before. Were each call to wait
        # for a list of its own, one such caller would have the kubelet asked once a second.
        self.first_marks: RecentCache[str, tuple[int, float]] = RecentCache(
            MAX_UNNAMED, _SWEEPS_KEPT
        )
        self._clock = clock
        self.stats = DirectoryStats()
        self._lists: PodFeed = (
            StreamingFeed(source, POD_LISTS, self.stats, self._changes, clock, sleep)
            if isinstance(source, StreamingSource)
            else PollingFeed(source, refresh_seconds, self.stats, self._changes, clock, sleep)
        )

    @property
    def kept_bytes(self) -> int:
        """Return how much is kept that was made of the last list."""
        last = self._lists.last
        return last.budget.bytes if last is not None else 0

    def describe(self) -> str:
        """Return what is read: an address or a path."""
        return self._describe()

    @property
    def last(self) -> PodList | None:
        """Return the last list that came."""
        return self._lists.last

    @property
    def last_error(self) -> Unavailable | None:
        """Return why the last fetch failed, None after a success."""
        return self._lists.last_error

    @property
    def unconfirmed(self) -> Unavailable | None:
        """Return why a list that is pushed is not known to be complete, None while it is.

        A source that is asked has no such state: its last error is `last_error`.
        """
        return self._lists.unconfirmed

    @property
    def generation(self) -> int:
        """Return a number that grows with each list whose content may differ; 0 before the first.

        A list that says the same at a later time does not change it.
        """
        return self._changes.generation

    async def changed(self, after: int) -> int:
        """Return the generation once it is greater than `after`; at once if it is already.

        `last` is then a list of that generation or a later one. While a caller waits here, a
        source that is pulled is asked every `refresh_seconds`, once for all waiting calls; one
        that pushes brings changes as they come. A source that fails is waited for. May be
        cancelled. Raises `Unavailable` (AGENT_RESTARTING) when the directory is closed.
        """
        with self._lists.keep_fresh():
            while self.generation <= after:
                if self._closed:
                    raise shutting_down(self._describe())
                await self._changes.wait()
        return self.generation

    def named(self, pod_uid: str | None, container_id: str | None) -> Match | None:
        """Return what `lookup` returns for a container that a fresh list names.

        None where `lookup` looks further or waits.
        """
        last = self._lists.last
        if last is None or not container_id or self._clock() >= self._lists.fresh_until:
            return None
        return last.named(pod_uid, container_id)

    async def lookup(
        self,
        pod_uid: str | None,
        container_id: str | None,
        *,
        timeout_seconds: float = MAX_LIST_WAIT_SECONDS,
        need_container: bool = False,
        good_enough: Callable[[Match], bool] | None = None,
        has_ended: Callable[[ContainerStatus], bool] = lambda _: False,
    ) -> Match | None:
        """Return the pod of a container, None if a fresh list knows neither container nor pod.

        A caller that the last list knows is answered from it, after a short
        wait for a newer one where it is too old. Any other waits for a list that
        was asked for after it came, or for the pushed list that knows it,
        at most `timeout_seconds`, and at most 5 s.
        A pod that a newer list lacks is known for some minutes from the last one that had it.
        With `need_container` a pod without the container in its status counts as not known,
        and newer lists are waited for until one has it or the time is over: a kubelet reports
        a container a second or two after its start. Nothing is waited for that cannot come: of
        a process in the pod's own cgroup (no `container_id`), or in a container that a list
        after its start reports under no name (`Match.decided`, which takes `has_ended`). A match
        that is not `good_enough` counts as not known too. Either is returned if nothing better
        came.
        Raises `Unavailable` if there is no list that would decide, `FailedPrecondition`
        if the fresh list contradicts itself or the caller.
        """
        mark = self._lists.snapshot_token()
        first, since = self.first_marks.get(container_id or "") or (mark, self._clock())
        need_container = need_container and bool(container_id)

        def found() -> Match | None:
            match = self._find(pod_uid, container_id)
            if match is not None and self._lists.is_newer_than(first):
                return match.decided(has_ended)
            return match

        def known() -> Match | None:
            try:
                return found()
            except FailedPrecondition:  # fixed perhaps by now: the fresh list decides
                return None

        is_enough = partial(_is_enough, need_container=need_container, good_enough=good_enough)

        def enough() -> bool:
            return is_enough(known())

        match = known()
        self._note_first(match, container_id, mark)
        if is_enough(match) and (self._is_fresh() or not await self._lists.wait_briefly()):
            return match
        if not enough():
            if need_container and known() and self._clock() - since > MAX_LATE_SECONDS:
                # A container may start for ever: a neighbour that crashes in a loop, an image that
                # cannot be fetched. The next list says what is new; no call waits for it.
                if not self._is_fresh():
                    await self._lists.wait_briefly()
            else:
                await self._wait_within(timeout_seconds, mark, known, enough, need_container)
        return found()

    async def _wait_within(
        self,
        timeout_seconds: float,
        mark: int,
        known: Callable[[], Match | None],
        enough: Callable[[], bool],
        need_container: bool,
    ) -> None:
        """Wait for a list that decides. Raises why there is none, unless the last list decides."""
        self.stats.misses += 1
        try:
            async with asyncio.timeout(min(timeout_seconds, MAX_LIST_WAIT_SECONDS)):
                await self._wait(mark, known, enough, need_container)
        except (Unavailable, TimeoutError) as error:
            if known() is None:
                self._refuse(error)

    def _is_fresh(self) -> bool:
        return self._clock() < self._lists.fresh_until

    def _note_first(self, match: Match | None, container_id: str | None, mark: int) -> None:
        """Keep since when a container is asked for that has no name."""
        if container_id and (match is None or not match.container_name):
            self.first_marks.setdefault(container_id, (mark, self._clock()))

    def _refuse(self, error: Unavailable | TimeoutError) -> None:
        """Raise why the container's pod is not known; nothing if the last list decides."""
        if isinstance(error, Unavailable):
            raise error
        if not self._lists.is_live:
            why = self._lists.not_live
            if why is None:
                raise self._too_slow() from None
            raise why.with_retry_after(why.retry_after_seconds) from None

    async def _wait(
        self,
        mark: int,
        known: Callable[[], Match | None],
        enough: Callable[[], bool],
        need_container: bool,
    ) -> None:
        """Return when a list after the mark has come; for a container, when one has it."""
        self.stats.waiting += 1
        try:
            await self._lists.wait_newer(mark, enough)
            while need_container and known() and not enough():
                await self._lists.wait_newer(self._lists.snapshot_token(), enough)
        finally:
            self.stats.waiting -= 1

    def _find(self, pod_uid: str | None, container_id: str | None) -> Match | None:
        """Return what the last list says, else what the grace cache has.

        Raises `FailedPrecondition` if two pods claim the container.
        """
        last = self.last
        match = last.find(pod_uid, container_id) if last is not None else None
        if match is not None and (match.container_name or match.has_uid(pod_uid)):
            return match
        # An annotation, which the creator of a pod may write, does not outweigh
        # the UID of a pod that was there before.
        remembered = self.remembered.find(pod_uid, container_id)
        if remembered is not None and (remembered.container_name or remembered.has_uid(pod_uid)):
            return remembered
        return match or remembered

    def peek(self, pod_uid: str | None, container_id: str | None) -> Match | None:
        """Return what is listed or remembered now, without waiting; None for a contradiction."""
        try:
            return self._find(pod_uid, container_id)
        except FailedPrecondition:
            return None

    def knows(self, pod_uid: str | None, container_id: str | None) -> bool:
        """Return whether a pod is listed or remembered now."""
        try:
            return self._find(pod_uid, container_id) is not None
        except FailedPrecondition:
            return True

    def forget(self, pod_keys: Set[str]) -> Set[str]:
        """Forget pods that have ended; return the keys of those that the last list still has.

        A key is a pod's UID without dashes, or the ID of one of its containers. A pod that is
        still listed is remembered again once a list lacks it.
        """
        if not pod_keys:
            return frozenset()
        self.remembered.forget(pod_keys)
        if self.last is None:
            return frozenset()
        return pod_keys & {key for pod in self.last.pods for key in keys_of(pod)}

    async def refresh(self) -> PodList:
        """Return a list that is as of now: asked for after this call, or of a healthy stream.

        Raises `Unavailable`.
        """
        self.stats.waiting += 1
        try:
            await self._lists.wait_current()
        finally:
            self.stats.waiting -= 1
        assert self.last is not None  # noqa: S101 - it just came
        return self.last

    async def close(self) -> None:
        """End all waits, because the agent stops, and close the source.

        Takes at most a second, even if the source hangs and cannot be
        interrupted. What the last list knows is still answered.
        """
        self._closed = True
        await self._lists.close()

    def _too_slow(self) -> Unavailable:
        return unavailable(
            "No fresh pod list came within the time that the caller has.",
            self._describe(),
            "Try again; the agent goes on waiting for the source.",
        )


def _is_enough(
    match: Match | None, need_container: bool, good_enough: Callable[[Match], bool] | None
) -> bool:
    return (
        match is not None
        # A static pod that comes back has the UID of its earlier life, and another container.
        and (
            bool(match.container_name)
            or match.is_unlisted
            or not (need_container or match.is_remembered)
        )
        and (good_enough is None or good_enough(match))
    )
