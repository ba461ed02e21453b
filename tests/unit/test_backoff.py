"""Pauses between the attempts at a source that fails."""

from __future__ import annotations

import random

import pytest
from netutil.agent.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(0.5, 3.0, jitter=0)
    assert [backoff.pause() for _ in range(4)] == [0.5, 1.0, 2.0, 3.0]
    assert backoff.consecutive == 4


def test_a_success_starts_again_with_the_first_pause() -> None:
    backoff = Backoff(0.5, 30.0, jitter=0)
    backoff.pause()
    backoff.pause()
    backoff.reset()
    assert (backoff.consecutive, backoff.pause()) == (0, 0.5)


def test_jitter_shortens_a_pause_by_at_most_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[tuple[float, float]] = []

    def least(low: float, high: float) -> float:
        bounds.append((low, high))
        return low

    monkeypatch.setattr(random, "uniform", least)
    assert Backoff(4.0, 30.0, jitter=0.25).pause() == 3.0
    assert bounds == [(0.75, 1.0)]


def test_many_failures_do_not_overflow() -> None:
    backoff = Backoff(0.5, 30.0, jitter=0)
    assert max(backoff.pause() for _ in range(5000)) == 30.0
