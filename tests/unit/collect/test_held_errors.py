"""Errors of one content are one object, for as long as they are held."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.collect.held_errors import MAX_ERRORS, HeldErrors
from netutil.agent.errors import AgentError, FailedPrecondition, Reason, Unavailable


def error(message: str = "It fails.", retry: float = 1.0, read: str = "there") -> Unavailable:
    found = Unavailable(Reason.RESOURCE_CLAIMS_UNAVAILABLE, message, read=read)
    return found.with_retry_after(retry)


def test_an_equal_error_is_the_same_object() -> None:
    held = HeldErrors()
    first = held.hold(error())
    assert held.hold(error()) is first
    assert len(held) == 1


def test_an_error_that_differs_is_another() -> None:
    held = HeldErrors()
    others = [
        error(),
        error("It fails otherwise."),
        error(retry=2.0),
        error(read="elsewhere"),
        FailedPrecondition(Reason.RESOURCE_CLAIMS_MALFORMED, "It fails.", read="there"),
        FailedPrecondition(Reason.RESOURCE_CLAIMS_OFF, "It fails.", read="there"),
        FailedPrecondition(Reason.RESOURCE_CLAIMS_OFF, "It fails.", read="there", advice="Wait."),
    ]
    assert [held.hold(one) for one in others] == others
    assert len(held) == len(others)


def test_a_held_error_keeps_no_frames() -> None:
    try:
        raise error()
    except AgentError as raised:
        assert HeldErrors().hold(raised).__traceback__ is None


def test_no_more_than_the_limit_is_held() -> None:
    held = HeldErrors()
    kept = held.hold(error("0"))
    for number in range(1, 2 * MAX_ERRORS):
        held.hold(error(str(number)))
        assert held.hold(error("0")) is kept
        assert len(held) <= MAX_ERRORS


def test_an_error_that_is_not_used_is_released() -> None:
    held = HeldErrors()
    first = held.hold(error())
    for _ in range(11):
        held.age()
    assert held.hold(error()) is first
    for _ in range(12):
        held.age()
    assert len(held) == 0


@given(st.lists(st.sampled_from("abc")))
def test_each_content_has_one_object(messages: list[str]) -> None:
    held = HeldErrors()
    found = [held.hold(error(one)) for one in messages]
    assert len(set(map(id, found))) == len(set(messages))
    assert [one.message for one in found] == messages
