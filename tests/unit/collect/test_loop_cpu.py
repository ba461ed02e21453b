"""The CPU of a thread that the loop waits for."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from netutil.agent.collect import read_pool
from netutil.agent.collect.loop_cpu import LoopCpu
from netutil.agent.collect.read_pool import ReadPool, Ready
from netutil.agent.yield_cpu import yield_cpu

CPUS = os.sched_getaffinity(0)
pytestmark = pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs")


@pytest.fixture
def one() -> Iterator[int]:
    """The one CPU that the loop's thread is bound to, for the time of a test."""
    cpu = min(CPUS)
    os.sched_setaffinity(0, {cpu})
    yield cpu
    os.sched_setaffinity(0, CPUS)


def affinity_after(*steps: Callable[[], None]) -> set[int]:
    """Return the CPUs that a new thread may run on after some steps."""
    seen: list[set[int]] = []

    def run() -> None:
        for step in steps:
            step()
        seen.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return seen[0]


def test_a_thread_follows_the_loop_and_parts_from_it(one: int) -> None:
    loop_cpu = LoopCpu()
    loop_cpu.note()
    os.sched_setaffinity(0, CPUS)  # of the loop, after it was noted on one of them
    assert affinity_after(loop_cpu.follow, loop_cpu.follow) == {one}
    assert affinity_after(loop_cpu.follow, loop_cpu.part, loop_cpu.part) == CPUS
    assert affinity_after(loop_cpu.follow, loop_cpu.part, loop_cpu.follow) == {one}


def test_a_thread_runs_on_no_cpu_that_the_loop_may_not(one: int) -> None:
    loop_cpu = LoopCpu()
    loop_cpu.note()
    assert affinity_after(loop_cpu.follow, loop_cpu.part) == {one}


def test_a_refused_affinity_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a loop whose thread has ended, and of a CPU that is not there."""
    loop_cpu = LoopCpu()
    monkeypatch.setattr(loop_cpu, "_cpu", 8 * 1024 - 1)
    monkeypatch.setattr(loop_cpu, "_loop_thread", 2**22)
    assert affinity_after(loop_cpu.follow) == CPUS
    assert affinity_after(loop_cpu.follow, loop_cpu.part) == CPUS


def test_a_thread_follows_no_loop_that_has_not_waited() -> None:
    assert affinity_after(LoopCpu().follow) == CPUS


async def test_only_a_brief_read_is_on_the_cpu_of_the_loop(
    one: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_pool, "BRIEF_SECONDS", 20.0)
    pool = ReadPool(timeout_seconds=20.0)

    def affinity() -> set[int]:
        return os.sched_getaffinity(0)

    await pool.run("pod", affinity, "a file")
    await pool.run_brief("pod", affinity, "a file")
    assert await pool.run_brief("pod", affinity, "a file") == {one}
    os.sched_setaffinity(0, CPUS)
    assert await pool.run("pod", affinity, "a file") == CPUS


async def test_a_read_for_which_the_loop_waits_no_more_is_let_go(one: int) -> None:
    """It may take long, and the CPU of the loop with it."""
    pool = ReadPool(timeout_seconds=20.0)
    os.sched_setaffinity(0, CPUS)
    await pool.run("pod", lambda: None, "a file")  # its thread inherits the CPUs of the loop
    os.sched_setaffinity(0, {one})
    while os.sched_getaffinity(await pool.run_brief("pod", threading.get_native_id, "a")) != {one}:
        pool._waits_after = 0.0
    release = threading.Event()

    def wait() -> set[int]:
        release.wait()
        return os.sched_getaffinity(0)

    pool._waits_after = 0.0
    found = pool.begin_brief("pod", wait, "a file")
    assert found is not None and not isinstance(found, Ready)
    os.sched_setaffinity(0, CPUS)
    release.set()
    assert await found == {one}, "all that the loop might run on when it stopped to wait"
    assert await pool.run("pod", lambda: os.sched_getaffinity(0), "a file") == CPUS


async def test_a_thread_gives_way_to_the_loop_between_two_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = ReadPool(timeout_seconds=20.0)
    seen: list[str] = []
    first_may_end = threading.Event()

    def note() -> None:
        seen.append("way")
        yield_cpu()

    monkeypatch.setattr(read_pool, "yield_cpu", note)

    def read(name: str) -> None:
        assert first_may_end.wait(20.0)
        seen.append(name)

    reads = [asyncio.create_task(pool.run("pod", partial(read, name), name)) for name in "abc"]
    await asyncio.sleep(0)
    first_may_end.set()
    await asyncio.gather(*reads)
    assert seen == ["a", "way", "b", "way", "c"]
