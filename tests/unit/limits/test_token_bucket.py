"""Tokens by pod: how many may be taken, when the next one is there, and which are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.limits import token_bucket
from netutil.agent.limits.token_bucket import TokenBuckets


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def buckets(clock: Clock, per_second: float = 10, burst: float = 5) -> TokenBuckets:
    return TokenBuckets(per_second, burst, clock)


def test_a_burst_is_available_at_once_then_one_token_at_a_time() -> None:
    clock = Clock()
    tokens = buckets(clock)
    assert [tokens.take("pod") for _ in range(5)] == [0.0] * 5
    assert tokens.take("pod") == pytest.approx(0.1)
    clock.now += 0.1
    assert tokens.take("pod") == 0.0
    assert tokens.take("pod") > 0


def test_the_wait_that_is_returned_is_exact() -> None:
    clock = Clock()
    tokens = buckets(clock, per_second=3, burst=1)
    assert tokens.take("pod") == 0.0
    wait = tokens.take("pod")
    clock.now += wait * 0.99
    assert tokens.take("pod") > 0
    clock.now += wait * 0.01
    assert tokens.take("pod") == 0.0


def test_a_token_that_was_not_given_costs_nothing() -> None:
    clock = Clock()
    tokens = buckets(clock)
    for _ in range(100):
        tokens.take("pod")
    clock.now += 0.2
    assert [tokens.take("pod") == 0.0 for _ in range(3)] == [True, True, False]


def test_a_charge_is_taken_from_an_empty_bucket_too() -> None:
    clock = Clock()
    tokens = buckets(clock)
    assert [tokens.charge("pod") for _ in range(5)] == [0.0] * 5
    assert tokens.charge("pod") == pytest.approx(0.1)
    assert tokens.charge("pod") == pytest.approx(0.2)


def test_each_pod_has_its_own_tokens() -> None:
    clock = Clock()
    tokens = buckets(clock)
    for _ in range(6):
        tokens.take("hostile")
    assert tokens.take("other") == 0.0


def test_many_new_keys_give_no_pod_tokens_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_bucket, "_MAX_PODS", 10)
    clock = Clock()
    tokens = buckets(clock)
    for _ in range(5):
        tokens.take("hostile")
    answers = [tokens.take(f"churn-{number}") for number in range(1000)]
    assert tokens.take("hostile") > 0
    assert len(tokens) <= 11
    assert answers.count(0.0) == 9 + 5, "those beyond the capacity share one bucket"


def test_only_a_full_bucket_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_bucket, "_MAX_PODS", 2)
    clock = Clock()
    tokens = buckets(clock)
    tokens.take("quiet")
    clock.now += 0.6
    for _ in range(5):
        tokens.take("busy")
    assert tokens.take("new") == 0.0
    assert len(tokens) == 2
    assert tokens.take("busy") > 0


def test_a_forgotten_bucket_was_full_in_a_table_of_the_real_size() -> None:
    clock = Clock()
    tokens = buckets(clock, per_second=1, burst=3)
    for _ in range(3):
        assert tokens.take("hostile") == 0
    for number in range(2 * token_bucket._MAX_PODS):
        tokens.take(f"other {number}")
    assert len(tokens) <= token_bucket._MAX_PODS + 1
    assert tokens.take("hostile") > 0
    clock.now += 1.0
    assert tokens.take("hostile") == 0
    assert tokens.take("hostile") > 0


def test_tokens_that_are_given_back_may_be_taken_again() -> None:
    clock = Clock()
    tokens = buckets(clock)
    for _ in range(5):
        tokens.take("pod")
    tokens.give_back("pod", 2)
    assert [tokens.take("pod") == 0.0 for _ in range(3)] == [True, True, False]


def test_a_refund_never_fills_a_bucket_beyond_its_size() -> None:
    clock = Clock()
    tokens = buckets(clock)
    tokens.give_back("pod", 100)
    tokens.take("pod")
    tokens.give_back("pod", 100)
    assert [tokens.take("pod") == 0.0 for _ in range(6)] == [True] * 5 + [False]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 3), st.booleans()), max_size=60),
    st.floats(0.5, 20),
    st.floats(1, 20),
)
def test_no_pod_takes_more_than_its_burst_and_its_rate(
    steps: list[tuple[str, float, bool]], per_second: float, burst: float
) -> None:
    clock = Clock()
    tokens = buckets(clock, per_second, burst)
    began, taken = clock.now, dict.fromkeys("ab", 0)
    for pod, seconds, is_many in steps:
        clock.now += seconds
        for _ in range(5 if is_many else 1):
            taken[pod] += tokens.take(pod) == 0.0
        assert taken[pod] <= burst + (clock.now - began) * per_second + 1e-3


def test_a_debt_is_no_deeper_than_its_bound() -> None:
    clock = Clock()
    tokens = TokenBuckets(10, 5, clock, max_debt_seconds=2.0)
    assert tokens.charge("pod", 10_000) == pytest.approx(2.0)
    assert tokens.charge("pod", 10_000) == pytest.approx(2.0)
    clock.now += 2.1
    assert tokens.take("pod") == 0.0


def test_a_pod_that_runs_gets_no_tokens_back_by_a_sweep() -> None:
    clock = Clock()
    tokens = buckets(clock)
    for _ in range(5):
        tokens.take("hostile")
    tokens.retain({"hostile"})
    assert tokens.take("hostile") > 0


def test_a_sweep_drops_full_buckets_and_those_of_ended_pods() -> None:
    clock = Clock()
    tokens = buckets(clock)
    tokens.take("full by then")
    clock.now += 1
    for key in ("runs", "ended", ""):
        tokens.take(key)
    tokens.retain({"full by then", "runs"})
    assert len(tokens) == 2, "the one that runs, and the one that all others share"
    clock.now += 1
    tokens.retain({"runs"})
    assert len(tokens) == 0
