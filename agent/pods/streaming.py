"""Pod lists that a source pushes over a stream.

The last list is fresh while the stream is healthy, and goes on answering, with its
time, after the stream broke. A stream is healthy from its first list until it fails; one
that ends as streams do is begun again within half a second and is healthy meanwhile.
After a failure it is started again with a growing pause. A call that waits for what only the stream
can bring gets the failure at once in such a pause, with the remaining delay.

A stream that goes on from an earlier one is compared with a list before its silence counts, and
every stream is compared now and then, and when a caller is unknown (`confirmation`). A stream
that lacks what a list has is ended as failed, and the next begins with all pods; one that is not
confirmed for a minute is not healthy until it is.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from netutil.agent.errors import Unavailable
from netutil.agent.pods.confirmation import Confirmation, Outcomes
from netutil.agent.pods.feed import (
    MIN_RETRY_SECONDS,
    NEVER,
    DirectoryStats,
    Generation,
    LoggedBackoff,
)
from netutil.agent.pods.index import PodList, index
from netutil.agent.pods.sources.base import (
    StreamingSource,
    shutting_down,
    unavailable,
    unexpected_error,
)

_LOG = logging.getLogger(__name__)

_STEADY_SECONDS = 1.0
"""A stream that lasted so long and ended as streams do is no sign of trouble."""
_PROVEN_SECONDS = 10.0
"""After a stream that lasted so long, pauses start again from the shortest."""
_BETWEEN_STREAMS_SECONDS = 0.5
_ENDS_AT_ONCE = 3
"""So many streams in a row that end at once are a failure: pauses grow, and changes are missed."""
_MAX_REQUESTED_PAUSE_SECONDS = 60.0
_SPACING_SECONDS = 0.05
"""Least time between two lists that are shown: indexing 250 pods takes 4 ms of the loop."""
_CLOSE_SECONDS = 0.5


class Dated(Protocol):
    """What a list becomes: as it was at a time."""

    @property
    def observed_at(self) -> datetime:
        """Return when the list was like this (UTC)."""


T = TypeVar("T")
L = TypeVar("L", bound=Dated)


@dataclass(frozen=True, slots=True)
class Lists(Generic[T, L]):
    """How objects become a list as of a time, and the same list one of a later time."""

    make: Callable[[tuple[T, ...], datetime], L]
    redate: Callable[[L, datetime], L]


def _redated(pods: PodList, observed_at: datetime) -> PodList:
    return replace(pods, observed_at=observed_at)


POD_LISTS = Lists(index, _redated)


class StreamingFeed(Generic[T, L]):
    """Follows a source in one task, from the first call on."""

    fresh_until = math.inf
    """Either the stream is healthy, or there is nothing better to wait for."""

    def __init__(
        self,
        source: StreamingSource[T],
        lists: Lists[T, L],
        stats: DirectoryStats,
        changes: Generation,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._source = source
        self._lists = lists
        self._stats = stats
        self._changes = changes
        self._clock = clock
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None
        self._pods: tuple[T, ...] | None = None
        self._observed_at: datetime | None = None
        self._coming: tuple[tuple[T, ...], datetime | None] | None = None
        self._shown_at = NEVER
        self._timer: asyncio.TimerHandle | None = None
        self._indexed: tuple[tuple[T, ...], L] | None = None
        self._failures = LoggedBackoff(
            source.describe(),
            source.first_pause_seconds,
            source.longest_pause_seconds,
            source.kind.list_name,
        )
        self._began_at = 0.0
        self._next_at = 0.0
        self._healthy = False
        self._pausing = False  # after a failure
        self._closed = False
        self._proven = False  # the stream began with all pods, or a list has confirmed it
        self._resumed = False  # the stream goes on from an earlier one
        self._missed: Unavailable | None = None  # why the stream is being ended
        self._confirmation = Confirmation(
            source,
            stats,
            Outcomes(self._confirmed, self._lacking, self._unconfirmed, changes.notify_all),
        )
        self.last_error: Unavailable | None = None

    @property
    def last(self) -> L | None:
        """Return the list that was pushed last, indexed when it is first asked for."""
        if self._pods is None or self._observed_at is None:
            return None
        if self._indexed is None or self._indexed[0] is not self._pods:
            self._indexed = self._pods, self._lists.make(self._pods, self._observed_at)
        elif self._indexed[1].observed_at != self._observed_at:
            confirmed = self._lists.redate(self._indexed[1], self._observed_at)
            self._indexed = self._pods, confirmed
        return self._indexed[1]

    @property
    def is_live(self) -> bool:
        """Return whether the stream is healthy and proven, and no comparison is open or failed."""
        confirmation = self._confirmation
        is_sure = not confirmation.is_pending and confirmation.error is None
        return self._healthy and self._proven and is_sure

    @property
    def not_live(self) -> Unavailable | None:
        """Return why the last list is not live, None before the first failure."""
        return self.last_error or self._confirmation.error

    @property
    def unconfirmed(self) -> Unavailable | None:
        """Return why the last list has not been known to be complete for too long."""
        long_ago = self._stats.unconfirmed_seconds > self._confirmation.max_unconfirmed_seconds
        return self.last_error if long_ago and not self._healthy else None

    def snapshot_token(self) -> int:
        """Return 0: what the stream brings is always newer."""
        return 0

    def is_newer_than(self, mark: int) -> bool:
        """Return whether the stream is healthy: what it brought is then as of now."""
        del mark
        return self._healthy

    async def wait_briefly(self) -> bool:
        """Return False: nothing is asked for."""
        return False

    async def wait_newer(self, mark: int, enough: Callable[[], bool]) -> None:
        """Return when what was pushed is enough. What the stream lacks a list might have."""
        del mark
        self._start()
        if self._healthy and not enough():
            self._confirmation.ask()
        while not enough():
            if self._closed:
                raise shutting_down(self._source.describe())
            if (error := self._reason_not_to_wait()) is not None:
                raise error
            await self._changes.wait()

    def _reason_not_to_wait(self) -> Unavailable | None:
        """Return why a call must not wait for the stream now, None if it may."""
        if self._pausing and self.last_error is not None:
            remaining = max(MIN_RETRY_SECONDS, self._next_at - self._clock())
            return self.last_error.with_retry_after(remaining)
        if self._healthy or self._missed is not None:
            return None
        # The stream is there, but whether it brings everything is not known.
        error = self._confirmation.error or (self.last_error if self._proven else None)
        return error and error.with_retry_after(error.retry_after_seconds)

    async def wait_current(self) -> None:
        """Return when the stream is healthy. Raises `Unavailable` for one that is not confirmed."""
        await self.wait_newer(0, lambda: self._healthy)

    @contextmanager
    def keep_fresh(self) -> Iterator[None]:
        """Follow the source, now and from now on."""
        self._start()
        yield

    async def close(self) -> None:
        """Wake all waiters, and end the stream."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._changes.notify_all()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_CLOSE_SECONDS)
        await self._confirmation.close()
        await self._source.close()

    def _start(self) -> None:
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._follow(), name="pod-source")
            self._confirmation.start()

    async def _follow(self) -> None:
        """Follow the source for ever, one stream after the other."""
        while True:
            self._began_at = self._clock()
            self._stats.restarts += self._stats.fetches > 0
            self._stats.fetches += 1
            # A comparison may have ended between two streams: this one begins with all pods.
            self._resumed, self._missed = False, None
            error = await self._stream()
            missed = self._missed
            pause = self._ended(missed or error)
            self._missed, self._proven = None, False
            if missed:
                # The other side answers: callers are not kept waiting for what a list has.
                pause = random.uniform(0, _BETWEEN_STREAMS_SECONDS)  # noqa: S311 - no secret
            self._next_at = self._clock() + pause
            self._pausing = not self._healthy and missed is None
            self._changes.notify_all()
            await self._sleep(pause)
            self._pausing = False

    async def _stream(self) -> Unavailable | None:
        """Follow one stream to its end. Return why it failed, None if it did not."""
        try:
            await self._source.follow(self._take)
        except Unavailable as error:
            return error.with_retry_after(error.retry_after_seconds)
        except Exception as error:  # noqa: BLE001 - whatever a source sends, the agent goes on
            _LOG.exception("%s: %s failed", self._source.kind.list_name, self._source.describe())
            return unexpected_error(error, self._source.describe())
        return None

    def _ended(self, error: Unavailable | None) -> float:
        """Take the end of a stream down. Return how long to pause."""
        lasted = self._clock() - self._began_at
        if lasted >= (_STEADY_SECONDS if error is None else _PROVEN_SECONDS) and self._healthy:
            self._failures.reset()
            if error is None:
                return random.uniform(0, _BETWEEN_STREAMS_SECONDS)  # noqa: S311 - no secret
        pause = self._failures.pause()
        if error is None and self._failures.consecutive >= _ENDS_AT_ONCE:
            error = unavailable(
                f"The stream of {self._source.kind.plural} ends as soon as it begins.",
                self._source.describe(),
                "Look at each proxy between the agent and that address.",
            )
        if error is None:
            return pause
        self._show()  # what came before the end
        self._confirmation.stopped()
        self._stats.failures += 1
        self._doubt(error)
        self._failures.log(error)
        return max(pause, min(error.retry_after_seconds, _MAX_REQUESTED_PAUSE_SECONDS))

    def _take(self, pods: tuple[T, ...], observed_at: datetime, *, resumed: bool = False) -> None:
        """Show what was pushed, now or when the spacing allows it."""
        if self._closed:
            return
        if not resumed:
            self._proven = True
        elif not self._resumed:
            self._resumed = True
            self._confirmation.resumed()
        self._coming = pods, observed_at if self._proven else None
        wait = self._shown_at + _SPACING_SECONDS - self._clock()
        if pods is self._pods or not self._healthy or wait <= 0:
            self._show()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait, self._show)

    def _show(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._coming is None or self._closed:
            return
        pods, observed_at = self._coming
        self._coming = None
        differs = pods is not self._pods
        self._pods = pods
        self._shown_at = self._clock()
        recovers = False
        if observed_at is not None and self._missed is None:
            recovers = self._trust(observed_at)
        if differs:
            self._stats.changes += 1
            self._changes.advance()
        elif recovers:
            self._changes.notify_all()

    def _trust(self, observed_at: datetime) -> bool:
        """Note that what was shown is all there was at that time. Return whether that is news."""
        recovers = not self._healthy
        self._observed_at = observed_at
        self._healthy = True
        self._stats.streaming = 1
        self.last_error = None
        self._confirmation.confirmed()
        if recovers:
            self._failures.log_recovered()
        return recovers

    def _doubt(self, error: Unavailable) -> None:
        """Note that what was shown may not be all there is."""
        self._healthy = False
        self._stats.streaming = 0
        self.last_error = error

    def _confirmed(self, as_of: datetime) -> None:
        """Take note that a list has nothing otherwise than the stream."""
        self._show()
        self._proven = True
        self._trust(as_of if self._observed_at is None else max(self._observed_at, as_of))
        self._changes.notify_all()

    def _lacking(self, error: Unavailable) -> None:
        """End a stream that lacks what a list has."""
        self._missed = error
        self._doubt(error)
        self._source.start_over()

    def _unconfirmed(self, error: Unavailable) -> None:
        """Take note that neither the stream nor a list has confirmed what was shown."""
        if self._healthy:
            self._doubt(error)
            self._failures.log(error)
            self._changes.notify_all()
