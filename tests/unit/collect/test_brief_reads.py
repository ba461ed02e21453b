"""Reads for whose end the loop waits: a moment at most, and then as for any other."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from netutil.agent.collect import read_pool
from netutil.agent.collect.handover import Handover
from netutil.agent.collect.read_pool import ReadPool, Ready
from netutil.agent.errors import QuotaExceeded, Reason, ResourceExhausted, Unavailable
from netutil.agent.identity.ptrace import CredentialsNotRestored

from tests.support.waiting import until


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop waits long enough for a thread on any machine."""
    monkeypatch.setattr(read_pool, "BRIEF_SECONDS", 20.0)


@pytest.fixture
async def pool() -> ReadPool:
    """A pool with a thread that has nothing to do."""
    pool = ReadPool(timeout_seconds=20.0)
    await pool.run("pod", lambda: None, "a file")
    return pool


def step(call: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that does not suspend."""
    with pytest.raises(StopIteration) as ended:
        call.send(None)
    return ended.value.value


@pytest.mark.usefixtures("patient")
async def test_a_brief_read_does_not_suspend_its_caller(pool: ReadPool) -> None:
    reading: list[threading.Thread] = []
    for number in range(3):
        read = pool.run_brief("pod", lambda: reading.append(threading.current_thread()), "a file")
        assert step(read) is None
        assert len(reading) == number + 1 and len(pool) == 0
    assert threading.current_thread() not in reading and pool.threads == 1


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (ZeroDivisionError(), ZeroDivisionError),
        (FileNotFoundError(2, "No such file or directory"), FileNotFoundError),
        (OSError(24, "Too many open files"), ResourceExhausted),
        (StopIteration(), RuntimeError),
        (asyncio.CancelledError(), RuntimeError),
    ],
    ids=["error", "errno", "descriptors", "StopIteration", "cancelled"],
)
async def test_an_error_of_a_brief_read_is_the_callers(
    pool: ReadPool, raised: BaseException, seen: type[Exception]
) -> None:
    def read() -> None:
        raise raised

    with pytest.raises(seen):
        pool.run_brief("pod", read, "a file").send(None)
    assert len(pool) == 0
    assert step(pool.run_brief("pod", lambda: 42, "a file")) == 42


async def test_a_read_that_is_not_brief_is_awaited(pool: ReadPool) -> None:
    release = threading.Event()
    asking = asyncio.create_task(pool.run_brief("pod", release.wait, "a file"))
    await asyncio.sleep(0)  # the loop goes on although the read does not end
    same = asyncio.create_task(pool.run_brief("pod", lambda: 42, "a file"))
    assert await pool.run("other", lambda: 43, "a file") == 43
    assert not asking.done() and not same.done()
    release.set()
    assert await asking is True and await same == 42
    await until(lambda: len(pool) == 0)


async def test_a_read_that_ended_before_it_is_awaited_ends_no_other(
    pool: ReadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pod's next read is served by a thread of its own then."""
    release, next_one = threading.Event(), threading.Event()
    monkeypatch.setattr(read_pool, "BRIEF_SECONDS", 0.0)
    found = pool.begin_brief("pod", release.wait, "a file")
    assert found is not None and not isinstance(found, Ready)
    release.set()
    await until(lambda: len(pool) == 0)
    asking = asyncio.create_task(pool.run("pod", next_one.wait, "a file"))
    await asyncio.sleep(0)
    assert await found is True
    assert len(pool) == 1 and not asking.done()
    next_one.set()
    assert await asking is True
    await until(lambda: len(pool) == 0)


async def test_a_read_that_is_not_brief_is_given_up_in_time() -> None:
    pool = ReadPool(timeout_seconds=0.1)
    await pool.run("pod", lambda: None, "a file")
    release = threading.Event()
    with pytest.raises(Unavailable) as late:
        await pool.run_brief("pod", release.wait, "/proc/1/environ")
    assert late.value.reason is Reason.READ_TIMED_OUT and pool.timeouts == 1
    release.set()
    await until(lambda: len(pool) == 0)


async def test_the_loop_waits_for_no_read_after_it_waited_in_vain(
    pool: ReadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a hostile pod reads, the loop waits a fiftieth of its time at most."""
    assert read_pool._PAUSE_WAITS >= 50
    monkeypatch.setattr(read_pool, "_PAUSE_WAITS", 3600.0 / read_pool.BRIEF_SECONDS)
    release = threading.Event()
    wedged = asyncio.create_task(pool.run_brief("wedged", release.wait, "a file"))
    await asyncio.sleep(0)
    await pool.run("pod", lambda: None, "a file")  # another thread, which is free then
    monkeypatch.setattr(read_pool, "BRIEF_SECONDS", 20.0)
    began = time.monotonic()
    waiting = pool.run_brief("pod", release.wait, "a file")
    assert waiting.send(None) is not None  # it is suspended
    assert time.monotonic() - began < 20.0
    waiting.close()
    release.set()
    assert await wedged


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait lasts longer than asked for, as while another thread has the CPU or the lock."""
    wait = Handover.wait

    def wait_late(handover: Handover, seconds: float) -> tuple[Any, Exception | None] | None:
        time.sleep(0.05)
        return wait(handover, seconds)

    monkeypatch.setattr(Handover, "wait", wait_late)


@pytest.mark.usefixtures("late")
async def test_a_pause_is_as_long_as_the_wait_was(pool: ReadPool) -> None:
    release = threading.Event()
    began = asyncio.get_running_loop().time()
    asking = asyncio.create_task(pool.run_brief("pod", release.wait, "a file"))
    await asyncio.sleep(0)
    assert pool._waits_after >= began + 0.05 * (1 + 50)
    release.set()
    assert await asking


@pytest.mark.usefixtures("late")
async def test_a_long_wait_that_is_not_in_vain_causes_a_pause(pool: ReadPool) -> None:
    began = asyncio.get_running_loop().time()
    assert step(pool.run_brief("pod", lambda: 42, "a file")) == 42
    assert pool._waits_after >= began + 0.05 * (1 + 50)


@pytest.mark.usefixtures("patient")
async def test_a_job_that_the_kernel_refuses_leaves_nothing(
    pool: ReadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int, __: bytes) -> int:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        with pytest.raises(QuotaExceeded):
            pool.begin_brief("pod", lambda: 42, "a file")
        with pytest.raises(QuotaExceeded):
            await pool.run("pod", lambda: 42, "a file")
    assert len(pool) == 0
    assert step(pool.run_brief("pod", lambda: 43, "a file")) == 43
    assert await pool.run("pod", lambda: 44, "a file") == 44


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("threads", [0, 1])
async def test_the_loop_waits_only_for_a_free_thread(threads: int) -> None:
    pool = ReadPool(threads=1, timeout_seconds=20.0)
    release = threading.Event()
    others = [asyncio.create_task(pool.run(f"pod-{n}", release.wait, "a")) for n in range(threads)]
    await asyncio.sleep(0)
    asking = asyncio.create_task(pool.run_brief("pod", lambda: 42, "a file"))
    await asyncio.sleep(0)
    release.set()
    assert await asking == 42
    assert all(await asyncio.gather(*others))


async def test_each_read_ends_once_near_the_end_of_the_wait(
    pool: ReadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads that end at about the moment at which the loop stops waiting."""
    monkeypatch.setattr(read_pool, "_PAUSE_WAITS", 0)

    def read(number: int) -> Callable[[], int]:
        def sleep() -> int:
            time.sleep(read_pool.BRIEF_SECONDS * (number % 40) / 40)
            return number

        return sleep

    for number in range(2000):
        assert await pool.run_brief("pod", read(number), "a file") == number
        one, other = await asyncio.gather(
            pool.run_brief("pod", read(number), "a file"),
            pool.run_brief("other", read(number + 1), "a file"),
        )
        assert (one, other) == (number, number + 1)
    await until(lambda: len(pool) == 0)
    assert pool.threads <= 3 and pool.timeouts == 0


async def test_a_thread_with_foreign_credentials_ends_here_too(pool: ReadPool) -> None:
    def spoiled() -> None:
        raise CredentialsNotRestored("capset")

    with pytest.raises(QuotaExceeded) as refused:
        await pool.run_brief("pod", spoiled, "/proc/1/environ")
    assert refused.value.reason is Reason.AGENT_OUT_OF_RESOURCES
    assert await pool.run_brief("pod", lambda: 42, "a file") == 42
    assert pool.threads == 1
