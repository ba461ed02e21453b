"""Calls, streams and unread answers are counted for their pod, and limited."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.errors import QuotaExceeded, Reason
from netutil.agent.limits.in_flight import InFlight, InFlightLimits

LIMITS = InFlightLimits(calls_per_pod=3, streams_per_pod=2, bytes_per_pod=20_000, bytes=50_000)


@pytest.fixture
def calls() -> InFlight:
    return InFlight(LIMITS)


def reason_of(action: Callable[[], object]) -> Reason | None:
    try:
        action()
    except QuotaExceeded as error:
        return error.reason
    return None


def test_a_pod_may_have_so_many_calls_in_flight(calls: InFlight) -> None:
    for _ in range(3):
        calls.begin("pod")
    assert reason_of(lambda: calls.begin("pod")) is Reason.TOO_MANY_CALLS_OF_POD
    assert calls.count_calls("pod") == calls.calls == 3
    calls.end("pod")
    calls.begin("pod")


def test_a_pod_may_have_so_many_streams_among_its_calls(calls: InFlight) -> None:
    for _ in range(2):
        calls.begin("pod", stream=True)
    assert reason_of(lambda: calls.begin("pod", stream=True)) is Reason.TOO_MANY_STREAMS_OF_POD
    calls.begin("pod")
    assert (calls.calls, calls.streams) == (3, 2)
    calls.end("pod", stream=True)
    assert (calls.calls, calls.streams) == (2, 1)
    calls.begin("pod", stream=True)


def test_a_stream_is_refused_as_a_call_first(calls: InFlight) -> None:
    for _ in range(3):
        calls.begin("pod")
    assert reason_of(lambda: calls.begin("pod", stream=True)) is Reason.TOO_MANY_CALLS_OF_POD


def test_a_refused_call_is_not_counted(calls: InFlight) -> None:
    for _ in range(3):
        calls.begin("pod")
    for _ in range(5):
        reason_of(lambda: calls.begin("pod"))
    for _ in range(3):
        calls.end("pod")
    assert (calls.calls, calls.count_calls("pod")) == (0, 0)


def test_the_calls_of_a_pod_limit_no_other(calls: InFlight) -> None:
    for _ in range(3):
        calls.begin("pod")
    calls.begin("other")
    assert calls.count_calls("other") == 1


def test_unread_answers_are_counted_until_they_are_sent(calls: InFlight) -> None:
    release = calls.reserve("pod", 15_000)
    assert reason_of(lambda: calls.reserve("pod", 15_000)) is Reason.TOO_MANY_UNREAD_ANSWERS
    assert calls.bytes == 15_000
    release()
    assert calls.bytes == 0
    calls.reserve("pod", 15_000)


def test_a_pods_first_unread_answer_may_be_of_any_size(calls: InFlight) -> None:
    """One answer is always admitted: otherwise a large answer could never be sent."""
    calls.reserve("pod", 1_000_000)
    assert reason_of(lambda: calls.reserve("pod", 1)) is Reason.TOO_MANY_UNREAD_ANSWERS
    calls.reserve("other", 1_000_000)


def test_unread_answers_of_all_pods_have_a_limit(calls: InFlight) -> None:
    for number in range(3):
        calls.reserve(f"pod {number}", 15_000)
    assert reason_of(lambda: calls.reserve("pod 0", 5_000)) is None
    assert reason_of(lambda: calls.reserve("pod 1", 5_000)) is Reason.TOO_MANY_UNREAD_ANSWERS


def test_an_answer_may_be_sent_after_its_call_has_ended(calls: InFlight) -> None:
    calls.begin("pod")
    release = calls.reserve("pod", 15_000)
    calls.end("pod")
    assert reason_of(lambda: calls.reserve("pod", 15_000)) is Reason.TOO_MANY_UNREAD_ANSWERS
    release()
    assert (calls.calls, calls.bytes) == (0, 0)


def test_a_pod_without_calls_and_answers_is_forgotten(calls: InFlight) -> None:
    calls.begin("pod")
    release = calls.reserve("pod", 5_000)
    release()
    calls.end("pod")
    reason_of(calls.reserve("other", 5_000))
    assert calls._pods == {}


steps = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["call", "stream", "answer", "end"])),
    max_size=80,
)


@given(steps, st.randoms(use_true_random=False))
def test_the_counts_are_those_of_what_is_in_flight(
    given_steps: list[tuple[str, str]], chance: st.DataObject
) -> None:
    calls = InFlight(LIMITS)
    open_: list[tuple[str, str, Callable[[], None]]] = []
    for pod, action in given_steps:
        if action == "end":
            if open_:
                open_.pop(chance.randrange(len(open_)))[2]()  # type: ignore[attr-defined]
            continue
        try:
            if action == "answer":
                open_.append((pod, action, calls.reserve(pod, 6_000)))
                continue
            stream = action == "stream"
            calls.begin(pod, stream=stream)
        except QuotaExceeded:
            continue

        def end(pod: str = pod, stream: bool = stream) -> None:
            calls.end(pod, stream=stream)

        open_.append((pod, action, end))
        kinds = [kind for _, kind, _ in open_]
        assert calls.streams == kinds.count("stream")
        assert calls.calls == kinds.count("stream") + kinds.count("call")
        assert calls.bytes == 6_000 * kinds.count("answer")
        for one in "ab":
            own = [kind for whose, kind, _ in open_ if whose == one]
            assert len(own) - own.count("answer") <= LIMITS.calls_per_pod
            assert own.count("stream") <= LIMITS.streams_per_pod
            assert own.count("answer") * 6_000 <= LIMITS.bytes_per_pod
    for _, _, end_one in open_:
        end_one()
    assert (calls.calls, calls.streams, calls.bytes, calls._pods) == (0, 0, 0, {})
