"""What is under way for each pod: calls, and answers that their callers have not yet taken.

A caller may ask and never read. gRPC keeps each such call, and its whole answer, for as long as
the connection is open: unlimited, one pod could fill the agent's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import grpc
from netutil.agent.errors import Exhausted, Reason

Context = grpc.aio.ServicerContext[Any, Any]
SMALL_ANSWER_BYTES = 4096
"""Answers up to this size are not counted: the limit of calls bounds them."""


@dataclass(frozen=True, slots=True)
class UnfinishedLimits:
    """Of one pod: calls, and bytes of untaken answers; and such bytes of all pods together."""

    calls_of_pod: int = 256
    bytes_of_pod: int = 8 * 1024 * 1024
    bytes_of_all: int = 64 * 1024 * 1024


@dataclass(slots=True)
class _Held:
    calls: int = 0
    bytes: int = 0


def _when_done(context: Context, end: Callable[[object], None]) -> None:
    context.add_done_callback(cast("Any", end))  # types-grpcio has a callback of its own kind


class Unfinished:
    """The unfinished calls by pod. A call is finished when gRPC is done with it."""

    def __init__(self, limits: UnfinishedLimits) -> None:
        self._limits = limits
        self._held: dict[str, _Held] = {}
        self.calls = 0
        self.bytes = 0

    def begin(self, pod_key: str, context: Context) -> None:
        """Count a call until it is finished. Raises `Exhausted` past the pod's limit."""
        held = self._held.setdefault(pod_key, _Held())
        if held.calls >= self._limits.calls_of_pod:
            raise Exhausted(
                Reason.TOO_MANY_CALLS_OF_POD,
                f"{held.calls} calls of the caller's pod are under way.",
                read="the agent's table of calls",
                advice="Read the answers and end calls; --max-calls-per-pod sets the limit.",
            )
        held.calls += 1
        self.calls += 1

        def end(_: object) -> None:
            held.calls -= 1
            self.calls -= 1
            if not held.calls:
                del self._held[pod_key]

        _when_done(context, end)

    def hold(self, pod_key: str, size_bytes: int, context: Context) -> None:
        """Count an answer of a call that was begun, until it is taken.

        Raises `Exhausted` past a limit; a pod that holds none yet is always given one.
        """
        if size_bytes <= SMALL_ANSWER_BYTES:
            return
        held, limits = self._held[pod_key], self._limits
        over = (
            held.bytes + size_bytes > limits.bytes_of_pod
            or self.bytes + size_bytes > limits.bytes_of_all
        )
        if held.bytes and over:
            raise Exhausted(
                Reason.TOO_MANY_UNREAD_ANSWERS,
                f"The caller's pod has not taken {held.bytes} bytes of answers yet.",
                read="the agent's table of calls",
                advice="Read the answers, and ask for less at once.",
            )
        held.bytes += size_bytes
        self.bytes += size_bytes

        def end(_: object) -> None:
            held.bytes -= size_bytes
            self.bytes -= size_bytes

        _when_done(context, end)
