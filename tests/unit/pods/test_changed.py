"""Waiters for changes are notified of each list whose content may differ, and of no other."""

from __future__ import annotations

import asyncio
import threading
import time
from itertools import pairwise

import pytest
from netutil.agent.errors import Reason, Unavailable
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.model import Pod
from netutil.agent.pods.sources.base import SourceKind, unavailable

from tests.support.fakes.pushing_source import PushingSource, made
from tests.support.waiting import until


class PulledSource:
    kind = SourceKind("A double")

    def __init__(self) -> None:
        self.pods: tuple[Pod, ...] = made("web")
        self.failing = False
        self.fetches: list[float] = []
        self.fetched = threading.Event()

    def fetch(self) -> tuple[Pod, ...]:
        self.fetches.append(time.monotonic())
        self.fetched.set()
        if self.failing:
            raise unavailable("It is broken.", "here", "Repair it.")
        return self.pods

    def describe(self) -> str:
        return "here"

    def close(self) -> None:
        pass


async def test_the_first_list_is_the_first_generation() -> None:
    directory = PodDirectory(PulledSource(), 10)
    assert directory.generation == 0
    assert await directory.changed(0) == 1
    assert directory.last is not None
    await directory.close()


async def test_a_generation_that_passed_notifies_at_once() -> None:
    source = PulledSource()
    directory = PodDirectory(source, 10)
    await directory.refresh()
    async with asyncio.timeout(0):
        assert await directory.changed(0) == 1
    assert len(source.fetches) == 1
    await directory.close()


async def test_a_waited_for_list_is_fetched_once_per_refresh() -> None:
    source = PulledSource()
    directory = PodDirectory(source, 0.1)
    waiting = [asyncio.create_task(directory.changed(1)) for _ in range(100)]
    await until(lambda: len(source.fetches) >= 5)
    assert not any(task.done() for task in waiting)
    source.pods = made("web", "new")
    assert set(await asyncio.gather(*waiting)) == {2}
    gaps = [later - earlier for earlier, later in pairwise(source.fetches)]
    assert min(gaps) > 0.05
    await directory.close()


async def test_nothing_is_fetched_without_waiters() -> None:
    source = PulledSource()
    directory = PodDirectory(source, 0.05)
    first, second = (asyncio.create_task(directory.changed(1)) for _ in range(2))
    await until(lambda: len(source.fetches) >= 3)
    first.cancel()
    await until(lambda: len(source.fetches) >= 6)
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    before = len(source.fetches)
    await asyncio.sleep(0.2)
    assert len(source.fetches) <= before + 1  # one may have been under way
    await directory.close()


async def test_a_list_of_the_same_pods_in_another_order_is_no_change() -> None:
    source = PulledSource()
    source.pods = made("web", "new")
    directory = PodDirectory(source, 10)
    await directory.refresh()
    source.pods = made("web", "new")[::-1]
    await asyncio.sleep(1)  # the least time between two fetches
    await directory.refresh()
    assert directory.generation == 1
    await directory.close()


async def test_a_changed_annotation_is_a_change() -> None:
    source = PulledSource()
    directory = PodDirectory(source, 0.05)
    seen = await directory.changed(0)
    source.pods = made("web", annotations={"example.com/a": "b"})
    assert await directory.changed(seen) == seen + 1
    assert directory.last is not None
    (pod,) = directory.last.pods
    assert pod.metadata.annotations == {"example.com/a": "b"}
    await directory.close()


async def test_a_source_that_fails_is_waited_for_with_growing_pauses() -> None:
    source = PulledSource()
    source.failing = True
    directory = PodDirectory(source, 0.01)
    waiting = asyncio.create_task(directory.changed(0))
    await until(lambda: len(source.fetches) >= 3)
    source.failing = False
    assert await waiting == 1
    first, second = (source.fetches[n + 1] - source.fetches[n] for n in range(2))
    assert first >= 0.25 and second >= 0.5
    await directory.close()


async def test_each_pushed_list_notifies_all_waiters() -> None:
    source = PushingSource()
    directory = PodDirectory(source, 10)
    waiting = [asyncio.create_task(directory.changed(0)) for _ in range(10)]
    await asyncio.sleep(0)
    source.push(made("web"))
    assert set(await asyncio.gather(*waiting)) == {1}
    later = asyncio.create_task(directory.changed(1))
    await asyncio.sleep(0)
    source.push(made("web", "new"))
    assert await later == 2
    await directory.close()


@pytest.mark.parametrize("source", [PulledSource, PushingSource])
async def test_a_stop_notifies_all_waiters(
    source: type[PulledSource] | type[PushingSource],
) -> None:
    directory = PodDirectory(source(), 10)
    waiting = asyncio.create_task(directory.changed(7))
    await asyncio.sleep(0.01)
    await directory.close()
    with pytest.raises(Unavailable) as refused:
        await waiting
    assert refused.value.reason is Reason.AGENT_RESTARTING
