"""Compares a stream of pods with a list, and reports what the stream lacked.

A stream that says nothing looks like a node on which nothing changes. The two differ after
etcd was restored from a backup: resource versions go back, the API server accepts the watch from
the old version and sends nothing (kubernetes/kubernetes#107457); and the kubelet's Pods API drops
events of a reader that is slow. So silence confirms nothing: a list does.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from netutil.agent.errors import Unavailable
from netutil.agent.pods.feed import DirectoryStats, LoggedBackoff
from netutil.agent.pods.sources.base import (
    Comparison,
    StreamingSource,
    unavailable,
    unexpected_error,
)

_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What is called with each outcome, on the event loop.

    `confirmed` takes the time (UTC) as of which the stream has brought everything, `missed` the
    failure of a stream that did not, `unconfirmed` the failure of one that was not confirmed
    for too long. `failed` says that there is an `error`.
    """

    confirmed: Callable[[datetime], None]
    missed: Callable[[Unavailable], None]
    unconfirmed: Callable[[Unavailable], None]
    failed: Callable[[], None]


class Confirmation:
    """Compares one source's streams with its lists, one comparison at a time.

    `error` says why the last comparison failed, None after one that did not. Used on one event
    loop.
    """

    def __init__(
        self, source: StreamingSource[Any], stats: DirectoryStats, outcomes: Outcomes
    ) -> None:
        self._source = source
        self._stats = stats
        self._outcomes = outcomes
        self._timing = source.confirm_timing
        self._failures = LoggedBackoff(
            source.describe(),
            source.first_pause_seconds,
            source.longest_pause_seconds,
            source.kind.list_name,
        )
        self._due_at = _NEVER
        self._changed = asyncio.Event()
        self._comparing = False
        self._asked = False
        self._other_stream = False  # than the one that the comparison under way began with
        self._allowed = float(self._timing.unknown_burst)
        self._allowed_at = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.error: Unavailable | None = None

    @property
    def is_pending(self) -> bool:
        """Return whether a comparison is under way, or about to be."""
        return self._comparing or self._asked

    @property
    def max_unconfirmed_seconds(self) -> float:
        """Return for how long a stream is healthy without a confirmation."""
        return self._timing.max_unconfirmed_seconds

    def start(self) -> None:
        """Begin to compare whenever it is due."""
        self._task = asyncio.create_task(self._run(), name="pod-source-confirmation")

    async def close(self) -> None:
        """End a comparison that is under way."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def confirmed(self) -> None:
        """Note that the stream has brought everything, as of now."""
        self._stats.confirmed_at = time.monotonic()
        timing = self._timing
        jitter = random.uniform(0, timing.jitter_seconds)  # noqa: S311 - no secret
        self._due(timing.quiet_seconds + jitter)
        if self._timer is None:
            self._wait_for_silence(timing.max_unconfirmed_seconds)

    def resumed(self) -> None:
        """Note that a stream goes on where an earlier one ended."""
        self._other_stream = True
        # All agents of a cluster lose the same API server at the same moment.
        seconds = random.uniform(0, self._timing.resumed_seconds)  # noqa: S311 - no secret
        self._due(min(seconds, self._due_at - time.monotonic()))

    def stopped(self) -> None:
        """Note that there is no stream to compare."""
        self._due_at = _NEVER
        self._asked = False
        self._other_stream = True
        self.error = None

    def ask(self) -> None:
        """Compare at once, for a caller that the stream has not brought.

        Not before there is a stream, and not more often than the source allows.
        """
        if self._due_at == _NEVER or self._asked or not self._may_ask():
            return
        self._asked = True
        self._changed.set()

    def _may_ask(self) -> bool:
        now, timing = time.monotonic(), self._timing
        gained = (now - self._allowed_at) / timing.unknown_seconds
        self._allowed = min(self._allowed + gained, timing.unknown_burst)
        self._allowed_at = now
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True

    def _due(self, seconds: float) -> None:
        self._due_at = time.monotonic() + seconds
        self._changed.set()

    async def _run(self) -> None:
        while True:
            await self._until_due()
            asked, self._asked = self._asked, False
            self._comparing, self._other_stream = True, False
            try:
                await self._compare()
                # Callers wait for a comparison of the stream that is followed now.
                self._asked |= asked and self._other_stream and self._due_at != _NEVER
            finally:
                self._comparing = False

    async def _until_due(self) -> None:
        while not self._asked and (wait := self._due_at - time.monotonic()) > 0:
            self._changed.clear()
            changed = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait({changed}, timeout=None if wait == _NEVER else wait)
            finally:
                changed.cancel()

    async def _compare(self) -> None:
        """Compare once, and a second time if the first found a difference. Call the outcome."""
        self._stats.comparisons += 1
        try:
            first = await self._source.compare()
            if first.differences and not first.went_back:
                await asyncio.sleep(self._timing.grace_seconds)
                second = await self._source.compare()
                # What was still on its way has come meanwhile; other changes may be on theirs.
                lasting = first.differences & second.differences
                first = Comparison(first.asked_at, lasting, second.went_back)
        except Unavailable as error:
            self._failed(error)
            return
        except Exception as error:  # noqa: BLE001 - whatever a source sends, the agent goes on
            self._failed(unexpected_error(error, self._source.describe()))
            return
        if self._other_stream:  # what was compared is not what is followed now
            return
        self._failures.log_recovered()
        self._failures.reset()
        self.error = None
        if first.went_back or first.differences:
            self._stats.missed += 1
            self.stopped()
            self._outcomes.missed(self._missed(first))
        else:
            self._outcomes.confirmed(first.asked_at)

    def _failed(self, error: Unavailable) -> None:
        if self._other_stream:
            return
        self._due(max(self._failures.pause(), error.retry_after_seconds))
        self.error = error.with_retry_after(error.retry_after_seconds)
        self._failures.log(error)
        self._outcomes.failed()

    def _missed(self, found: Comparison) -> Unavailable:
        plural = self._source.kind.plural
        if found.went_back:
            why = (
                "The resource versions of the API server went back, so its watch, which goes on"
                " from a later one, brings nothing"
            )
            advice = (
                "The cluster's etcd was probably restored from a backup. The agent lists the"
                f" {plural} again."
            )
        else:
            why = (
                f"The stream of {plural} did not bring {len(found.differences)} of the changes that"
                f" a list of the same {plural} has"
            )
            advice = f"The agent lists the {plural} again."
        return unavailable(f"{why}.", self._source.describe(), advice)

    def _wait_for_silence(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._look_for_silence)

    def _look_for_silence(self) -> None:
        """Say so once if the last confirmation is too long ago; `confirmed` looks again."""
        self._timer = None
        silent = time.monotonic() - self._stats.confirmed_at
        left = self._timing.max_unconfirmed_seconds - silent
        if left > 0:
            self._wait_for_silence(left)
            return
        why = f" The last try failed: {self.error.message}" if self.error is not None else ""
        self._outcomes.unconfirmed(
            unavailable(
                f"For {silent:.0f} s no list has confirmed that the stream of"
                f" {self._source.kind.plural} is complete.{why}",
                self._source.describe(),
                self.error.advice if self.error is not None else "The agent goes on trying.",
            )
        )
