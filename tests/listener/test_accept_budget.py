"""When the loop accepts, decided by the clock alone; and what counts as a flood."""

from __future__ import annotations

import pytest
from netutil.agent.listener.acceptor import (
    CALM_SECONDS,
    FLOOD_CONNECTIONS_PER_SECOND,
    MAX_DEFER_SECONDS,
    AcceptBudget,
    FloodDetector,
)

IDLE = 0.00001
BUSY = 10 * IDLE
WINDOW = 0.1


class Loop:
    """A loop whose listener always has more connections in its queue."""

    def __init__(self, idle_seconds: float = IDLE) -> None:
        self.budget = AcceptBudget()
        self.now = 1000.0
        self.burst()
        for _ in range(10):
            assert self.iterate(idle_seconds)

    def burst(self, *, more: bool = True) -> None:
        self.now += 0.00005
        self.budget.burst_ended(self.now, more=more)

    def iterate(self, seconds: float) -> bool:
        """Return whether the loop accepted after an iteration of so many seconds."""
        self.now += seconds
        accepts = self.budget.may_accept(self.now)
        if accepts:
            self.burst()
        return accepts


def test_a_loop_without_other_work_accepts_in_every_iteration() -> None:
    loop = Loop()
    assert all(loop.iterate(IDLE * (1 + number % 2 / 2)) for number in range(1000))


def test_other_work_defers_new_connections() -> None:
    loop = Loop()
    assert not any(loop.iterate(BUSY) for _ in range(4))
    assert loop.iterate(IDLE), "the work is done"


def test_new_connections_are_not_deferred_for_long() -> None:
    loop = Loop()
    iterations = [loop.iterate(BUSY) for _ in range(60)]
    most = MAX_DEFER_SECONDS / BUSY + 1
    assert 60 / (most + 1) <= sum(iterations) <= 60 / most + 1


def test_an_iteration_past_the_longest_deferral_is_followed_by_a_burst() -> None:
    assert Loop().iterate(2 * MAX_DEFER_SECONDS)


def test_a_connection_after_an_empty_queue_is_accepted_at_once() -> None:
    loop = Loop()
    loop.burst(more=False)
    assert loop.iterate(BUSY)


@pytest.mark.parametrize("slowness", [3, 30])
def test_the_duration_of_an_idle_iteration_is_measured_continuously(slowness: float) -> None:
    assert Loop(slowness * IDLE).iterate(slowness * IDLE)
    loop = Loop()
    for _ in range(500):  # the machine has become slower
        loop.iterate(slowness * IDLE)
    assert all(loop.iterate(slowness * IDLE) for _ in range(100))


def in_flood_after(flood: FloodDetector, per_second: float, start: float, seconds: float) -> bool:
    """Return whether there is a flood after so many useless connections a second."""
    found = False
    for step in range(int(seconds / WINDOW) + 1):
        found = flood.in_flood(start + step * WINDOW, int(step * WINDOW * per_second))
    return found


def test_thousands_of_useless_connections_a_second_are_a_flood() -> None:
    assert in_flood_after(FloodDetector(), 2 * FLOOD_CONNECTIONS_PER_SECOND, 1000.0, 1)
    assert not in_flood_after(FloodDetector(), FLOOD_CONNECTIONS_PER_SECOND / 2, 1000.0, 1)


def test_the_first_measurement_has_no_rate() -> None:
    assert not FloodDetector().in_flood(1000.0, 10_000_000)


def test_a_flood_that_pauses_is_over_only_after_a_calm_period() -> None:
    flood = FloodDetector()
    assert in_flood_after(flood, 2 * FLOOD_CONNECTIONS_PER_SECOND, 1000.0, 1)
    assert flood.in_flood(1000 + CALM_SECONDS / 2, 4001)
    assert not flood.in_flood(1002 + CALM_SECONDS, 4002)
