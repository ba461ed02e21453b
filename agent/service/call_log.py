"""The calls of each pod since the agent's start: how many, how fast, and the last error."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Container
from dataclasses import dataclass, field

MAX_PODS = 1024

LATENCY_BOUNDS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
"""Upper bounds of the buckets in which the calls of a pod are counted; one more has none."""

_DENIALS = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED"})
"""Statuses of refused calls."""


@dataclass(slots=True)
class PodCalls:
    """The calls of one pod since the agent's start.

    `refused`, `not_found` and `failed` are among `calls`. `seconds` is the time of all together.
    `last_error` is the reason of the last refused or failed call.
    """

    calls: int = 0
    refused: int = 0
    not_found: int = 0
    failed: int = 0
    seconds: float = 0.0
    latency_counts: list[int] = field(
        default_factory=lambda: [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
    )
    last_error: str = ""
    last_error_time: float = 0.0


@dataclass(slots=True)
class CallLog:
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
