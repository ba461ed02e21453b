"""The schedule of attempts, with a clock that the test sets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import pairwise

import grpc
import pytest
from netutil.client import (
    DeadlineExceeded,
    NetUtilError,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from netutil.client.rpc.endpoint import PUBLIC, Settings
from netutil.client.rpc.retry import Attempts, Reconnects

from tests.support.fakes.agent import Refusal
from tests.unit.client.test_translation import Failure


class Clock:
    """Time that passes only during a sleep."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def listening(socket_path: str) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(socket_path)
        listener.listen(100)
        yield socket_path


def refused(
    reason: str = "POD_LIST_UNAVAILABLE",
    retry_after_seconds: float | None = None,
    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
) -> Failure:
    refusal = Refusal(code, reason=reason, retry_after_seconds=retry_after_seconds)
    return Failure(code, reason, (("grpc-status-details-bin", refusal.serialized()),))


def attempts(clock: Clock, path: str = "/tmp/none", *, jitter: float = 1.0) -> Attempts:
    return Attempts(Settings(PUBLIC, path, 5.0), clock, lambda: jitter)


def test_pauses_double_to_half_a_second_before_the_deadline() -> None:
    clock = Clock()
    schedule = attempts(clock)
    pauses: list[float] = []

    def fail_for_ever() -> None:
        while True:
            pauses.append(schedule.pause_seconds_after(refused()))
            clock.seconds += pauses[-1]

    with pytest.raises(Unavailable):
        fail_for_ever()
    assert pauses[:5] == [0.05, 0.1, 0.2, 0.4, 0.5]
    assert set(pauses[5:]) == {0.5}
    assert 4.5 <= clock.seconds - 1000 < 5


def test_a_pause_is_between_half_and_the_whole_back_off() -> None:
    assert attempts(Clock(), jitter=0).pause_seconds_after(refused()) == 0.025


def test_the_agents_pause_is_never_shortened() -> None:
    schedule = attempts(Clock(), jitter=0)
    assert schedule.pause_seconds_after(refused(retry_after_seconds=2)) == 2
    schedule = attempts(Clock(), jitter=1)
    assert schedule.pause_seconds_after(refused(retry_after_seconds=2)) == 2.05


def test_an_attempt_may_take_all_the_time_that_is_left() -> None:
    clock = Clock()
    schedule = attempts(clock)
    clock.seconds += 2
    assert schedule.remaining_seconds() == 3
    clock.seconds += 10
    assert 0 < schedule.remaining_seconds() <= 0.001


def test_a_limit_is_retried_when_the_agent_allows_it() -> None:
    clock = Clock()
    limited = refused("TOO_MANY_CALLS_PER_SECOND", 0.25, grpc.StatusCode.RESOURCE_EXHAUSTED)
    tries = attempts(clock, jitter=0.0)
    assert tries.pause_seconds_after(limited) == 0.25
    clock.seconds += 4.9
    with pytest.raises(ResourceExhausted) as raised:
        tries.pause_seconds_after(limited)
    assert raised.value.retry_after_seconds == 0.25


@pytest.mark.parametrize(
    "code",
    [code for code in grpc.StatusCode if code.name not in ("OK", "UNAVAILABLE")],
)
def test_nothing_but_unavailable_is_asked_again(code: grpc.StatusCode) -> None:
    with pytest.raises(Exception, match="SOME_REASON"):
        attempts(Clock()).pause_seconds_after(refused("SOME_REASON", code=code))


def test_an_unknown_error_of_a_reachable_server_stays(listening: str) -> None:
    with pytest.raises(NetUtilError) as caught:
        attempts(Clock(), listening).pause_seconds_after(Failure(grpc.StatusCode.UNKNOWN))
    assert (caught.value.code, caught.value.reason) == ("UNKNOWN", "")


def test_a_deadline_after_an_error_raises_that_error(listening: str) -> None:
    schedule = attempts(Clock(), listening)
    schedule.pause_seconds_after(refused())
    with pytest.raises(Unavailable, match="POD_LIST_UNAVAILABLE"):
        schedule.pause_seconds_after(Failure(grpc.StatusCode.DEADLINE_EXCEEDED))


def test_a_deadline_alone_says_how_long_was_waited(listening: str) -> None:
    with pytest.raises(DeadlineExceeded, match="did not answer in 5 s"):
        attempts(Clock(), listening).pause_seconds_after(Failure(grpc.StatusCode.DEADLINE_EXCEEDED))


def test_a_deadline_at_a_missing_socket_names_the_socket(socket_path: str) -> None:
    clock = Clock()
    schedule = attempts(clock, socket_path)
    clock.seconds += 5
    with pytest.raises(Unavailable, match="does not exist"):
        schedule.pause_seconds_after(Failure(grpc.StatusCode.DEADLINE_EXCEEDED))


def test_a_socket_that_may_not_be_opened_is_not_waited_for(
    socket_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = PermissionDenied("permission denied", "PERMISSION_DENIED")
    monkeypatch.setattr("netutil.client.rpc.retry.why_unreachable", lambda *_: denied)
    with pytest.raises(PermissionDenied):
        attempts(Clock(), socket_path).pause_seconds_after(Failure(grpc.StatusCode.UNAVAILABLE))


def test_reconnects_double_to_three_seconds_and_reset() -> None:
    reconnects = Reconnects(jitter=lambda: 1.0)
    pauses = [reconnects.pause_seconds() for _ in range(6)]
    assert pauses == pytest.approx([0.5, 1.0, 2.0, 3.0, 3.0, 3.0])
    reconnects.succeeded()
    assert reconnects.pause_seconds() == pytest.approx(0.5)


def test_watchers_of_one_agent_reconnect_at_different_moments() -> None:
    pauses = sorted(Reconnects().pause_seconds() for _ in range(250))
    assert 0.01 <= pauses[0] < 0.05
    assert pauses[-1] <= 0.5
    assert max(late - early for early, late in pairwise(pauses)) < 0.1
