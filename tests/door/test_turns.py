"""A pod gets its credit and no more; a late loop costs those who send the most."""

from __future__ import annotations

import asyncio
import time

from netutil.agent.door import turns as room
from netutil.agent.door.turns import CONNECTION_FRAMES, TURN_SECONDS, PodTurns, Turns

from tests.door.rig import eventually

PER_SECOND = 2000.0
FULL = PER_SECOND * TURN_SECONDS


async def test_a_pod_begins_with_the_credit_of_one_turn() -> None:
    pod = Turns(PER_SECOND).of_pod("a")
    assert pod.credit() == FULL
    pod.take(FULL + 5)
    assert pod.credit() < 0


async def test_credit_grows_with_time_and_never_above_a_turn() -> None:
    pod = Turns(PER_SECOND).of_pod("a")
    pod.take(2 * FULL)
    await asyncio.sleep(10 * TURN_SECONDS)
    assert pod.credit() == FULL


async def test_what_waits_comes_in_order_and_at_the_rate_of_its_pod() -> None:
    pod = Turns(PER_SECOND).of_pod("a")
    done, came = asyncio.Event(), list[int]()
    pod.take(FULL)

    def go(number: int) -> None:
        pod.take(FULL)
        came.append(number)
        if number == 9:
            done.set()

    began = time.monotonic()
    for number in range(10):
        pod.wait(lambda number=number: go(number))  # type: ignore[misc]
    assert pod.credit() == 0  # whoever comes now stands behind them
    async with asyncio.timeout(20):
        await done.wait()
    assert came == list(range(10))
    assert time.monotonic() - began >= 9 * TURN_SECONDS


async def test_what_waits_goes_on_in_portions_not_with_the_credit_of_a_turn_at_once() -> None:
    pod, loop = Turns(PER_SECOND).of_pod("a"), asyncio.get_running_loop()
    pod.take(FULL)
    for _ in range(20):
        pod.wait(lambda: pod.take(FULL / 2))
        assert pod._timer is not None
        assert pod._timer.when() - loop.time() < TURN_SECONDS / 2
        await asyncio.sleep(TURN_SECONDS / 5)


async def test_pods_do_not_wait_for_each_other() -> None:
    all_pods = Turns(PER_SECOND)
    all_pods.of_pod("a").charge(1e6)
    assert all_pods.of_pod("b").credit() == FULL


async def test_a_debt_is_bounded() -> None:
    pod = Turns(PER_SECOND).of_pod("a")
    pod.charge(1e9)
    passed = asyncio.Event()
    pod.wait(passed.set)
    async with asyncio.timeout(20):
        await passed.wait()


async def test_a_connection_passes_in_its_turn_and_pays() -> None:
    pod = Turns(PER_SECOND).of_pod("a")
    pod.take(FULL + CONNECTION_FRAMES)
    async with asyncio.timeout(20):
        await pod.pass_work(CONNECTION_FRAMES)
    assert pod.credit() <= FULL - CONNECTION_FRAMES + 1


async def test_a_connection_that_is_gone_before_its_turn_pays_nothing() -> None:
    pod = Turns(PER_SECOND).of_pod("a")
    pod.take(FULL)
    waiting = asyncio.create_task(pod.pass_work(CONNECTION_FRAMES))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.sleep(20 * TURN_SECONDS)
    assert pod.credit() == FULL


async def late_loop(all_pods: Turns, pods: dict[PodTurns, float]) -> None:
    """Let pods send so many frames, and the loop be held up once."""
    for pod, frames in pods.items():
        pod.credit()
        pod.take(frames)
    late = all_pods.late
    time.sleep(TURN_SECONDS + 3 * room._LATE_SECONDS)  # noqa: ASYNC251 - that is what is tested
    await eventually(lambda: all_pods.late > late)


async def test_a_late_loop_costs_the_pod_that_sends_the_most() -> None:
    all_pods = Turns(PER_SECOND)
    much, little = all_pods.of_pod("much"), all_pods.of_pod("little")
    await late_loop(all_pods, {much: 1000, little: 10})
    assert room._LEAST_SHARE <= much.share < 0.6  # halved, perhaps more than once
    assert little.share == 1


async def test_a_late_loop_costs_nobody_who_is_alone() -> None:
    all_pods = Turns(PER_SECOND)
    await late_loop(all_pods, {all_pods.of_pod("much"): 1000})
    assert all_pods.of_pod("much").share == 1


async def test_a_pod_that_asks_for_little_is_never_cut() -> None:
    all_pods = Turns(PER_SECOND)
    modest = PER_SECOND * room._MODEST_SHARE * room._LATELY_SECONDS
    pods = {all_pods.of_pod(name): modest * 0.9 for name in "ab"}
    await late_loop(all_pods, pods)
    assert all(pod.share == 1 for pod in pods)


async def test_a_share_has_a_floor_and_comes_back() -> None:
    all_pods = Turns(PER_SECOND)
    much, little = all_pods.of_pod("much"), all_pods.of_pod("little")
    for _ in range(10):
        await late_loop(all_pods, {much: 1000, little: 10})
    low = much.share
    assert room._LEAST_SHARE <= low < 0.1
    await eventually(lambda: much.share > low + 2 * room._SHARE_STEP)
