"""How often each pod may do something: a bucket of tokens for each, refilled at a steady rate."""

from __future__ import annotations

import time
from collections.abc import Callable

_MOST_PODS = 4096
_ROUNDING_SECONDS = 1e-9
_SHARED = ""
"""The key of callers that are no known pod, and of whoever there is no room for."""


class Rates:
    """Buckets by pod, used on one event loop.

    The generic cell rate algorithm (ITU-T I.371): a bucket is one number, the time at which it
    is full again. A bucket that is full is not kept, and only such a one is ever forgotten: nobody
    gets tokens back by making others forget. Where there is no room, new pods share one bucket.
    """

    def __init__(
        self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`burst` is how many tokens a full bucket holds, one at least."""
        self._token_seconds = 1 / per_second
        self._full_seconds = burst / per_second
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._swept_at = clock()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, pod_key: str) -> float:
        """Take one token and return 0, or take none and return in how many seconds there is one."""
        key, full_at, missing = self._after_one(pod_key)
        if not missing:
            self._full_at[key] = full_at
        return missing

    def charge(self, pod_key: str) -> float:
        """Take one token even if there is none; return in how many seconds that is made up for."""
        key, full_at, missing = self._after_one(pod_key)
        self._full_at[key] = full_at
        return missing

    def give_back(self, pod_key: str) -> None:
        """Put one token back that was taken lately."""
        now = self._clock()
        key = self._key(pod_key, now)
        self._full_at[key] = self._full_at.get(key, now) - self._token_seconds

    def _after_one(self, pod_key: str) -> tuple[str, float, float]:
        """Return the bucket, when it is full after one token more, and the seconds it lacks."""
        now = self._clock()
        key = self._key(pod_key, now)
        full_at = max(now, self._full_at.get(key, now)) + self._token_seconds
        missing = full_at - now - self._full_seconds
        return key, full_at, missing if missing > _ROUNDING_SECONDS else 0.0

    def _key(self, pod_key: str, now: float) -> str:
        if pod_key in self._full_at or len(self._full_at) < _MOST_PODS:
            return pod_key
        if now - self._swept_at >= self._full_seconds:
            self._swept_at = now
            self._full_at = {key: at for key, at in self._full_at.items() if at > now}
        return pod_key if len(self._full_at) < _MOST_PODS else _SHARED
