"""The last pod list, and when a newer one is fetched.

Nothing is polled: a list is fetched when somebody asks and the last one is too
old, or does not know the caller. One fetch serves all who wait.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from netutil.agent.errors import Unavailable
from netutil.agent.pods.index import Match, PodList, index
from netutil.agent.pods.model import Pod
from netutil.agent.pods.source import PodSource, unavailable

_LOG = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 5.0
GRACE_SECONDS = 0.25
"""How long a caller that the last list knows waits for a newer one."""
MISS_SECONDS = 1.0
"""Least time between two fetches on behalf of callers that no list knows."""
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 30.0


@dataclass(slots=True)
class DirectoryStats:
    """What was done since the start."""

    fetches: int = 0
    failures: int = 0
    misses: int = 0
    last_fetch_seconds: float = 0.0


class PodDirectory:
    """Answers which pod a container is of. Used on one event loop."""

    def __init__(
        self,
        source: PodSource,
        refresh_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._fetching: asyncio.Future[PodList] | None = None
        self._started_at = -float("inf")
        self._failures_in_a_row = 0
        self._not_before = -float("inf")
        self.last: PodList | None = None
        self.last_error: Unavailable | None = None
        self.stats = DirectoryStats()

    async def lookup(
        self,
        pod_uid: str | None,
        container_id: str | None,
        *,
        timeout_seconds: float = LONGEST_WAIT_SECONDS,
        need_container: bool = False,
    ) -> Match | None:
        """Return the pod of a container, None if a fresh list knows neither container nor pod.

        A caller that the last list knows is answered from it, after a short
        wait for a newer one where it is too old. Any other waits for a list
        that was asked for after it came, `timeout_seconds` at the most.
        `need_container` counts a pod without the container in its status as not known.
        Raises `Unavailable` if no list can be had that would decide.
        """
        arrived = self._clock()
        match = self._find(pod_uid, container_id)
        if match is not None and (match.container_name or not need_container):
            if arrived - self._started_at < self._refresh_seconds:
                return match
            return await self._newer(pod_uid, container_id) or match
        self.stats.misses += 1
        try:
            async with asyncio.timeout(min(timeout_seconds, LONGEST_WAIT_SECONDS)):
                await self._fetched_after(arrived)
        except (Unavailable, TimeoutError) as error:
            if match is not None:
                return match
            if isinstance(error, Unavailable):
                raise
            raise self._too_slow() from None
        return self._find(pod_uid, container_id)

    async def refresh(self) -> PodList:
        """Return a list that was asked for after this call. Raises `Unavailable`."""
        await self._fetched_after(self._clock())
        assert self.last is not None  # noqa: S101 - it was just fetched
        return self.last

    async def close(self) -> None:
        """Let the source go. Does not wait for a fetch that hangs: its thread is a daemon."""
        if self._fetching is not None:
            self._fetching.cancel()
        self._jobs.put(None)
        if self._thread is None or not self._thread.is_alive():
            self._source.close()

    def _find(self, pod_uid: str | None, container_id: str | None) -> Match | None:
        return self.last.find(pod_uid, container_id) if self.last is not None else None

    async def _newer(self, pod_uid: str | None, container_id: str | None) -> Match | None:
        """Return the match in a newer list if one comes within the grace, else None."""
        if self._clock() < self._not_before:
            return None
        try:
            async with asyncio.timeout(GRACE_SECONDS):
                await asyncio.shield(self._fetch())
        except (Unavailable, TimeoutError):
            return None
        return self._find(pod_uid, container_id)

    async def _fetched_after(self, moment: float) -> None:
        """Return when a list has come that was asked for at or after `moment`."""
        while self._started_at < moment or self._fetching is not None:
            if self._fetching is None:
                if self._clock() < self._not_before and self.last_error is not None:
                    raise self._backing_off(self.last_error)
                wait = self._started_at + MISS_SECONDS - self._clock()
                if wait > 0 and self.last is not None:
                    await asyncio.sleep(wait)
                    continue
            # One caller's cancellation must not end the fetch that others wait for.
            await asyncio.shield(self._fetch())

    def _fetch(self) -> asyncio.Future[PodList]:
        """Return the fetch that is under way, or begin one."""
        if self._fetching is not None:
            return self._fetching
        loop = asyncio.get_running_loop()
        future: asyncio.Future[PodList] = loop.create_future()
        # A failure that nobody waits for any more is kept in last_error.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._fetching = future
        self._started_at = self._clock()
        self.stats.fetches += 1
        asked = datetime.now(UTC)

        def work() -> None:
            pods, error = _fetched(self._source)
            loop.call_soon_threadsafe(self._arrived, future, pods, error, asked)

        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="pod-source", daemon=True)
            self._thread.start()
        self._jobs.put(work)
        return future

    def _arrived(
        self,
        future: asyncio.Future[PodList],
        pods: tuple[Pod, ...],
        error: Unavailable | None,
        asked: datetime,
    ) -> None:
        self._fetching = None
        self.stats.last_fetch_seconds = self._clock() - self._started_at
        if error is None:
            self._failures_in_a_row = 0
            self._not_before = -float("inf")
            self.last_error = None
            self.last = index(pods, asked)
            if not future.done():
                future.set_result(self.last)
            return
        self.stats.failures += 1
        longest = min(_FIRST_BACKOFF_SECONDS * 2**self._failures_in_a_row, _LONGEST_BACKOFF_SECONDS)
        self._failures_in_a_row = min(self._failures_in_a_row + 1, 16)
        # Full jitter would let a node's agent try again at once; half keeps a floor.
        pause = longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self._not_before = self._clock() + pause
        self.last_error = error
        _LOG.warning("pod list: %s (read %s); next try in %.1f s", error, error.read, pause)
        if not future.done():
            future.set_exception(self._backing_off(error))

    def _backing_off(self, error: Unavailable) -> Unavailable:
        told = Unavailable(error.reason, error.sentence, read=error.read, advice=error.advice)
        told.retry_after_seconds = max(0.1, self._not_before - self._clock())
        return told

    def _too_slow(self) -> Unavailable:
        return unavailable(
            "The pod source did not answer within the time that the caller has.",
            self._source.describe(),
            "Try again; the agent goes on waiting for the source.",
        )

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
        self._source.close()


def _fetched(source: PodSource) -> tuple[tuple[Pod, ...], Unavailable | None]:
    try:
        return source.fetch(), None
    except Unavailable as error:
        return (), error
    except Exception as error:  # noqa: BLE001 - whatever a source sends, the agent goes on
        _LOG.exception("pod list: %s failed", source.describe())
        return (), unavailable(
            f"The pod source failed in an unforeseen way: {error}.",
            source.describe(),
            "This is a bug of the agent; its log holds the traceback.",
        )
