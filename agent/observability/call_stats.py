"""Statistics of calls by pod, and the feed of calls for `netutil node trace`."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Literal

from netutil.agent.connections.registry import Connection

MAX_PODS = 1024

LATENCY_BOUNDS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
"""Upper bounds of the buckets in which the calls of a pod are counted; one more has none."""
_MAX_WAITING = 1024
"""Calls queued for one subscriber: about half a second of a busy agent."""
Event = Literal["answered", "began", "ended"]

_DENIALS = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED"})
"""Statuses of refused calls."""


@dataclass(slots=True)
class PodCalls:
    """The calls of one pod since the agent's start.

    `refused`, `not_found` and `failed` are among `calls`. `seconds` is the time of all together.
    `last_error` is the reason of the last refused or failed call.
    """

    calls: int = field(default=0, init=False)
    refused: int = field(default=0, init=False)
    not_found: int = field(default=0, init=False)
    failed: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)
    latency_counts: list[int] = field(
        default_factory=lambda: [0] * (len(LATENCY_BOUNDS_SECONDS) + 1), init=False
    )
    last_error: str = field(default="", init=False)
    last_error_time: float = field(default=0.0, init=False)


@dataclass(slots=True)
class CallStats:
    """Calls by pod; the pods that asked last are remembered."""

    by_pod: OrderedDict[str, PodCalls] = field(default_factory=OrderedDict)
    """The pod that asked last is the last."""

    def __len__(self) -> int:
        return len(self.by_pod)

    def retain(self, pod_keys: Container[str]) -> None:
        """Forget the calls of other pods than these."""
        for key in tuple(self.by_pod):
            if key not in pod_keys:
                del self.by_pod[key]

    def record(self, pod_key: str, code: str, reason: str, seconds: float) -> None:
        """Count one call; `reason` is "" for an answered call, `code` names the gRPC status."""
        entry = self.by_pod.get(pod_key)
        if entry is None:
            entry = self.by_pod[pod_key] = PodCalls()
            if len(self.by_pod) > MAX_PODS:
                self.by_pod.popitem(last=False)
        else:
            self.by_pod.move_to_end(pod_key)
        entry.calls += 1
        entry.seconds += seconds
        entry.latency_counts[bisect_left(LATENCY_BOUNDS_SECONDS, seconds)] += 1
        if not reason:
            return
        if code == "NOT_FOUND":
            entry.not_found += 1
            return
        if code in _DENIALS:
            entry.refused += 1
        else:
            entry.failed += 1
        entry.last_error = reason
        entry.last_error_time = time.time()


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
class TraceSubscriber:
    """The calls queued for one trace stream. Used on the event loop only."""

    _calls: deque[TracedCall] = field(default_factory=deque)
    _lost: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: bool = False

    async def next(self) -> tuple[list[TracedCall], int] | None:
        """Return the calls since the last time, and how many were lost; None at the end."""
        await self._changed.wait()
        if self._ended and not self._calls and not self._lost:
            return None
        calls, lost = list(self._calls), self._lost
        self._calls.clear()
        self._lost = 0
        if not self._ended:
            self._changed.clear()
        return calls, lost

    def notify(self, call: TracedCall) -> None:
        """Queue a call; drop the oldest one if the queue is full."""
        if len(self._calls) >= _MAX_WAITING:
            self._calls.popleft()
            self._lost += 1
        self._calls.append(call)
        self._changed.set()

    def close(self) -> None:
        """Let `next` return None once the queue is empty."""
        self._ended = True
        self._changed.set()


class CallFeed:
    """Publishes each call to the trace streams. `subscribers` is empty while there are none."""

    def __init__(self) -> None:
        self.subscribers: set[TraceSubscriber] = set()
        self._stopped = False

    def subscribe(self) -> TraceSubscriber:
        """Return a new subscriber, which gets each call until `unsubscribe`."""
        subscriber = TraceSubscriber()
        if self._stopped:
            subscriber.close()
        self.subscribers.add(subscriber)
        return subscriber

    def unsubscribe(self, subscriber: TraceSubscriber) -> None:
        """Publish no more calls to a subscriber."""
        self.subscribers.discard(subscriber)

    def notify(
        self,
        method: str,
        event: Event,
        connection: Connection | None,
        code: str,
        reason: str,
        seconds: float,
    ) -> None:
        """Publish a call to all subscribers."""
        call = TracedCall(time.time(), method, event, connection, code, reason, seconds)
        for subscriber in self.subscribers:
            subscriber.notify(call)

    def stop(self) -> None:
        """End all trace streams: the agent stops."""
        self._stopped = True
        for subscriber in self.subscribers:
            subscriber.close()
