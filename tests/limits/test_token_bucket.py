"""Tokens by pod: what may be taken, when the next is there, and what is never forgotten."""

from __future__ import annotations

import pytest
from netutil.agent.service import rates as rates_module
from netutil.agent.service.rates import Rates


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def rates(clock: Clock, per_second: float = 10, burst: float = 5) -> Rates:
    return Rates(per_second, burst, clock)


def test_a_burst_may_be_taken_at_once_and_then_one_token_in_its_time() -> None:
    clock = Clock()
    tokens = rates(clock)
    assert [tokens.take("pod") for _ in range(5)] == [0.0] * 5
    assert tokens.take("pod") == pytest.approx(0.1)
    clock.now += 0.1
    assert tokens.take("pod") == 0.0
    assert tokens.take("pod") > 0


def test_the_time_that_is_told_is_neither_too_short_nor_too_long() -> None:
    clock = Clock()
    tokens = rates(clock, per_second=3, burst=1)
    assert tokens.take("pod") == 0.0
    wait = tokens.take("pod")
    clock.now += wait * 0.99
    assert tokens.take("pod") > 0
    clock.now += wait * 0.01
    assert tokens.take("pod") == 0.0


def test_who_is_refused_loses_nothing_by_it() -> None:
    clock = Clock()
    tokens = rates(clock)
    for _ in range(100):
        tokens.take("pod")
    clock.now += 0.2
    assert [tokens.take("pod") == 0.0 for _ in range(3)] == [True, True, False]


def test_a_charge_is_taken_also_where_there_is_nothing_left() -> None:
    clock = Clock()
    tokens = rates(clock)
    assert [tokens.charge("pod") for _ in range(5)] == [0.0] * 5
    assert tokens.charge("pod") == pytest.approx(0.1)
    assert tokens.charge("pod") == pytest.approx(0.2)


def test_one_pods_tokens_are_not_anothers() -> None:
    clock = Clock()
    tokens = rates(clock)
    for _ in range(6):
        tokens.take("hostile")
    assert tokens.take("other") == 0.0


def test_many_new_keys_give_nobody_tokens_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates_module, "_MOST_PODS", 10)
    clock = Clock()
    tokens = rates(clock)
    for _ in range(5):
        tokens.take("hostile")
    answers = [tokens.take(f"churn-{number}") for number in range(1000)]
    assert tokens.take("hostile") > 0
    assert len(tokens) <= 11
    assert answers.count(0.0) == 9 + 5, "those without room share one bucket"


def test_only_what_is_full_again_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates_module, "_MOST_PODS", 2)
    clock = Clock()
    tokens = rates(clock)
    tokens.take("quiet")
    clock.now += 0.6
    for _ in range(5):
        tokens.take("busy")
    assert tokens.take("new") == 0.0
    assert len(tokens) == 2
    assert tokens.take("busy") > 0
