"""Token buckets by pod, refilled at a steady rate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container

_MAX_PODS = 4096
_ROUNDING_SECONDS = 1e-9
_SHARED = ""
"""The key of callers that are no known pod, and of pods past the limit."""


class TokenBuckets:
    """Buckets by pod. Used on one event loop.

    The generic cell rate algorithm (ITU-T I.371): a bucket is one number, the time at which it
    is full again. A full bucket is not kept. Another one is forgotten only when its pod has ended
    (`retain`), so that no pod gets tokens back by making the agent forget. Past the limit,
    new pods share one bucket.
    """

    def __init__(
        self,
        per_second: float,
        burst: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        max_debt_seconds: float = math.inf,
    ) -> None:
        """`burst` is how many tokens a full bucket holds, one at least.

        `max_debt_seconds` is the time in which the deepest debt is made up for.
        """
        self._max_debt_seconds = max_debt_seconds
        self._token_seconds = 1 / per_second
        self._full_seconds = burst / per_second
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._swept_at = clock()

    def __len__(self) -> int:
        return len(self._full_at)

    def retain(self, pod_keys: Container[str]) -> None:
        """Forget full buckets, and those of other pods than these."""
        now = self._clock()
        self._full_at = {
            key: at
            for key, at in self._full_at.items()
            if at > now and (key in pod_keys or key == _SHARED)
        }

    def take(self, pod_key: str) -> float:
        """Take one token and return 0, or take none and return in how many seconds there is one."""
        now, full_at = self._clock(), self._full_at.get(pod_key)
        if full_at is None:
            key, full_at, missing = self._after(pod_key, 1, now)
            if not missing:
                self._full_at[key] = full_at
            return missing
        full_at = (full_at if full_at > now else now) + self._token_seconds
        missing = full_at - now - self._full_seconds
        if missing > _ROUNDING_SECONDS:
            return missing
        self._full_at[pod_key] = full_at
        return 0.0

    def charge(self, pod_key: str, tokens: float = 1) -> float:
        """Take tokens even if there are none; return in how many seconds that is made up for."""
        key, full_at, missing = self._after(pod_key, tokens, self._clock())
        excess = max(0.0, missing - self._max_debt_seconds)
        self._full_at[key] = full_at - excess
        return missing - excess

    def give_back(self, pod_key: str, tokens: float = 1) -> None:
        """Put tokens back that were taken lately."""
        if pod_key in self._full_at:
            self._full_at[pod_key] -= tokens * self._token_seconds

    def _after(self, pod_key: str, tokens: float, now: float) -> tuple[str, float, float]:
        """Return the bucket, when it is full after taking tokens, and the seconds it lacks."""
        key = self._key(pod_key, now)
        full_at = max(now, self._full_at.get(key, now)) + tokens * self._token_seconds
        missing = full_at - now - self._full_seconds
        return key, full_at, missing if missing > _ROUNDING_SECONDS else 0.0

    def _key(self, pod_key: str, now: float) -> str:
        if pod_key in self._full_at or len(self._full_at) < _MAX_PODS:
            return pod_key
        if now - self._swept_at >= self._full_seconds:
            self._swept_at = now
            self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        return pod_key if len(self._full_at) < _MAX_PODS else _SHARED
