"""Calls, streams and unread response bytes in flight, for each pod.

A caller may call and never read. The server keeps each such call, and its answer, for as long as
the connection is open: without a limit, one pod could fill the agent's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from netutil.agent.errors import QuotaExceeded, Reason

SMALL_ANSWER_BYTES = 4096
"""Answers up to this size are not counted: the limit of calls bounds them."""


@dataclass(frozen=True, slots=True)
class InFlightLimits:
    """Of one pod: calls, streams among them, and bytes of unread answers; and those of all pods."""

    calls_per_pod: int = 256
    streams_per_pod: int = 128
    bytes_per_pod: int = 8 * 1024 * 1024
    bytes: int = 64 * 1024 * 1024


@dataclass(slots=True)
class _PodInFlight:
    calls: int = 0
    streams: int = 0
    bytes: int = 0


class InFlight:
    """The calls in flight by pod. Used on one event loop."""

    def __init__(self, limits: InFlightLimits) -> None:
        self._limits = limits
        self._pods: dict[str, _PodInFlight] = {}
        self.calls = 0
        self.streams = 0
        self.bytes = 0

    def __len__(self) -> int:
        """Return how many pods have calls in flight, or answers that they have not read."""
        return len(self._pods)

    def count_calls(self, pod_key: str) -> int:
        """Return how many calls of a pod are in flight."""
        pod = self._pods.get(pod_key)
        return pod.calls if pod is not None else 0

    def begin(self, pod_key: str, *, stream: bool = False) -> None:
        """Count a call until `end`. Raises `QuotaExceeded` past a limit of the pod."""
        pod = self._pods.get(pod_key)
        if pod is None:
            pod = _PodInFlight()
        if pod.calls >= self._limits.calls_per_pod:
            raise QuotaExceeded(
                Reason.TOO_MANY_CALLS_OF_POD,
                f"{pod.calls} calls of the caller's pod are in flight.",
                read="the agent's table of calls",
                advice="Read the answers and end calls; --max-calls-per-pod sets the limit.",
            )
        if stream and pod.streams >= self._limits.streams_per_pod:
            raise QuotaExceeded(
                Reason.TOO_MANY_STREAMS_OF_POD,
                f"{pod.streams} streams of the caller's pod are open.",
                read="the agent's table of calls",
                advice="Keep one Watch for each process and end it; --max-streams-per-pod sets the"
                " limit.",
            )
        self._pods[pod_key] = pod
        pod.calls += 1
        self.calls += 1
        if stream:
            pod.streams += 1
            self.streams += 1

    def end(self, pod_key: str, *, stream: bool = False) -> None:
        """End a call that was begun."""
        pod = self._pods[pod_key]
        pod.calls -= 1
        self.calls -= 1
        if stream:
            pod.streams -= 1
            self.streams -= 1
        if not pod.calls and not pod.bytes:
            del self._pods[pod_key]

    def reserve(self, pod_key: str, size_bytes: int) -> Callable[[], None]:
        """Count an answer until the returned function is called, once.

        Raises `QuotaExceeded` past a limit; a pod with no unread answer may always have one.
        """
        pod, limits = self._pods.setdefault(pod_key, _PodInFlight()), self._limits
        over = (
            pod.bytes + size_bytes > limits.bytes_per_pod or self.bytes + size_bytes > limits.bytes
        )
        if pod.bytes and over:
            raise QuotaExceeded(
                Reason.TOO_MANY_UNREAD_ANSWERS,
                f"The caller's pod has not read {pod.bytes} bytes of answers yet.",
                read="the agent's table of calls",
                advice="Read the answers, and ask for less at once; "
                "--max-send-buffer-bytes-per-pod and --max-send-buffer-bytes set the limits.",
            )
        pod.bytes += size_bytes
        self.bytes += size_bytes
        return partial(self._release, pod_key, pod, size_bytes)

    def _release(self, pod_key: str, pod: _PodInFlight, size_bytes: int) -> None:
        pod.bytes -= size_bytes
        self.bytes -= size_bytes
        self._forget_if_idle(pod_key, pod)

    def _forget_if_idle(self, pod_key: str, pod: _PodInFlight) -> None:
        if not pod.calls and not pod.bytes and self._pods.get(pod_key) is pod:
            del self._pods[pod_key]
