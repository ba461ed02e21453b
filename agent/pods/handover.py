"""From a thread that follows a stream to the event loop."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from datetime import datetime

from netutil.agent.pods.model import Pod
from netutil.agent.pods.source import Take


class Handover:
    """Hands over what was given last. A loop that is busy finds one list, not a queue of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Take) -> None:
        self._loop = loop
        self._take = take
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._newest: tuple[tuple[Pod, ...], datetime] | None = None
        self._given = 0

    def give(self, pods: tuple[Pod, ...], observed_at: datetime) -> None:
        """Give a list. May be called from any thread; does not block."""
        with self._lock:
            on_its_way = self._newest is not None
            self._newest = pods, observed_at
            self._given += 1
        if not on_its_way:
            with suppress(RuntimeError):  # the loop is closed: nobody takes it any more
                self._loop.call_soon_threadsafe(self._hand_over)

    def give_after(self, seconds: float, pods: tuple[Pod, ...], observed_at: datetime) -> None:
        """Give a list later, unless another is given before. May be called from any thread."""
        with self._lock:
            given = self._given

        def begin() -> None:
            # A list that was given since may have been handed over before this turn came.
            if not self._closed and self._given == given:
                self._timer = self._loop.call_later(seconds, self._take, pods, observed_at)

        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(begin)

    def close(self) -> None:
        """Hand over what was given, and nothing that was to come later. Called on the loop."""
        self._hand_over()
        self._closed = True

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            newest, self._newest = self._newest, None
        if newest is not None:
            self._take(*newest)
