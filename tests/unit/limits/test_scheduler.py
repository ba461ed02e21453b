"""The fair scheduler: the pod that used least goes first, and a pod alone is not delayed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from functools import partial
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.limits import scheduler as scheduler_module
from netutil.agent.limits.scheduler import (
    _MAX_ROUND_SECONDS,
    SLICE_SECONDS,
    Account,
    FairScheduler,
)

from tests.support.waiting import busy

SHARED = ""
_USED_UP = 2 * SLICE_SECONDS
_TIMEOUT_SECONDS = 20.0


def use(account: Account, seconds: float) -> None:
    """Let an account have used loop time in earlier rounds."""
    account.add(seconds, perf_counter())


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(_TIMEOUT_SECONDS):
        while not condition():  # noqa: ASYNC110 - the condition sets no event
            await asyncio.sleep(0)


async def rounds(scheduler: FairScheduler, account: Account) -> None:
    """Return once the round in which an account has used its slice is over."""
    await eventually(lambda: scheduler.may_run(account))


@pytest.fixture
async def scheduler() -> FairScheduler:
    return FairScheduler(SHARED)


async def test_a_pod_keeps_its_account(scheduler: FairScheduler) -> None:
    assert scheduler.account("a") is scheduler.account("a")
    assert scheduler.account("a") is not scheduler.account("b")


async def test_accounts_that_are_not_used_are_forgotten(
    scheduler: FairScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "_MAX_ACCOUNTS", 2)
    small = FairScheduler(SHARED)
    first = small.account("first")
    for number in range(3):
        small.account(str(number))
    assert small.account("first") is not first


async def test_the_account_that_was_used_last_is_forgotten_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduler_module, "_MAX_ACCOUNTS", 2)
    small = FairScheduler(SHARED)
    first = small.account("first")
    for number in range(3):
        small.account(str(number))
        assert small.account("first") is first
    assert len(small) == 2


async def test_a_sweep_forgets_the_accounts_of_pods_that_have_ended(
    scheduler: FairScheduler,
) -> None:
    kept = scheduler.account("runs")
    scheduler.account("ended")
    scheduler.retain({"runs"})
    assert (len(scheduler), scheduler.account("runs") is kept) == (1, True)


async def test_a_sweep_forgets_no_account_that_is_blocked_or_has_work(
    scheduler: FairScheduler,
) -> None:
    blocked, waiting, ran = scheduler.account("blocked"), scheduler.account("waiting"), []
    scheduler.block(blocked, 3600.0)
    scheduler.wait(waiting, lambda: ran.append(1))
    scheduler.retain(())
    assert scheduler.account("blocked") is blocked
    assert scheduler.account("waiting") is waiting
    await eventually(lambda: bool(ran))
    scheduler.retain(())
    assert len(scheduler) == 1


async def test_work_of_a_pod_that_is_alone_runs_at_once(scheduler: FairScheduler) -> None:
    assert scheduler.may_run(scheduler.account("a"))


async def test_a_pod_that_has_used_its_slice_waits_for_the_next_round(
    scheduler: FairScheduler,
) -> None:
    account = scheduler.account("a")
    scheduler.charge(account, _USED_UP)
    assert not scheduler.may_run(account)
    assert scheduler.may_run(scheduler.account("b"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert scheduler.may_run(account)


async def test_a_pod_alone_waits_at_most_for_the_next_round(
    scheduler: FairScheduler,
) -> None:
    account, ran = scheduler.account("a"), asyncio.Event()
    use(account, 3600.0)
    scheduler.wait(account, ran.set)
    for _ in range(3):
        await asyncio.sleep(0)
    assert ran.is_set()


async def test_the_pod_that_has_used_least_goes_first(scheduler: FairScheduler) -> None:
    order: list[str] = []
    for number, key in enumerate("abc"):
        scheduler.charge(scheduler.account(key), (3 - number) * _USED_UP)
    for key in "abc":
        scheduler.wait(scheduler.account(key), partial(order.append, key))
    await eventually(lambda: len(order) == 3)
    assert order == ["c", "b", "a"]


async def test_a_pod_that_used_less_than_all_that_wait_is_not_delayed(
    scheduler: FairScheduler,
) -> None:
    hostile, modest = scheduler.account("hostile"), scheduler.account("modest")
    use(hostile, 1.0)
    scheduler.wait(hostile, lambda: None)
    assert scheduler.may_run(modest)


async def test_a_pod_that_used_more_than_one_that_waits_has_to_wait(
    scheduler: FairScheduler,
) -> None:
    hostile, modest = scheduler.account("hostile"), scheduler.account("modest")
    use(hostile, 1.0)
    await rounds(scheduler, hostile)
    scheduler.wait(modest, lambda: None)
    assert not scheduler.may_run(hostile)


async def test_work_of_a_pod_does_not_overtake_its_own_that_waits(
    scheduler: FairScheduler,
) -> None:
    account = scheduler.account("a")
    scheduler.wait(account, lambda: None)
    assert not scheduler.may_run(account)


async def test_older_loop_time_counts_less(scheduler: FairScheduler) -> None:
    old, new = Account(is_last=False), Account(is_last=False)
    old.add(1.0, now=0.0)
    new.add(0.5, now=1.0)
    assert old.used(1.0) < new.used(1.0) < 1.0


async def test_time_that_the_kernel_gave_to_others_is_not_charged(
    scheduler: FairScheduler,
) -> None:
    account = scheduler.account("a")
    scheduler.charge(account, 3600.0)
    assert account.used(perf_counter()) <= scheduler_module._MAX_CHARGE_SECONDS


async def test_work_without_a_pod_is_served_after_all_others(scheduler: FairScheduler) -> None:
    order: list[str] = []
    use(scheduler.account("a"), 1.0)
    for key in (SHARED, SHARED, "a", "a", "a"):
        scheduler.wait(scheduler.account(key), partial(order.append, key))
    # Each round serves one piece of each account, the shared one last.
    await eventually(lambda: len(order) == 5)
    assert order == ["a", SHARED, "a", SHARED, "a"]


async def test_work_without_a_pod_yields_to_pods_on_a_busy_loop(
    scheduler: FairScheduler,
) -> None:
    order: list[str] = []

    def work(key: str) -> None:
        order.append(key)
        busy(SLICE_SECONDS)

    for key in (SHARED, SHARED, "a", "a", "a"):
        scheduler.wait(scheduler.account(key), partial(work, key))
    await eventually(lambda: len(order) == 5)
    assert order == ["a", "a", "a", SHARED, SHARED]


async def test_work_without_a_pod_runs_at_once_if_nothing_waits(
    scheduler: FairScheduler,
) -> None:
    shared = scheduler.account(SHARED)
    assert scheduler.may_run(shared)
    use(scheduler.account("a"), 1.0)
    scheduler.wait(scheduler.account("a"), lambda: None)
    assert not scheduler.may_run(shared)


async def test_a_round_is_bounded_in_time_and_yields_to_the_loop(
    scheduler: FairScheduler,
) -> None:
    done: list[int] = []

    def work(number: int) -> None:
        done.append(number)
        busy(SLICE_SECONDS)

    for number in range(20):
        scheduler.wait(scheduler.account(str(number)), partial(work, number))
    seen = [0]
    while len(done) < 20:
        await asyncio.sleep(0)
        seen.append(len(done))
    # Each piece takes the whole time of a round: no two are done in one.
    assert max(after - before for before, after in itertools.pairwise(seen)) == 1


async def test_a_pod_of_much_work_does_not_delay_one_of_little(scheduler: FairScheduler) -> None:
    order: list[str] = []

    def work(key: str) -> None:
        order.append(key)
        scheduler.charge(scheduler.account(key), SLICE_SECONDS)
        busy(SLICE_SECONDS)

    for _ in range(50):
        scheduler.wait(scheduler.account("much"), partial(work, "much"))
    await eventually(lambda: len(order) >= 5)
    before = len(order)
    scheduler.wait(scheduler.account("little"), partial(work, "little"))
    await eventually(lambda: "little" in order)
    assert order.index("little") <= before + 1
    await eventually(lambda: len(order) == 51)


async def test_work_that_fails_delays_no_other(scheduler: FairScheduler) -> None:
    """One connection's bug must not end the service of all pods."""
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, found: reported.append(found))
    ran: list[str] = []

    def fail() -> None:
        raise KeyError("a bug")

    scheduler.wait(scheduler.account("a"), fail)
    for key in "abc":
        scheduler.wait(scheduler.account(key), partial(ran.append, key))
    await eventually(lambda: sorted(ran) == ["a", "b", "c"])
    for key in "abc":
        scheduler.wait(scheduler.account(key), partial(ran.append, key))
    await eventually(lambda: len(ran) == 6)
    (found,) = reported
    assert isinstance(found["exception"], KeyError)


async def test_pods_that_compete_get_like_shares(scheduler: FairScheduler) -> None:
    served = {"one": 0, "two": 0}
    left = 200

    def work(key: str) -> None:
        nonlocal left
        left -= 1
        served[key] += 1
        scheduler.charge(scheduler.account(key), SLICE_SECONDS)
        if left > 0:
            scheduler.wait(scheduler.account(key), partial(work, key))

    for _ in range(8):
        scheduler.wait(scheduler.account("one"), partial(work, "one"))
    scheduler.wait(scheduler.account("two"), partial(work, "two"))
    await eventually(lambda: left <= 0)
    assert abs(served["one"] - served["two"]) <= 0.2 * sum(served.values())


async def test_a_blocked_pod_is_served_after_its_block_and_not_before(
    scheduler: FairScheduler,
) -> None:
    account = scheduler.account("a")
    scheduler.block(account, 0.1)
    assert scheduler.is_blocked(account)
    assert not scheduler.may_run(account)
    ran_at: list[float] = []
    end = account.blocked_until
    scheduler.wait(account, lambda: ran_at.append(perf_counter()))
    await eventually(lambda: bool(ran_at))
    assert ran_at[0] >= end
    assert not scheduler.is_blocked(account)


async def test_a_shorter_block_does_not_end_a_longer_one(scheduler: FairScheduler) -> None:
    account = scheduler.account("a")
    scheduler.block(account, 600)
    end = account.blocked_until
    scheduler.block(account, 0.001)
    assert account.blocked_until == end


async def test_a_block_that_grows_while_work_waits_is_kept(scheduler: FairScheduler) -> None:
    account = scheduler.account("a")
    ran_at: list[float] = []
    scheduler.block(account, 0.05)
    scheduler.wait(account, lambda: ran_at.append(perf_counter()))
    await asyncio.sleep(0.01)
    scheduler.block(account, 0.2)
    end = account.blocked_until
    await eventually(lambda: bool(ran_at))
    assert ran_at[0] >= end


async def test_each_blocked_pod_is_served_when_its_own_block_ends(
    scheduler: FairScheduler,
) -> None:
    order: list[str] = []
    for key, seconds in (("long", 0.3), ("short", 0.05)):
        account = scheduler.account(key)
        scheduler.block(account, seconds)
        scheduler.wait(account, partial(order.append, key))
    await eventually(lambda: len(order) == 2)
    assert order == ["short", "long"]


async def test_each_round_serves_however_many_pods_wait(scheduler: FairScheduler) -> None:
    ran: list[int] = []
    for number in range(3000):
        account = scheduler.account(f"pod{number}")
        scheduler.charge(account, _USED_UP)
        scheduler.wait(account, partial(ran.append, number))
    before = scheduler._round
    await eventually(lambda: len(ran) == 3000)
    assert scheduler._round - before < 600


async def test_a_round_is_bounded_where_the_order_takes_long(
    scheduler: FairScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count(step=_MAX_ROUND_SECONDS / 4)
    ran: list[int] = []
    for number in range(100):
        scheduler.wait(scheduler.account(f"pod{number}"), partial(ran.append, number))
    monkeypatch.setattr(scheduler_module, "perf_counter", lambda: next(ticks))
    scheduler._next_round()
    assert 1 <= len(ran) <= 5


async def test_work_that_was_forgotten_meanwhile_is_passed_over(scheduler: FairScheduler) -> None:
    ran: list[str] = []
    first, second, third = (scheduler.account(key) for key in "abc")
    work = partial(ran.append, "second")
    scheduler.wait(first, lambda: scheduler.forget(second, work))
    scheduler.wait(second, work)
    scheduler.wait(third, partial(ran.append, "third"))
    await eventually(lambda: bool(ran))
    assert ran == ["third"]


async def test_a_blocked_pod_delays_no_other(scheduler: FairScheduler) -> None:
    blocked, other = scheduler.account("blocked"), scheduler.account("other")
    scheduler.block(blocked, 600)
    scheduler.wait(blocked, lambda: None)
    use(other, 1.0)
    await rounds(scheduler, other)
    assert scheduler.may_run(other)
    ran = asyncio.Event()
    scheduler.wait(other, ran.set)
    await asyncio.wait_for(ran.wait(), _TIMEOUT_SECONDS)


async def test_an_idle_loop_is_not_woken_for_blocked_work(scheduler: FairScheduler) -> None:
    account = scheduler.account("a")
    scheduler.block(account, 600)
    scheduler.wait(account, lambda: None)
    await asyncio.sleep(0.01)
    before = scheduler._round
    await asyncio.sleep(0.1)
    assert scheduler._round - before <= 1


async def test_a_pod_that_may_run_acquires_at_once(scheduler: FairScheduler) -> None:
    account = scheduler.account("a")
    waiting = asyncio.ensure_future(scheduler.acquire(account, SLICE_SECONDS))
    await asyncio.sleep(0)
    assert waiting.done()
    assert not scheduler.may_run(account)  # it was charged
    assert scheduler.waits == 0


async def test_a_pod_acquires_once_a_round(scheduler: FairScheduler) -> None:
    account = scheduler.account("a")
    tasks = [asyncio.ensure_future(scheduler.acquire(account, _USED_UP)) for _ in range(5)]
    await asyncio.sleep(0)
    assert sum(task.done() for task in tasks) == 1
    async with asyncio.timeout(_TIMEOUT_SECONDS):
        await asyncio.gather(*tasks)
    assert scheduler.waits == 4


async def test_a_cancelled_slot_is_skipped_and_not_charged(scheduler: FairScheduler) -> None:
    account = scheduler.account("a")
    scheduler.block(account, 0.05)
    cancelled = asyncio.ensure_future(scheduler.acquire(account, 0.001))
    after = asyncio.ensure_future(scheduler.acquire(account, 0.0))
    await asyncio.sleep(0)
    cancelled.cancel()
    async with asyncio.timeout(_TIMEOUT_SECONDS):
        await after
    assert cancelled.cancelled()
    assert account.used(perf_counter()) == 0
    assert not account.queue


async def test_a_cancelled_acquire_harms_no_other(
    scheduler: FairScheduler,
) -> None:
    account = scheduler.account("a")
    scheduler.block(account, 0.05)
    tasks = [asyncio.ensure_future(scheduler.acquire(account, SLICE_SECONDS)) for _ in range(3)]
    await eventually(lambda: any(task.done() for task in tasks))
    for task in tasks[1:]:
        task.cancel()
    last = asyncio.ensure_future(scheduler.acquire(account, SLICE_SECONDS))
    async with asyncio.timeout(_TIMEOUT_SECONDS):
        await last
    assert not account.queue


async def test_handlers_that_were_woken_share_one_slice_of_a_round(
    scheduler: FairScheduler,
) -> None:
    """One event may wake those of many pods in the same iteration of the loop."""
    first, second = scheduler.account("first"), scheduler.account("second")
    assert scheduler.may_resume(first) and scheduler.may_resume(second)
    scheduler.charge_resumed(first, SLICE_SECONDS)
    assert not scheduler.may_resume(second)
    assert scheduler.may_run(second)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert scheduler.may_resume(second)


async def test_other_work_takes_nothing_of_the_slice_of_handlers(scheduler: FairScheduler) -> None:
    scheduler.charge(scheduler.account("first"), _USED_UP)
    assert scheduler.may_resume(scheduler.account("second"))


async def test_a_woken_handler_waits_while_its_pod_is_blocked(scheduler: FairScheduler) -> None:
    account = scheduler.account("a")
    scheduler.block(account, 3600.0)
    assert not scheduler.may_resume(account)


async def test_the_sockets_are_looked_at_before_each_piece(scheduler: FairScheduler) -> None:
    """What comes of a pod that has used less waits for a piece, and not for the round."""
    order: list[str] = []
    heavy, light = scheduler.account("heavy"), scheduler.account("light")
    use(heavy, 1.0)
    arrived: list[str] = []

    def look() -> None:
        while arrived:
            assert scheduler.may_run(light)
            order.append(arrived.pop())

    def piece(number: int) -> None:
        order.append(f"heavy {number}")
        if number == 0:
            arrived.append("light")

    scheduler.look_between([look])
    for number in range(3):
        scheduler.wait(heavy, partial(piece, number))
    await eventually(lambda: len(order) == 4)
    assert order == ["heavy 0", "light", "heavy 1", "heavy 2"]


async def test_looks_take_no_time_of_the_work_that_waits(scheduler: FairScheduler) -> None:
    """A round without them serves as many pieces."""
    served_in: list[int] = []
    heavy = scheduler.account("heavy")
    scheduler.look_between([lambda: busy(SLICE_SECONDS / 2)])
    for _ in range(6):
        scheduler.wait(heavy, lambda: served_in.append(scheduler._round))
    await eventually(lambda: len(served_in) == 6)
    assert served_in[1] == served_in[0], "a look of half a slice ends no round"


async def test_work_that_has_run_is_forgotten_without_a_word(scheduler: FairScheduler) -> None:
    """An error of `deque.remove` has the repr of what is not there: megabytes, for an answer."""

    class Work:
        def __call__(self) -> None:
            """Nothing is to be done."""

        def __repr__(self) -> str:
            raise AssertionError("the repr of work may be of any size")

    scheduler.forget(scheduler.account("a"), Work())


async def test_a_failed_look_is_reported_and_loses_no_work(scheduler: FairScheduler) -> None:
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, found: reported.append(str(found["exception"]))
    )
    ran: list[int] = []

    def look() -> None:
        raise OSError("no look")

    scheduler.look_between([look])
    scheduler.wait(scheduler.account("a"), lambda: ran.append(1))
    await eventually(lambda: bool(ran))
    assert reported == ["no look"]


steps = st.lists(
    st.tuples(
        st.sampled_from(["", "a", "b", "c"]),
        st.sampled_from(["run", "charge", "block", "yield"]),
        st.floats(0, 0.002),
    ),
    max_size=60,
)


@given(steps)
def test_no_work_is_lost_or_repeated_and_pods_keep_their_order(
    given_steps: list[tuple[str, str, float]],
) -> None:
    ran: list[tuple[str, int]] = []
    asked: list[tuple[str, int]] = []

    async def play() -> None:
        scheduler = FairScheduler(SHARED)
        for number, (key, action, seconds) in enumerate(given_steps):
            account = scheduler.account(key)
            match action:
                case "run":
                    asked.append((key, number))
                    work = partial(ran.append, (key, number))
                    if scheduler.may_run(account):
                        work()
                    else:
                        scheduler.wait(account, work)
                case "charge":
                    scheduler.charge(account, seconds)
                case "block":
                    scheduler.block(account, seconds)
                case _:
                    await asyncio.sleep(0)
        await eventually(lambda: len(ran) >= len(asked))
        for _ in range(3):
            await asyncio.sleep(0)
        assert all(not scheduler.account(key).queue for key in ("", "a", "b", "c"))

    asyncio.run(play())
    assert sorted(ran) == sorted(asked)
    for key in ("", "a", "b", "c"):
        assert [one for one in ran if one[0] == key] == [one for one in asked if one[0] == key]


@given(steps)
def test_work_that_makes_work_is_neither_lost_nor_run_twice(
    given_steps: list[tuple[str, str, float]],
) -> None:
    ran: list[int] = []

    async def play() -> None:
        scheduler = FairScheduler(SHARED)

        def work(number: int) -> None:
            ran.append(number)
            key, _, seconds = given_steps[number]
            scheduler.charge(scheduler.account(key), seconds)
            if number + 1 < len(given_steps):
                following = scheduler.account(given_steps[number + 1][0])
                scheduler.wait(following, partial(work, number + 1))

        if given_steps:
            scheduler.wait(scheduler.account(given_steps[0][0]), partial(work, 0))
        await eventually(lambda: len(ran) == len(given_steps))

    asyncio.run(play())
    assert ran == list(range(len(given_steps)))
