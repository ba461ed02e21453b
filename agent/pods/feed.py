"""The feed of pod lists that a directory uses, polled or streamed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from netutil.agent.backoff import Backoff
from netutil.agent.errors import Unavailable
from netutil.agent.pods.index import PodList

_LOG = logging.getLogger(__name__)

MIN_RETRY_SECONDS = 0.1
NEVER = -float("inf")


@dataclass(slots=True)
class DirectoryStats:
    """Counts since the start; `waiting` is the number of callers that wait for a fresh list.

    Of a source that pushes, `fetches` are its streams, `restarts` those after the first,
    `changes` the lists that it pushed; `streaming` is 1 while its stream is healthy;
    `comparisons` those of a stream with a list, `missed` the streams that lacked what a list had,
    and `confirmed_at` (of time.monotonic, 0 for never) when the stream was last complete.
    """

    fetches: int = field(default=0, init=False)
    failures: int = field(default=0, init=False)
    misses: int = field(default=0, init=False)
    last_fetch_seconds: float = field(default=0.0, init=False)
    waiting: int = field(default=0, init=False)
    restarts: int = field(default=0, init=False)
    changes: int = field(default=0, init=False)
    streaming: int = field(default=0, init=False)
    comparisons: int = field(default=0, init=False)
    missed: int = field(default=0, init=False)
    confirmed_at: float = field(default=0.0, init=False)

    @property
    def unconfirmed_seconds(self) -> float:
        """Return how long ago a stream was last known to be complete, 0 before any was."""
        return time.monotonic() - self.confirmed_at if self.confirmed_at else 0.0


class PodFeed(Protocol):
    """The last pod list, and waiting for newer ones. Used on one event loop.

    `last_error` says why the last attempt failed, None after a success.
    """

    last_error: Unavailable | None

    @property
    def fresh_until(self) -> float:
        """Return until when the last list is young enough for the pods that it contains."""

    @property
    def last(self) -> PodList | None:
        """Return the last list, None before the first."""

    @property
    def is_live(self) -> bool:
        """Return whether a pod that the last list lacks is not on the node."""

    @property
    def not_live(self) -> Unavailable | None:
        """Return why the last list is not live, None if the reason is not known."""

    @property
    def unconfirmed(self) -> Unavailable | None:
        """Return why a streamed list has been unconfirmed for too long, None if it has not."""

    def snapshot_token(self) -> int:
        """Return the token of the current state, for `is_newer_than` and `wait_newer`."""

    def is_newer_than(self, mark: int) -> bool:
        """Return whether the last list was requested after the token, or is kept up to date."""

    async def wait_briefly(self) -> bool:
        """Return whether a newer list came within a short wait."""

    async def wait_newer(self, mark: int, enough: Callable[[], bool]) -> None:
        """Return when the last list is enough, or newer than the token.

        Raises `Unavailable` if no newer list can be fetched now. Waits without a bound.
        """

    async def wait_current(self) -> None:
        """Return when the last list is current. Raises `Unavailable`."""

    def keep_fresh(self) -> AbstractContextManager[None]:
        """Within the block, keep the list fresh without requests."""

    async def close(self) -> None:
        """Wake all waiters, and close the source. Takes at most half a second."""


class Generation:
    """A number that grows with each list whose content may differ, and waiting for it.

    `wait` returns at the next `advance` or `notify_all`; the waiter checks what has changed.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        """`on_change` is called for each new list, before the waiters are woken."""
        self.generation = 0
        self._on_change = on_change
        self._event = asyncio.Event()

    def advance(self) -> None:
        """Count a new list and wake all waiters."""
        self.generation += 1
        self._on_change()
        self.notify_all()

    def notify_all(self) -> None:
        """Wake all waiters, without a new list."""
        waited, self._event = self._event, asyncio.Event()
        waited.set()

    async def wait(self) -> None:
        """Return at the next change."""
        await self._event.wait()


class LoggedBackoff(Backoff):
    """Back-off that logs the failures of a pod source and the recovery."""

    def __init__(
        self, source: str, first_seconds: float, max_seconds: float, list_name: str = "pod list"
    ) -> None:
        super().__init__(first_seconds, max_seconds)
        self._source = source
        self._list_name = list_name
        self._last_message = ""

    def log(self, error: Unavailable) -> None:
        """Log an error; the same error again only at each doubling of the failures."""
        is_new, self._last_message = self._last_message != error.message, error.message
        if is_new or self.consecutive & (self.consecutive - 1) == 0:
            text = "%s: %s (read %s; failed: %d) %s"
            found = error.message, error.read, self.consecutive, error.advice
            _LOG.warning(text, self._list_name, *found)

    def log_recovered(self) -> None:
        """Log that the source answers again, if a failure was logged."""
        if self._last_message:
            text = "%s: %s answers again, failed: %d"
            _LOG.info(text, self._list_name, self._source, self.consecutive)
            self._last_message = ""
