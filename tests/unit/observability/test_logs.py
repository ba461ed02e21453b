"""The rate limit of the log: what passes, what is counted, and what is kept for it."""

from __future__ import annotations

import logging

import pytest
from netutil.agent.observability import log_setup
from netutil.agent.observability.log_setup import _RateLimitFilter


def record(message: str, at: float) -> logging.LogRecord:
    made = logging.LogRecord("agent", logging.INFO, __file__, 1, message, (), None)
    made.created = at
    return made


def test_the_next_record_that_passes_says_how_many_were_left_out() -> None:
    at_most = _RateLimitFilter(per_second=2)
    assert [at_most.filter(record("one", 5.0)) for _ in range(5)] == [True, True] + [False] * 3
    later = record("one", 6.0)
    assert at_most.filter(later)
    assert later.msg == "one [and 3 more like it before]"


def test_kinds_of_records_have_limits_of_their_own() -> None:
    at_most = _RateLimitFilter(per_second=1)
    assert [at_most.filter(record(kind, 5.0)) for kind in "aabb"] == [True, False, True, False]


def test_records_of_ever_new_kinds_are_not_kept_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_setup, "_MAX_KINDS", 10)
    at_most = _RateLimitFilter()
    for number in range(1000):
        assert at_most.filter(record(f"line {number}", float(number)))
    assert len(at_most._seen) <= 10
