"""The event loop takes the last value of a thread, however late the loop runs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from netutil.agent.pods.model import Pod
from netutil.agent.pods.threads import LatestToLoop

FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: int) -> datetime:
    return FIRST + timedelta(seconds=seconds)


class Taken:
    def __init__(self) -> None:
        self.times: list[datetime] = []

    def __call__(
        self, pods: tuple[Pod, ...], observed_at: datetime, *, resumed: bool = False
    ) -> None:
        assert pods == ()
        self.times.append(observed_at)


async def test_a_loop_that_lags_finds_the_newest_list_alone() -> None:
    taken = Taken()
    handover = LatestToLoop(asyncio.get_running_loop(), taken)
    for second in range(3):
        handover.give((), at(second))
    await asyncio.sleep(0.05)
    assert taken.times == [at(2)]
    handover.close()
