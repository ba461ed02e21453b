"""When the loop accepts, told by nothing but the clock; and what a flood is."""

from __future__ import annotations

import pytest
from netutil.agent.door.pace import (
    CALM_SECONDS,
    LONGEST_WAIT_SECONDS,
    USELESS_PER_SECOND,
    Flood,
    Pace,
)

IDLE_ROUND = 0.00001
BUSY_ROUND = 10 * IDLE_ROUND
WINDOW = 0.1


class Loop:
    """A loop in which somebody always waits to be accepted, once it has found so."""

    def __init__(self, idle_round: float = IDLE_ROUND) -> None:
        self.pace = Pace()
        self.now = 1000.0
        self.burst()
        for _ in range(10):
            assert self.round(idle_round)

    def burst(self, *, more: bool = True) -> None:
        self.now += 0.00005
        self.pace.accepted(self.now, more=more)

    def round(self, seconds: float) -> bool:
        """Return whether the loop accepted after a round that took so long."""
        self.now += seconds
        accepts = self.pace.may_accept(self.now)
        if accepts:
            self.burst()
        return accepts


def test_a_loop_without_other_work_accepts_in_every_round() -> None:
    loop = Loop()
    assert all(loop.round(IDLE_ROUND * (1 + number % 2 / 2)) for number in range(1000))


def test_other_work_goes_before_those_who_come() -> None:
    loop = Loop()
    assert not any(loop.round(BUSY_ROUND) for _ in range(4))
    assert loop.round(IDLE_ROUND), "the work is done"


def test_but_not_for_long() -> None:
    loop = Loop()
    rounds = [loop.round(BUSY_ROUND) for _ in range(60)]
    most = LONGEST_WAIT_SECONDS / BUSY_ROUND + 1
    assert 60 / (most + 1) <= sum(rounds) <= 60 / most + 1


def test_one_round_longer_than_that_is_followed_by_a_burst() -> None:
    assert Loop().round(2 * LONGEST_WAIT_SECONDS)


def test_who_comes_when_nobody_waited_is_accepted_at_once() -> None:
    loop = Loop()
    loop.burst(more=False)
    assert loop.round(BUSY_ROUND)


@pytest.mark.parametrize("slowness", [3, 30])
def test_how_long_a_round_takes_without_work_is_learnt_and_learnt_anew(slowness: float) -> None:
    assert Loop(slowness * IDLE_ROUND).round(slowness * IDLE_ROUND)
    loop = Loop()
    for _ in range(500):  # the machine has become slower
        loop.round(slowness * IDLE_ROUND)
    assert all(loop.round(slowness * IDLE_ROUND) for _ in range(100))


def rates(flood: Flood, per_second: float, start: float, seconds: float, useless: int) -> bool:
    """Return whether there is a flood after so many connections a second came to nothing."""
    goes_on = False
    for step in range(int(seconds / WINDOW) + 1):
        goes_on = flood.goes_on(start + step * WINDOW, useless + int(step * WINDOW * per_second))
    return goes_on


def test_connections_that_come_to_nothing_are_a_flood_when_there_are_thousands_a_second() -> None:
    assert rates(Flood(), 2 * USELESS_PER_SECOND, 1000.0, 1, 0)
    assert not rates(Flood(), USELESS_PER_SECOND / 2, 1000.0, 1, 0)


def test_the_first_look_knows_no_rate() -> None:
    assert not Flood().goes_on(1000.0, 10_000_000)


def test_a_flood_that_pauses_goes_on_until_it_has_been_calm_for_a_while() -> None:
    flood = Flood()
    assert rates(flood, 2 * USELESS_PER_SECOND, 1000.0, 1, 0)
    assert flood.goes_on(1000 + CALM_SECONDS / 2, 4001)
    assert not flood.goes_on(1002 + CALM_SECONDS, 4002)
