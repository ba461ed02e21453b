"""Jobs for threads, and outcomes for a loop that waits a moment."""

from __future__ import annotations

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


def test_a_thread_hands_over_what_the_loop_waits_for() -> None:
    handover = Handover(Signal())
    thread = threading.Thread(target=handover.give, args=(("found", None),))
    thread.start()
    assert handover.wait(_ENOUGH)
    assert handover.outcome == ("found", None)
    thread.join()


def test_an_outcome_that_comes_too_late_wakes_no_later_wait() -> None:
    signal = Signal()
    late, next_one = Handover(signal), Handover(signal)
    assert not late.wait(_TOO_SHORT)
    assert not late.give(("late", None))
    assert not next_one.wait(_TOO_SHORT)


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
    assert handover.wait(_TOO_SHORT)
    monkeypatch.undo()
    assert handover.outcome == ("found", None)
    assert not next_one.wait(_TOO_SHORT), "the signal is taken"
