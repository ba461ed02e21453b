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
        self._lock = threading.Lock()
        self._newest: tuple[tuple[Pod, ...], datetime, bool] | None = None

    def give(self, pods: tuple[Pod, ...], observed_at: datetime, *, resumed: bool = False) -> None:
        """Give a list. May be called from any thread; does not block."""
        with self._lock:
            on_its_way = self._newest is not None
            self._newest = pods, observed_at, resumed
        if not on_its_way:
            with suppress(RuntimeError):  # the loop is closed: nobody takes it any more
                self._loop.call_soon_threadsafe(self._hand_over)

    def close(self) -> None:
        """Hand over what was given. Called on the loop."""
        self._hand_over()

    def _hand_over(self) -> None:
        with self._lock:
            newest, self._newest = self._newest, None
        if newest is not None:
            pods, observed_at, resumed = newest
            self._take(pods, observed_at, resumed=resumed)
