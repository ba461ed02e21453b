"""How often snapshots are made: for one watcher, and for all watchers of a pod together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from netutil.agent.limits.token_bucket import TokenBuckets

LEAST_SECONDS = 0.1
"""Least time between two snapshots for one watcher."""
_POD_SECONDS = 0.05
_BURST = 64
"""A pod's watchers may make so many at once, and then one in `_POD_SECONDS`."""


class Pace:
    """Turns by pod. A pod that changes without end costs a bounded share of the agent.

    A pod of 64 watchers hears of one change at once, on all of them.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self.tokens = TokenBuckets(1 / _POD_SECONDS, _BURST, clock)

    async def turn(self, pod_key: str, last: float) -> float:
        """Return, once a snapshot may be made, that time; `last` is what it was the last time."""
        now = self._clock()
        start = max(now + self.tokens.charge(pod_key), last + LEAST_SECONDS)
        if start > now:
            try:
                await self._sleep(start - now)
            except asyncio.CancelledError:  # nothing is made: those who stay do not pay for it
                self.tokens.give_back(pod_key)
                raise
        return start
