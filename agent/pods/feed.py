"""What a directory asks of the lists that a source gives it, pulled or pushed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from netutil.agent.backoff import Backoff
from netutil.agent.errors import Unavailable
from netutil.agent.pods.index import PodList

_LOG = logging.getLogger(__name__)

MIN_RETRY_SECONDS = 0.1
NEVER = -float("inf")


@dataclass(slots=True)
class DirectoryStats:
    """What was done since the start; `waiting` callers wait for a fresh list now.

    Of a source that pushes, `fetches` are its streams, `restarts` those after the first,
    `changes` the lists that it pushed; `streaming` is 1 while its stream is healthy;
    `comparisons` those of a stream with a list, `missed` the streams that lacked what a list had,
    and `confirmed_at` (of time.monotonic, 0 for never) when the stream was last complete.
    """

    fetches: int = 0
    failures: int = 0
    misses: int = 0
    last_fetch_seconds: float = 0.0
    waiting: int = 0
    restarts: int = 0
    changes: int = 0
    streaming: int = 0
    comparisons: int = 0
    missed: int = 0
    confirmed_at: float = 0.0

    @property
    def unconfirmed_seconds(self) -> float:
        """Return how long ago a stream was last known to be complete, 0 before any was."""
        return time.monotonic() - self.confirmed_at if self.confirmed_at else 0.0


class PodFeed(Protocol):
    """The last list and those to come. Used on one event loop.

    `last_error` says why the last attempt failed, None after a success.
    """

    last_error: Unavailable | None

    @property
    def last(self) -> PodList | None:
        """Return the last list that came."""

    @property
    def is_live(self) -> bool:
        """Return whether the last list tells what is not on the node, without a newer one."""

    @property
    def not_live(self) -> Unavailable | None:
        """Return why it does not tell that, None if no more is known than that it does not yet."""

    @property
    def unconfirmed(self) -> Unavailable | None:
        """Return why a pushed list has not been known to be complete for too long."""

    def is_fresh(self) -> bool:
        """Return whether the last list is young enough for those whom it knows."""

    def snapshot_token(self) -> int:
        """Return what `wait_newer` takes to tell older lists from newer ones."""

    def is_newer_than(self, mark: int) -> bool:
        """Return whether the last list was asked for after that mark, or is kept up to date."""

    async def wait_briefly(self) -> bool:
        """Return whether a newer list came within a short wait."""

    async def wait_newer(self, mark: int, enough: Callable[[], bool]) -> None:
        """Return when what is known is enough, or cannot be known better.

        Raises `Unavailable` when no newer list is to be had now. Takes as long as it takes.
        """

    async def wait_current(self) -> None:
        """Return when the last list is as of now. Raises `Unavailable`."""

    def keep_fresh(self) -> AbstractContextManager[None]:
        """Within the block, lists keep coming without anybody asking."""

    async def close(self) -> None:
        """Wake all who wait, and let the source go. Takes half a second at the most."""


class Generation:
    """A number that grows with each list whose content may differ, and a way to wait.

    `wait` returns at the next `wake`, which `advance` is too; the waiter looks what is new.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        """`note` is called with each new list, before anybody is woken."""
        self.generation = 0
        self._on_change = on_change
        self._event = asyncio.Event()

    def advance(self) -> None:
        """Count a new list and wake all who wait."""
        self.generation += 1
        self._on_change()
        self.notify_all()

    def notify_all(self) -> None:
        """Wake all who wait, without a new list."""
        waited, self._event = self._event, asyncio.Event()
        waited.set()

    async def wait(self) -> None:
        """Return at the next change."""
        await self._event.wait()


class LoggedBackoff(Backoff):
    """Back-off that logs the failures of a pod source and the recovery."""

    def __init__(self, source: str, first_seconds: float, max_seconds: float) -> None:
        super().__init__(first_seconds, max_seconds)
        self._source = source
        self._last_message = ""

    def log(self, error: Unavailable) -> None:
        """Log an error; the same error again only at each doubling of the failures."""
        is_new, self._last_message = self._last_message != error.message, error.message
        if is_new or self.consecutive & (self.consecutive - 1) == 0:
            text = "pod list: %s (read %s; failed: %d) %s"
            _LOG.warning(text, error.message, error.read, self.consecutive, error.advice)

    def log_recovered(self) -> None:
        """Log that the source answers again, if a failure was logged."""
        if self._last_message:
            _LOG.info("pod list: %s answers again, failed: %d", self._source, self.consecutive)
            self._last_message = ""
