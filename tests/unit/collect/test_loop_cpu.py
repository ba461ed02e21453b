"""The CPU of a thread that the loop waits for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import pytest
from netutil.agent.collect import read_pool
from netutil.agent.collect.loop_cpu import LoopCpu
from netutil.agent.collect.read_pool import ReadPool

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
    def refuse(_: int, __: set[int]) -> None:
        raise PermissionError

    loop_cpu = LoopCpu()
    loop_cpu.note()
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    assert affinity_after(loop_cpu.follow) == CPUS


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
