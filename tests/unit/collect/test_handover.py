"""Jobs for threads, and outcomes for a loop that waits a moment."""

from __future__ import annotations

import errno
import os
import select
import threading

import pytest
from netutil.agent.collect.handover import Handover, JobQueue, Signal

_ENOUGH = 20.0
_TOO_SHORT = 0.001


def test_jobs_are_taken_in_the_order_in_which_they_are_put() -> None:
    jobs: JobQueue[int] = JobQueue()
    for number in range(3):
        jobs.put(number)
    assert [jobs.get() for _ in range(3)] == [0, 1, 2]


def test_each_job_is_taken_by_one_thread() -> None:
    jobs: JobQueue[int] = JobQueue()
    taken: list[int] = []

    def take() -> None:
        taken.extend(jobs.get() for _ in range(50))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(200):
        jobs.put(number)
    for thread in threads:
        thread.join(_ENOUGH)
    assert sorted(taken) == list(range(200))


def test_a_job_that_is_refused_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int, __: bytes) -> int:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    jobs: JobQueue[str] = JobQueue()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        with pytest.raises(OSError, match="allocate"):
            jobs.put("refused")
    jobs.put("next")
    assert jobs.get() == "next"


def test_a_job_that_is_taken_back_is_not_there() -> None:
    jobs: JobQueue[str] = JobQueue()
    for job in ("one", "two", "three"):
        jobs.put(job)
    jobs.take_back("two")
    assert [jobs.get(), jobs.get()] == ["one", "three"]


def test_a_thread_hands_over_what_the_loop_waits_for() -> None:
    handover = Handover(Signal())
    thread = threading.Thread(target=handover.give, args=(("found", None),))
    thread.start()
    assert handover.wait(_ENOUGH) == ("found", None)
    thread.join()


def test_an_outcome_that_comes_too_late_wakes_no_later_wait() -> None:
    signal = Signal()
    late, next_one = Handover(signal), Handover(signal)
    assert late.wait(_TOO_SHORT) is None
    assert not late.give(("late", None))
    assert next_one.wait(_TOO_SHORT) is None


def test_an_outcome_of_the_last_moment_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread has decided, and the time is over before it gives the signal."""
    signal = Signal()
    handover, next_one = Handover(signal), Handover(signal)
    given = signal.give

    def is_given_within(_: float) -> bool:
        threading.Timer(0.05, given).start()
        assert handover.give(("found", None))
        return False

    monkeypatch.setattr(signal, "give", lambda: None)
    monkeypatch.setattr(signal, "is_given_within", is_given_within)
    assert handover.wait(_TOO_SHORT) == ("found", None)
    monkeypatch.undo()
    assert next_one.wait(_TOO_SHORT) is None, "the signal is taken"


def test_a_signal_that_is_left_ends_no_wait() -> None:
    signal = Signal()
    signal.give()
    handover = Handover(signal)
    assert handover.wait(_TOO_SHORT) is None
    next_one = Handover(signal)
    assert next_one.give(("found", None))
    assert next_one.wait(_ENOUGH) == ("found", None)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "no"), ValueError()])
def test_a_wait_that_fails_is_one_in_vain(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    signal = Signal()
    handover = Handover(signal)
    with monkeypatch.context() as patch:
        patch.setattr(select, "select", fail)
        assert handover.wait(_ENOUGH) is None
    assert not handover.give(("late", None))
    assert Handover(signal).wait(_TOO_SHORT) is None, "no signal is left"
