"""The calls as they are answered, for operators who look on.

While nobody does, a call pays for one look at an empty set. Each onlooker has a
bounded queue: one that does not read in time is told how many calls it missed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from netutil.agent.connections.registry import Connection

_WAITING = 1024
"""Calls that wait for one onlooker: about half a second of a busy agent."""

Event = Literal["answered", "began", "ended"]


@dataclass(frozen=True, slots=True)
class TracedCall:
    """One call, without anything that was asked for or answered. `at` is a time (time.time)."""

    at: float
    method: str
    event: Event
    connection: Connection | None
    code: str
    reason: str
    seconds: float


@dataclass(eq=False, slots=True)
class Onlooker:
    """The calls that one operator has not been told yet; used on the event loop only."""

    _calls: deque[TracedCall] = field(default_factory=deque)
    _lost: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: bool = False

    async def next(self) -> tuple[list[TracedCall], int] | None:
        """Return the calls since the last time, and how many were lost; None at the end."""
        await self._news.wait()
        if self._ended and not self._calls and not self._lost:
            return None
        calls, lost = list(self._calls), self._lost
        self._calls.clear()
        self._lost = 0
        if not self._ended:
            self._news.clear()
        return calls, lost

    def tell(self, call: TracedCall) -> None:
        """Hand over a call, in the place of the oldest if too many wait."""
        if len(self._calls) >= _WAITING:
            self._calls.popleft()
            self._lost += 1
        self._calls.append(call)
        self._news.set()

    def end(self) -> None:
        """Let `next` return None once all is told."""
        self._ended = True
        self._news.set()


class Tracing:
    """Who looks on: `onlookers` is empty while nobody does."""

    def __init__(self) -> None:
        self.onlookers: set[Onlooker] = set()
        self._stopped = False

    def join(self) -> Onlooker:
        """Return a new onlooker, who is told of each call from now on until `leave`."""
        onlooker = Onlooker()
        if self._stopped:
            onlooker.end()
        self.onlookers.add(onlooker)
        return onlooker

    def leave(self, onlooker: Onlooker) -> None:
        """Tell that onlooker nothing more."""
        self.onlookers.discard(onlooker)

    def tell(
        self,
        method: str,
        event: Event,
        connection: Connection | None,
        code: str,
        reason: str,
        seconds: float,
    ) -> None:
        """Tell all onlookers of a call."""
        call = TracedCall(time.time(), method, event, connection, code, reason, seconds)
        for onlooker in self.onlookers:
            onlooker.tell(call)

    def stop(self) -> None:
        """End every onlooker's stream: the agent stops."""
        self._stopped = True
        for onlooker in self.onlookers:
            onlooker.end()
