"""Readiness of a descriptor, told at a bounded rate.

What makes these descriptors readable is in a workload's hands: it may change its links
ten thousand times a second. Whoever reads after a pause reads it all at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_PAUSE_SECONDS = 0.02


class PacedReader:
    """Calls `read` on the running loop when the descriptor is readable, 50 times a second at most.

    The first call comes at once. Close it before the descriptor.
    """

    __slots__ = ("_descriptor", "_loop", "_read", "_resuming")

    def __init__(self, descriptor: int, read: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._read = read
        self._resuming: asyncio.TimerHandle | None = None
        self._resume()

    def close(self) -> None:
        """Call no more."""
        if self._resuming is not None:
            self._resuming.cancel()
        self._loop.remove_reader(self._descriptor)

    def _resume(self) -> None:
        self._resuming = None
        self._loop.add_reader(self._descriptor, self._ready)

    def _ready(self) -> None:
        self._loop.remove_reader(self._descriptor)
        self._resuming = self._loop.call_later(_PAUSE_SECONDS, self._resume)
        self._read()
