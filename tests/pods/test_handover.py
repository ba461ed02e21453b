"""What a thread gave last is what the event loop takes, however late it comes to it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from netutil.agent.pods.handover import Handover
from netutil.agent.pods.model import Pod

FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: int) -> datetime:
    return FIRST + timedelta(seconds=seconds)


class Taken:
    def __init__(self) -> None:
        self.times: list[datetime] = []

    def __call__(self, pods: tuple[Pod, ...], observed_at: datetime) -> None:
        assert pods == ()
        self.times.append(observed_at)


async def test_a_loop_that_lags_finds_the_newest_list_alone() -> None:
    taken = Taken()
    handover = Handover(asyncio.get_running_loop(), taken)
    for second in range(3):
        handover.give((), at(second))
    await asyncio.sleep(0.05)
    assert taken.times == [at(2)]
    handover.close()


async def test_a_list_for_later_is_not_shown_after_one_that_was_given_since() -> None:
    """All three before the loop turns: the second turn of the loop hears of the first alone."""
    taken = Taken()
    handover = Handover(asyncio.get_running_loop(), taken)
    handover.give((), at(0))
    handover.give_after(0.01, (), at(1))
    handover.give((), at(2))
    await asyncio.sleep(0.1)
    assert taken.times == [at(2)]
    handover.close()


async def test_a_list_for_later_is_shown_when_nothing_came_since() -> None:
    taken = Taken()
    handover = Handover(asyncio.get_running_loop(), taken)
    handover.give((), at(0))
    handover.give_after(0.01, (), at(1))
    await asyncio.sleep(0.1)
    assert taken.times == [at(0), at(1)]
    handover.close()
