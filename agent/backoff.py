"""Exponential back-off with jitter."""

from __future__ import annotations

import random

_MAX_DOUBLINGS = 16


class Backoff:
    """Counts consecutive failures, and gives the pause after each. Used on one event loop."""

    def __init__(self, first_seconds: float, max_seconds: float, *, jitter: float = 0.5) -> None:
        """Double the pause from `first_seconds` up to `max_seconds`.

        `jitter` is the part of a pause, from 0 to 1, that is random. Not 1: with full jitter, the
        agents of many nodes could try again at once; the rest is a floor.
        """
        self._first_seconds = first_seconds
        self._max_seconds = max_seconds
        self._jitter = jitter
        self.consecutive = 0

    def pause(self) -> float:
        """Count a failure; return the pause after the failure in seconds."""
        doublings = min(self.consecutive, _MAX_DOUBLINGS)
        longest = min(self._first_seconds * 2.0**doublings, self._max_seconds)
        self.consecutive += 1
        return longest * random.uniform(1.0 - self._jitter, 1.0)  # noqa: S311 - no secret

    def reset(self) -> None:
        """Forget the failures: the next pause is the first again."""
        self.consecutive = 0
