"""What the connections of one pod have in common: bytes that nobody answered, and a stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class _Reader(Protocol):
    def read(self, *, stopped: bool) -> None:
        """Read on, or stop reading."""


class Share:
    """One pod's share of the door. Used on the event loop only.

    While it is stopped, nothing is read of what the pod sends, over no connection, also one that
    it makes meanwhile. What it sends then waits in its own sockets.
    """

    def __init__(self, most_unanswered: float, on_released: Callable[[], None]) -> None:
        """`on_released` is called when a stop has ended."""
        self._most_unanswered = most_unanswered
        self._on_released = on_released
        self._readers: set[_Reader] = set()
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.unanswered = 0

    @property
    def is_over(self) -> bool:
        """Return whether the pod has sent more than it may before it is answered."""
        return self.unanswered > self._most_unanswered

    @property
    def stopped(self) -> bool:
        """Return whether nothing is read of the pod now."""
        return self._timer is not None

    @property
    def stopped_seconds(self) -> float:
        """Return how long nothing more will be read, 0 if the pod is not stopped."""
        if self._timer is None:
            return 0.0
        return max(0.0, self._until - asyncio.get_running_loop().time())

    def join(self, reader: _Reader) -> None:
        """Let a connection of the pod be stopped with the others."""
        self._readers.add(reader)
        if self.stopped:
            reader.read(stopped=True)

    def leave(self, reader: _Reader) -> None:
        """Forget a connection."""
        self._readers.discard(reader)

    def stop(self, seconds: float) -> None:
        """Stop reading for that time from now; a stop that lasts longer already stays."""
        loop = asyncio.get_running_loop()
        self._until = max(self._until, loop.time() + seconds)
        if self._timer is None:
            self._timer = loop.call_at(self._until, self._release)
            for reader in tuple(self._readers):
                reader.read(stopped=True)

    def _release(self) -> None:
        loop = asyncio.get_running_loop()
        if self._until > loop.time():
            self._timer = loop.call_at(self._until, self._release)
            return
        self._timer = None
        for reader in tuple(self._readers):
            reader.read(stopped=False)
        self._on_released()
