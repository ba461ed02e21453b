"""The last pod list, and when a newer one is fetched.

Nothing is polled: a list is fetched when somebody asks and the last one is too
old, or does not know the caller. One fetch serves all who wait, and nobody's
cancellation ends it. How often the source is asked:

- for callers whom the last list knows: once in `refresh_seconds`; after a failure,
  with a growing pause of 0.5 to 30 s. Meanwhile the last list answers.
- for callers whom it does not know, and for `refresh`: once in a second at the most,
  after a first failure in half of one. They would be turned away, so they do not
  wait for the longer pause; until that time has gone by since a failure, they get
  that failure at once, with the time that is left.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from netutil.agent.errors import Inconsistent, Reason, Unavailable
from netutil.agent.pods.index import Match, PodList, index
from netutil.agent.pods.source import PodSource, told_again, unavailable
from netutil.agent.pods.worker import Worker

_LOG = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS = 5.0
GRACE_SECONDS = 0.25
"""How long after its start a fetch keeps callers waiting whom the last list knows."""
MISS_SECONDS = 1.0
"""Least time between two fetches on behalf of callers whom no list knows."""
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 30.0
_SHORTEST_RETRY_SECONDS = 0.1
_CLOSE_SECONDS = 0.5
_NEVER = -float("inf")


@dataclass(slots=True)
class DirectoryStats:
    """What was done since the start; `waiting` callers wait for a fresh list now."""

    fetches: int = 0
    failures: int = 0
    misses: int = 0
    last_fetch_seconds: float = 0.0
    waiting: int = 0


class PodDirectory:
    """Answers which pod a container is of. Used on one event loop.

    `last` is the last list that came, `last_error` why the last fetch failed,
    None after a success.
    """

    def __init__(
        self,
        source: PodSource,
        refresh_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._source = source
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._sleep = sleep
        self._worker = Worker("pod-source")
        self._fetching: asyncio.Future[PodList | Unavailable] | None = None
        self._started_at = _NEVER
        self._last_number = 0  # of the fetch that `last` came from: stats.fetches then
        self._last_at = _NEVER
        self._refresh_from = _NEVER
        self._miss_from = _NEVER
        self._failures_in_a_row = 0
        self._closed = False
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
        good_enough: Callable[[Match], bool] | None = None,
    ) -> Match | None:
        """Return the pod of a container, None if a fresh list knows neither container nor pod.

        A caller that the last list knows is answered from it, after a short
        wait for a newer one where it is too old. Any other waits for a list
        that was asked for after it came, `timeout_seconds` and 5 s at the most.
        A pod without the container in its status counts as not known with
        `need_container`, and so does a match that is not `good_enough`; both are
        returned nevertheless if the fresh list, or no list, has better.
        Raises `Unavailable` if no list can be had that would decide, `Inconsistent`
        if the fresh list contradicts itself or the caller.
        """
        asked = self.stats.fetches

        def known() -> Match | None:
            try:
                return self.last.find(pod_uid, container_id) if self.last is not None else None
            except Inconsistent:  # mended perhaps by now: the fresh list decides
                return None

        def enough(match: Match | None) -> bool:
            return (
                match is not None
                and (bool(match.container_name) or not need_container)
                and (good_enough is None or good_enough(match))
            )

        match = known()
        if enough(match) and (
            self._clock() - self._last_at < self._refresh_seconds or not await self._newer_soon()
        ):
            return match
        if not enough(known()):
            self.stats.misses += 1
            try:
                async with asyncio.timeout(min(timeout_seconds, LONGEST_WAIT_SECONDS)):
                    await self._listed_after(asked, lambda: enough(known()))
            except (Unavailable, TimeoutError) as error:
                if (match := known()) is not None:
                    return match
                if isinstance(error, Unavailable):
                    raise
                raise self._too_slow() from None
        return self.last.find(pod_uid, container_id) if self.last is not None else None

    async def refresh(self) -> PodList:
        """Return a list that was asked for after this call. Raises `Unavailable`."""
        await self._listed_after(self.stats.fetches, lambda: False)
        assert self.last is not None  # noqa: S101 - it was just fetched
        return self.last

    async def close(self) -> None:
        """Tell all who wait that the agent stops, and let the source go.

        Takes half a second at the most, even if the source hangs and cannot be
        interrupted. What the last list knows is still answered.
        """
        self._closed = True
        if self._fetching is not None and not self._fetching.done():
            self._fetching.set_result(self._stopping())
        self._source.close()
        await self._worker.stop(_CLOSE_SECONDS)

    async def _newer_soon(self) -> bool:
        """Return whether a newer list came within the grace."""
        if self._fetching is None and (self._closed or self._clock() < self._refresh_from):
            return False
        fetching = self._fetching or self._fetch()
        remaining = self._started_at + GRACE_SECONDS - self._clock()
        if remaining <= 0:
            return False
        try:
            async with asyncio.timeout(remaining):
                return isinstance(await asyncio.shield(fetching), PodList)
        except TimeoutError:
            return False

    async def _listed_after(self, number: int, enough: Callable[[], bool]) -> None:
        """Return when a list of a fetch after the `number`th has come, or an older is enough."""
        self.stats.waiting += 1
        try:
            while self._last_number <= number and not enough():
                await self._next_step()
        finally:
            self.stats.waiting -= 1

    async def _next_step(self) -> None:
        """Wait for the fetch under way, or until one may begin, or for that one. May raise."""
        if self._fetching is None:
            if self._closed:
                raise self._stopping()
            wait = self._miss_from - self._clock()
            if wait > 0:
                if self.last_error is not None:
                    raise self._told(self.last_error)
                await self._sleep(wait)
                return
        # One caller's cancellation must not end the fetch that others wait for.
        outcome = await asyncio.shield(self._fetching or self._fetch())
        if isinstance(outcome, Unavailable):
            raise self._told(outcome)

    def _fetch(self) -> asyncio.Future[PodList | Unavailable]:
        """Begin a fetch."""
        self.stats.fetches += 1
        self._started_at = self._clock()
        fetching = self._worker.run(partial(_fetched, self._source, datetime.now(UTC)))
        fetching.add_done_callback(self._arrived)  # the first: it runs before any waiter does
        self._fetching = fetching
        return fetching

    def _arrived(self, fetching: asyncio.Future[PodList | Unavailable]) -> None:
        self._fetching = None
        if self._closed or fetching.cancelled():  # cancelled by the end of the loop
            return
        now = self._clock()
        self.stats.last_fetch_seconds = now - self._started_at
        outcome = fetching.result()
        if isinstance(outcome, Unavailable):
            self._failed(outcome, now)
            return
        if self._failures_in_a_row:
            count = self._failures_in_a_row
            _LOG.info("pod list: %s answers again, failed: %d", self._source.describe(), count)
        self._failures_in_a_row = 0
        self._refresh_from = _NEVER
        self.last_error = None
        self.last = outcome
        self._last_number = self.stats.fetches
        self._last_at = self._started_at
        self._miss_from = self._started_at + MISS_SECONDS

    def _failed(self, error: Unavailable, now: float) -> None:
        self.stats.failures += 1
        longest = min(_FIRST_BACKOFF_SECONDS * 2**self._failures_in_a_row, _LONGEST_BACKOFF_SECONDS)
        self._failures_in_a_row = min(self._failures_in_a_row + 1, 2**16)
        # Full jitter would let a node's agent try again at once; half keeps a floor.
        pause = longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        self._refresh_from = now + pause
        self._miss_from = now + min(pause, MISS_SECONDS)
        news = self.last_error is None or self.last_error.sentence != error.sentence
        self.last_error = error
        count = self._failures_in_a_row
        if news or count & (count - 1) == 0:  # a lasting failure is said ever more seldom
            text = "pod list: %s (read %s; failed: %d) %s"
            _LOG.warning(text, error.sentence, error.read, count, error.advice)

    def _told(self, error: Unavailable) -> Unavailable:
        return told_again(error, max(_SHORTEST_RETRY_SECONDS, self._miss_from - self._clock()))

    def _stopping(self) -> Unavailable:
        return Unavailable(
            Reason.AGENT_RESTARTING,
            "The agent is stopping and reads no pod list any more.",
            read=self._source.describe(),
            advice="Connect and ask again.",
        )

    def _too_slow(self) -> Unavailable:
        return unavailable(
            "No fresh pod list came within the time that the caller has.",
            self._source.describe(),
            "Try again; the agent goes on waiting for the source.",
        )


def _fetched(source: PodSource, asked: datetime) -> PodList | Unavailable:
    """Return the list, or why there is none. Runs on the worker's thread."""
    try:
        return index(source.fetch(), asked)
    except Unavailable as error:
        return told_again(error, error.retry_after_seconds)
    except Exception as error:  # noqa: BLE001 - whatever a source sends, the agent goes on
        _LOG.exception("pod list: %s failed", source.describe())
        return unavailable(
            f"The pod source failed in an unforeseen way: {type(error).__name__}.",
            source.describe(),
            "This is a bug of the agent; its log holds the traceback.",
        )
