"""Reads off the loop: bounded for each pod, given up in time, and nothing is left open."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.errors import QuotaExceeded, Reason, ResourceExhausted, Unavailable
from netutil.agent.identity.pidfd import pin_pid
from netutil.agent.identity.ptrace import CredentialsNotRestored

from tests.support.processes import open_descriptors
from tests.support.waiting import until


async def test_a_reads_result_or_error_is_the_callers() -> None:
    pool = ReadPool()
    assert await pool.run("pod", lambda: 42, "a file") == 42
    with pytest.raises(ZeroDivisionError):
        await pool.run("pod", lambda: 1 // 0, "a file")


@pytest.mark.parametrize(
    "raised", [StopIteration, GeneratorExit, SystemExit, asyncio.CancelledError]
)
async def test_a_read_with_an_unusual_exception_frees_lane_and_thread(
    raised: type[BaseException],
) -> None:
    pool = ReadPool(threads=1, timeout_seconds=20)

    def read() -> None:
        raise raised

    shared = asyncio.create_task(pool.run("pod", read, "a file", "share"))
    await asyncio.sleep(0)
    after = asyncio.create_task(pool.run("pod", lambda: 42, "a file"))
    with pytest.raises(RuntimeError) as failed:
        await shared
    assert isinstance(failed.value.__cause__, raised)
    assert await after == 42
    assert await pool.run("other", lambda: 43, "a file") == 43
    await until(lambda: len(pool) == 0)
    assert pool.threads == 1


async def test_a_pod_has_one_read_in_flight_and_waits_only_for_itself() -> None:
    pool = ReadPool(timeout_seconds=0.1)
    release = threading.Event()
    wedged = asyncio.create_task(pool.run("wedged", release.wait, "/proc/1/environ"))
    await asyncio.sleep(0)
    assert await pool.run("other", lambda: 42, "a file") == 42
    with pytest.raises(Unavailable) as late:
        await pool.run("wedged", lambda: 42, "/proc/1/environ")
    assert late.value.reason is Reason.READ_TIMED_OUT
    with pytest.raises(Unavailable):
        await wedged
    assert pool.timeouts == 2
    assert pool.threads <= 2
    release.set()


async def test_a_pods_lane_is_free_once_the_kernel_returns() -> None:
    pool = ReadPool(timeout_seconds=0.05)
    release = threading.Event()
    for read in (release.wait, release.is_set):  # the second never begins
        with pytest.raises(Unavailable):
            await pool.run("pod", read, "a file")
    release.set()

    async def answered() -> bool:
        try:
            return await pool.run("pod", release.is_set, "a file")
        except Unavailable:
            return False

    async with asyncio.timeout(20):
        while not await answered():
            pass


def test_a_read_that_ends_after_the_loop_is_no_error() -> None:
    release, ended = threading.Event(), threading.Event()
    failures: list[object] = []
    threads = set(threading.enumerate())
    before, threading.excepthook = threading.excepthook, failures.append

    def read() -> None:
        release.wait()
        ended.set()

    async def ask() -> None:
        with pytest.raises(Unavailable):
            await ReadPool(timeout_seconds=0.05).run("pod", read, "a file")

    try:
        asyncio.run(ask())
        release.set()
        assert ended.wait(10)
        (thread,) = set(threading.enumerate()) - threads
        thread.join(0.2)  # an exception would end it; so it lives on, to wait for the next read
        assert thread.is_alive()
        assert failures == []
    finally:
        threading.excepthook = before


async def test_more_than_the_waiting_of_one_pod_are_refused_at_once() -> None:
    pool = ReadPool(waiting_per_pod=2, timeout_seconds=5)
    release = threading.Event()
    waiting = [asyncio.create_task(pool.run("pod", release.wait, "a file")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted) as refused:
        await pool.run("pod", lambda: 42, "a file")
    assert refused.value.reason is Reason.TOO_MANY_READS_OF_POD
    release.set()
    assert await asyncio.gather(*waiting) == [True, True]


async def test_a_process_that_was_found_too_late_is_not_held_for_ever() -> None:
    pool = ReadPool(timeout_seconds=0.05)
    descriptors = open_descriptors()
    release, found = threading.Event(), threading.Event()

    def find() -> object:
        release.wait()
        pin = pin_pid(os.getpid())
        found.set()
        return pin

    with pytest.raises(Unavailable):
        await pool.run("pod", find, "/proc/<pid>/status")
    release.set()
    await until(found.is_set)
    await until(lambda: open_descriptors() == descriptors)


class NoThreads:
    """A machine whose limit of processes is reached."""

    def __init__(self, **_: object) -> None: ...

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


async def test_a_read_without_a_thread_is_refused_and_frees_its_lane(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = ReadPool()
    with monkeypatch.context() as limited:
        limited.setattr(threading, "Thread", NoThreads)
        with pytest.raises(QuotaExceeded) as refused:
            await pool.run("pod", lambda: 42, "a file")
        assert refused.value.reason is Reason.AGENT_OUT_OF_RESOURCES
        assert pool.threads == 0
    assert await pool.run("pod", lambda: 42, "a file") == 42


async def test_reads_wait_for_an_existing_thread_if_none_can_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = ReadPool()
    release = threading.Event()
    held = asyncio.create_task(pool.run("held", release.wait, "a file"))
    await until(lambda: pool.threads == 1)
    monkeypatch.setattr(threading, "Thread", NoThreads)
    other = asyncio.create_task(pool.run("other", lambda: 42, "a file"))
    await asyncio.sleep(0)
    release.set()
    assert await held
    assert await other == 42
    assert pool.threads == 1


async def test_callers_of_the_same_share_a_read_that_has_not_begun() -> None:
    pool = ReadPool()
    release, reads = threading.Event(), iter(range(10))
    first = asyncio.create_task(pool.run("pod", release.wait, "a file"))
    await asyncio.sleep(0)
    second = asyncio.create_task(pool.run("pod", lambda: next(reads), "a file", "share"))
    await asyncio.sleep(0)
    joined = [pool.join("pod", "share", "a file") for _ in range(3)]
    assert pool.join("pod", "another", "a file") is None
    assert pool.join("another", "share", "a file") is None
    release.set()
    assert await first
    assert await asyncio.gather(second, *filter(None, joined)) == [0, 0, 0, 0]


async def test_callers_that_wait_for_the_same_have_it_made_once() -> None:
    pool, release, made = ReadPool(timeout_seconds=20), threading.Event(), []

    def make() -> int:
        made.append(1)
        return 42

    first = asyncio.create_task(pool.run("pod", release.wait, "a file"))
    await asyncio.sleep(0)
    others = [
        asyncio.create_task(pool.run_sized("pod", make, None, ("answer", 1))) for _ in range(5)
    ]
    await asyncio.sleep(0)
    release.set()
    assert await asyncio.gather(first, *others) == [True, *[42] * 5]
    assert made == [1]


async def test_a_caller_that_goes_on_late_takes_no_place_meanwhile() -> None:
    """The order of the pods decides when it goes on, which may be much later."""
    pool = ReadPool(waiting_per_pod=1)
    reading = pool.run("pod", lambda: 42, "a file")
    waiting = reading.send(None)  # as a task does, which then waits to go on
    await until(waiting.done)
    await asyncio.sleep(0)
    assert len(pool) == 0
    assert await pool.run("pod", lambda: 43, "a file") == 43
    with pytest.raises(StopIteration) as ended:
        reading.send(None)
    assert ended.value.value == 42


async def test_a_caller_that_ends_after_its_read_costs_nothing() -> None:
    """An error of `deque.remove` had the repr of the read, with all that was read."""

    class Large:
        def __repr__(self) -> str:
            raise AssertionError("the repr of what was read may have megabytes")

    pool = ReadPool()
    reading = pool.run("pod", Large, "a file")
    waiting = reading.send(None)
    await until(waiting.done)
    with pytest.raises(asyncio.CancelledError):
        reading.throw(asyncio.CancelledError())
    assert await pool.run("pod", lambda: 42, "a file") == 42


async def test_a_read_that_has_begun_is_not_shared() -> None:
    pool = ReadPool()
    begun, release = threading.Event(), threading.Event()

    def read() -> bool:
        begun.set()
        return release.wait()

    first = asyncio.create_task(pool.run("pod", read, "a file", "share"))
    await until(begun.is_set)
    assert pool.join("pod", "share", "a file") is None
    release.set()
    assert await first


async def test_a_shared_read_is_made_for_the_remaining_callers() -> None:
    pool = ReadPool()
    release = threading.Event()
    first = asyncio.create_task(pool.run("pod", release.wait, "a file"))
    await asyncio.sleep(0)
    second = asyncio.create_task(pool.run("pod", lambda: 42, "a file", "share"))
    await asyncio.sleep(0)
    joined = pool.join("pod", "share", "a file")
    assert joined is not None
    staying = asyncio.ensure_future(joined)
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    release.set()
    assert await first
    assert await staying == 42
    assert second.cancelled()


async def test_a_shared_read_fails_for_all_its_callers() -> None:
    pool = ReadPool(waiting_per_pod=3)
    release = threading.Event()
    first = asyncio.create_task(pool.run("pod", release.wait, "a file"))
    await asyncio.sleep(0)
    second = asyncio.create_task(pool.run("pod", lambda: 1 // 0, "a file", "share"))
    await asyncio.sleep(0)
    joined = pool.join("pod", "share", "a file")
    assert joined is not None
    third = asyncio.ensure_future(joined)
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted):
        pool.join("pod", "share", "a file")
    release.set()
    assert await first
    for each in (second, third):
        with pytest.raises(ZeroDivisionError):
            await each


async def test_each_caller_of_a_slow_read_gives_up_at_its_own_time() -> None:
    pool = ReadPool(timeout_seconds=0.2)
    loop = asyncio.get_running_loop()
    release = threading.Event()
    times = []

    async def ask(after: float) -> None:
        await asyncio.sleep(after)
        began = loop.time()
        with pytest.raises(Unavailable):
            await pool.run("pod", release.wait, "a file")
        times.append(loop.time() - began)

    await asyncio.gather(*(ask(after) for after in (0.0, 0.05, 0.1)))
    assert all(each > 0.19 for each in times)
    assert pool.timeouts == 3
    release.set()


async def test_a_thread_that_keeps_foreign_credentials_reads_no_more() -> None:
    pool = ReadPool(threads=1)
    begun, release = threading.Event(), threading.Event()
    spoiled_thread: list[threading.Thread] = []

    def spoiled() -> None:
        spoiled_thread.append(threading.current_thread())
        begun.set()
        release.wait()
        raise CredentialsNotRestored("capset")

    first = asyncio.create_task(pool.run("pod", spoiled, "/proc/1/environ"))
    await asyncio.to_thread(begun.wait)
    same = asyncio.create_task(pool.run("pod", threading.current_thread, "a file"))
    other = asyncio.create_task(pool.run("other", threading.current_thread, "a file"))
    await asyncio.sleep(0)
    release.set()
    with pytest.raises(QuotaExceeded) as refused:
        await first
    assert refused.value.reason is Reason.AGENT_OUT_OF_RESOURCES
    (thread,) = spoiled_thread
    assert await same is not thread and await other is not thread
    await asyncio.to_thread(thread.join, 20)
    assert not thread.is_alive()
    assert pool.threads == 1
