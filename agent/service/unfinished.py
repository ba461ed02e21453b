"""What is under way for each pod: calls, streams, and answers that nobody has taken yet.

A caller may ask and never read. gRPC keeps each such call, and its whole answer, for as long as
the connection is open: unlimited, one pod could fill the agent's memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from netutil.agent.errors import OverLimit, Reason

SMALL_ANSWER_BYTES = 4096
"""Answers up to this size are not counted: the limit of calls bounds them."""


@dataclass(frozen=True, slots=True)
class UnfinishedLimits:
    """Of one pod: calls, streams among them, and bytes of untaken answers; and those of all."""

    calls_of_pod: int = 256
    streams_of_pod: int = 128
    bytes_of_pod: int = 8 * 1024 * 1024
    bytes_of_all: int = 64 * 1024 * 1024


@dataclass(slots=True)
class _Held:
    calls: int = 0
    streams: int = 0
    bytes: int = 0


def _when_done(end: Callable[[object], None]) -> None:
    """Call `end` when gRPC is done with the call that is answered here.

    gRPC calls what ServicerContext.add_done_callback is given at the end of this same task
    (aio/server.pyx.pxi, `_add_callback_handler`), but the context then refers to itself: each
    call would leave ten objects for the garbage collector.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in one
    task.add_done_callback(end)


class Unfinished:
    """The unfinished calls by pod. A call is finished when gRPC is done with it."""

    def __init__(self, limits: UnfinishedLimits) -> None:
        self._limits = limits
        self._held: dict[str, _Held] = {}
        self.calls = 0
        self.streams = 0
        self.bytes = 0

    def calls_of(self, pod_key: str) -> int:
        """Return how many calls of a pod are under way."""
        held = self._held.get(pod_key)
        return held.calls if held is not None else 0

    def begin(self, pod_key: str, *, stream: bool = False) -> None:
        """Count the call that runs here until it is finished.

        Raises `OverLimit` past a limit of the pod.
        """
        held = self._held.get(pod_key) or _Held()
        if held.calls >= self._limits.calls_of_pod:
            raise OverLimit(
                Reason.TOO_MANY_CALLS_OF_POD,
                f"{held.calls} calls of the caller's pod are under way.",
                read="the agent's table of calls",
                advice="Read the answers and end calls; --max-calls-per-pod sets the limit.",
            )
        if stream and held.streams >= self._limits.streams_of_pod:
            raise OverLimit(
                Reason.TOO_MANY_STREAMS_OF_POD,
                f"{held.streams} streams of the caller's pod are open.",
                read="the agent's table of calls",
                advice="Keep one Watch for each process and end it; --max-streams-per-pod sets the"
                " limit.",
            )
        self._held[pod_key] = held
        held.calls += 1
        self.calls += 1
        held.streams += stream
        self.streams += stream

        def end(_: object) -> None:
            held.calls -= 1
            self.calls -= 1
            held.streams -= stream
            self.streams -= stream
            if not held.calls:
                del self._held[pod_key]

        _when_done(end)

    def hold(self, pod_key: str, size_bytes: int) -> None:
        """Count an answer of the call that runs here, and was begun, until it is taken.

        Raises `OverLimit` past a limit; a pod that holds none yet is always given one.
        """
        if size_bytes > SMALL_ANSWER_BYTES:
            held = self._add(pod_key, size_bytes)
            _when_done(lambda _: self._take(held, size_bytes))

    @contextmanager
    def holding(self, pod_key: str, size_bytes: int) -> Iterator[None]:
        """Count one message of a stream that was begun while it is written. Raises as `hold`."""
        held = self._add(pod_key, size_bytes)
        try:
            yield
        finally:
            self._take(held, size_bytes)

    def _add(self, pod_key: str, size_bytes: int) -> _Held:
        held, limits = self._held[pod_key], self._limits
        over = (
            held.bytes + size_bytes > limits.bytes_of_pod
            or self.bytes + size_bytes > limits.bytes_of_all
        )
        if held.bytes and over:
            raise OverLimit(
                Reason.TOO_MANY_UNREAD_ANSWERS,
                f"The caller's pod has not taken {held.bytes} bytes of answers yet.",
                read="the agent's table of calls",
                advice="Read the answers, and ask for less at once; --max-unread-bytes-per-pod and"
                " --max-unread-bytes set the limits.",
            )
        held.bytes += size_bytes
        self.bytes += size_bytes
        return held

    def _take(self, held: _Held, size_bytes: int) -> None:
        held.bytes -= size_bytes
        self.bytes -= size_bytes
