"""Pod lists that are fetched on demand.

How often the source is asked:

- for callers whom the last list knows: once in `refresh_seconds`; after a failure,
  with a growing pause of 0.5 to 30 s. Meanwhile the last list answers.
- for callers whom it does not know, and for `wait_current`: at most once in a second,
  after a first failure in half of one. Such callers would be rejected, so they do not
  wait for the longer pause; until that time has passed since a failure, they get
  that failure at once, with the time that is left.
- while callers wait for changes: once in `refresh_seconds`, one fetch for all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

from netutil.agent.errors import Unavailable
from netutil.agent.pods.feed import (
    MIN_RETRY_SECONDS,
    NEVER,
    DirectoryStats,
    Generation,
    LoggedBackoff,
)
from netutil.agent.pods.index import PodList, index
from netutil.agent.pods.sources.base import PodSource, shutting_down, unexpected_error
from netutil.agent.pods.threads import WorkerThread

_LOG = logging.getLogger(__name__)

GRACE_SECONDS = 0.25
"""How long after its start a fetch keeps callers waiting whom the last list knows."""
MISS_SECONDS = 1.0
"""Least time between two fetches on behalf of callers whom no list knows."""
_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 30.0
_CLOSE_SECONDS = 0.5


class PollingFeed:
    """Fetches lists on one thread. One fetch serves all waiting calls; no cancellation ends it."""

    is_live = False
    not_live: Unavailable | None = None
    unconfirmed: Unavailable | None = None

    def __init__(
        self,
        source: PodSource,
        refresh_seconds: float,
        stats: DirectoryStats,
        changes: Generation,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._source = source
        self._refresh_seconds = refresh_seconds
        self._stats = stats
        self._changes = changes
        self._clock = clock
        self._sleep = sleep
        self._worker = WorkerThread("pod-source")
        self._fetching: asyncio.Future[PodList | Unavailable] | None = None
        self._started_at = NEVER
        self._last_number = 0  # of the fetch that `last` came from: stats.fetches then
        self._refresh_from = NEVER
        self._miss_from = NEVER
        self._failures = LoggedBackoff(source.describe(), _FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS)
        self._watchers = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.fresh_until = NEVER
        self.last: PodList | None = None
        self.last_error: Unavailable | None = None

    def snapshot_token(self) -> int:
        """Return the number of the last fetch."""
        return self._stats.fetches

    def is_newer_than(self, mark: int) -> bool:
        """Return whether the last list came from a fetch after that number."""
        return self._last_number > mark

    async def wait_briefly(self) -> bool:
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

    async def wait_newer(self, mark: int, enough: Callable[[], bool]) -> None:
        """Return when a list of a fetch after that number has come, or an older is enough."""
        while not (self.is_newer_than(mark) or enough()):
            await self._next_step()

    async def wait_current(self) -> None:
        """Return when a list has come that was asked for after this call."""
        await self.wait_newer(self.snapshot_token(), lambda: False)

    @contextmanager
    def keep_fresh(self) -> Iterator[None]:
        """Within the block, fetch a list every `refresh_seconds`."""
        self._watchers += 1
        self._plan()
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    async def close(self) -> None:
        """Wake all waiters. The source may hang and not be interruptible."""
        self._closed = True
        if self._fetching is not None and not self._fetching.done():
            self._fetching.set_result(shutting_down(self._source.describe()))
        if self._timer is not None:
            self._timer.cancel()
        self._changes.notify_all()
        self._source.close()
        await self._worker.stop(_CLOSE_SECONDS)

    def _plan(self) -> None:
        """Set the time of the next fetch for `keep_fresh`."""
        if self._watchers and not (self._timer or self._fetching or self._closed):
            due = max(self._started_at + self._refresh_seconds, self._refresh_from)
            wait = max(0.0, due - self._clock())
            self._timer = asyncio.get_running_loop().call_later(wait, self._fetch_for_watchers)

    def _fetch_for_watchers(self) -> None:
        self._timer = None
        young = self._clock() < max(self._started_at + self._refresh_seconds, self._refresh_from)
        if young or self._fetching or self._closed:  # another call fetched one meanwhile
            self._plan()
        else:
            self._fetch()

    async def _next_step(self) -> None:
        """Wait for the fetch under way, or until one may begin, or for that one. May raise."""
        if self._fetching is None:
            if self._closed:
                raise shutting_down(self._source.describe())
            wait = self._miss_from - self._clock()
            if wait > 0:
                if self.last_error is not None:
                    raise self._with_retry(self.last_error)
                await self._sleep(wait)
                return
        fetching = self._fetching or self._fetch()
        if fetching.done():
            # To await it would go on at once, before `_on_fetch_done` has run on the loop:
            # the caller would find nothing changed, and ask again, for ever.
            await asyncio.sleep(0)
            return
        # One caller's cancellation must not end the fetch that others wait for.
        outcome = await asyncio.shield(fetching)
        if isinstance(outcome, Unavailable):
            raise self._with_retry(outcome)

    def _fetch(self) -> asyncio.Future[PodList | Unavailable]:
        """Begin a fetch."""
        self._stats.fetches += 1
        self._started_at = self._clock()
        fetching = self._worker.run(partial(_fetched, self._source, datetime.now(UTC)))
        fetching.add_done_callback(self._on_fetch_done)  # the first: it runs before any waiter does
        self._fetching = fetching
        return fetching

    def _on_fetch_done(self, fetching: asyncio.Future[PodList | Unavailable]) -> None:
        self._fetching = None
        if self._closed or fetching.cancelled():  # cancelled by the end of the loop
            return
        now = self._clock()
        self._stats.last_fetch_seconds = now - self._started_at
        outcome = fetching.result()
        if isinstance(outcome, Unavailable):
            self._failed(outcome, now)
        else:
            self._on_list(outcome)
        self._plan()

    def _on_list(self, found: PodList) -> None:
        self._failures.log_recovered()
        self._failures.reset()
        self._refresh_from = NEVER
        self.last_error = None
        differs = self.last is None or not found.has_same_pods(self.last)
        self.last = found
        self._last_number = self._stats.fetches
        self.fresh_until = self._started_at + self._refresh_seconds
        self._miss_from = self._started_at + MISS_SECONDS
        if differs:
            self._changes.advance()

    def _failed(self, error: Unavailable, now: float) -> None:
        self._stats.failures += 1
        pause = self._failures.pause()
        self._refresh_from = now + pause
        self._miss_from = now + min(pause, MISS_SECONDS)
        self.last_error = error
        self._failures.log(error)

    def _with_retry(self, error: Unavailable) -> Unavailable:
        return error.with_retry_after(max(MIN_RETRY_SECONDS, self._miss_from - self._clock()))


def _fetched(source: PodSource, asked: datetime) -> PodList | Unavailable:
    """Return the list, or why there is none. Runs on the worker's thread."""
    try:
        return index(source.fetch(), asked)
    except Unavailable as error:
        return error.with_retry_after(error.retry_after_seconds)
    except Exception as error:  # noqa: BLE001 - whatever a source sends, the agent goes on
        _LOG.exception("pod list: %s failed", source.describe())
        return unexpected_error(error, source.describe())
