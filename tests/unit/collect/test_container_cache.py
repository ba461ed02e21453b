"""The held containers: bounded, found again, and released with their values."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import shutil
import sys
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from netutil.agent.collect import container_cache
from netutil.agent.collect.container_cache import (
    MAX_CONTAINERS_OF_POD,
    MAX_IDENTITIES,
    MAX_IDLE_SECONDS,
    MAX_SWEPT,
    ContainerCache,
    ContainerPlaces,
    Kept,
)
from netutil.agent.errors import FailedPrecondition, Reason
from netutil.agent.facts.cgroup_levels import ControllerDirectory
from netutil.agent.facts.cpu import CpuDirectories, read_cpu
from netutil.agent.facts.cpu_partition import read_partition
from netutil.agent.facts.hugepages import read_usage
from netutil.agent.parsers.cgroup import CgroupIdentity

from tests.support.processes import open_descriptors
from tests.unit.facts.test_held_files import cgroup, open_files

FILES = {
    "cpuset.cpus": "0-1\n",
    "cpuset.effective_cpus": "0-1\n",
    "cpuset.cpu_exclusive": "0\n",
    "cpu.cfs_quota_us": "-1\n",
    "cpu.cfs_period_us": "100000\n",
    "cpu.shares": "1024\n",
    "hugetlb.2MB.usage_in_bytes": "0\n",
    "hugetlb.2MB.limit_in_bytes": "4194304\n",
    "hugetlb.2MB.failcnt": "0\n",
    "notify_on_release": "0\n",
}
MAX_OF_A_CONTAINER = 24


def identity(name: str) -> CgroupIdentity:
    return CgroupIdentity("u", name, ())


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Node:
    """Containers as directories of a fake hierarchy, and a cache of them."""

    def __init__(self, top: Path, most: int = 8192) -> None:
        self.top = top
        self.clock = Clock()
        self.located = 0
        self.cache = ContainerCache(self.places_of, most, self.clock)

    def add(self, name: str) -> CgroupIdentity:
        directory = self.top / "pod" / name
        directory.mkdir(parents=True)
        for each in (directory, directory.parent):
            for file, text in FILES.items():
                (each / file).write_text(text)
        return identity(name)

    def places_of(self, cgroups: CgroupIdentity) -> ContainerPlaces:
        self.located += 1
        top, pod = str(self.top), str(self.top / "pod")
        cpu = ControllerDirectory(1, f"{pod}/{cgroups.container_id}", top, pod)
        return ContainerPlaces(CpuDirectories(1, cpu.directory, top, cpu, pod), cpu)

    def ask(self, cgroups: CgroupIdentity) -> tuple[Any, ...]:
        held = self.cache.container(cgroups)
        assert held.cpu is not None and held.partition is not None
        read = self.cache.read
        return read(held, held.cpu), read(held, held.partition), read(held, held.usage)

    def direct(self, cgroups: CgroupIdentity) -> tuple[Any, ...]:
        places = self.places_of(cgroups)
        assert places.cpu is not None
        return read_cpu(places.cpu), read_partition(places.cpu), read_usage(places.hugetlb)


@pytest.fixture
async def node(tmp_path: Path) -> Any:
    before = open_files()
    found = Node(tmp_path)
    yield found
    found.cache.close()
    assert (found.cache.descriptors, len(found.cache)) == (0, 0)
    # What earlier tests of this worker left behind may be closed meanwhile.
    assert open_files() <= before


async def test_all_facts_are_those_that_a_read_by_path_shows(node: Node) -> None:
    one = node.add("one")
    assert node.ask(one) == node.direct(one)
    assert all(a is b for a, b in zip(node.ask(one), node.ask(one), strict=True))


async def test_a_container_is_located_once_for_an_identity(node: Node) -> None:
    one = node.add("one")
    for _ in range(5):
        node.ask(one)
    assert node.located == 1


async def test_processes_of_one_container_share_what_is_held(node: Node) -> None:
    node.add("one")
    held = {node.cache.container(identity("one")) for _ in range(3 * MAX_IDENTITIES)}
    assert len(held) == len(node.cache) == 1
    assert len(held.pop().identities) == MAX_IDENTITIES


async def test_a_large_pod_loses_only_its_own_oldest_containers(node: Node) -> None:
    quiet = structs.replace(node.add("quiet"), pod_uid="another pod")
    node.ask(quiet)
    busy = [node.add(f"busy{number}") for number in range(2 * MAX_CONTAINERS_OF_POD)]
    for one in busy:
        node.ask(busy[0])
        node.ask(one)
    assert len(node.cache) == MAX_CONTAINERS_OF_POD + 1
    assert node.cache.evictions == len(busy) - MAX_CONTAINERS_OF_POD
    node.located = 0
    for one in (quiet, busy[0], busy[-1]):
        node.ask(one)
    assert node.located == 0


async def test_a_pod_of_many_cgroups_costs_no_other_what_is_held_of_it(node: Node) -> None:
    """Each cgroup below a container's own gives its processes another identity."""
    quiet, busy = node.add("quiet"), node.add("busy")
    node.ask(quiet)
    node.ask(busy)
    held = node.cache.descriptors
    for _ in range(200):
        node.ask(identity("busy"))
    node.located = 0
    node.ask(quiet)
    assert node.located == 0
    assert (len(node.cache), node.cache.descriptors) == (2, held)


async def test_identities_are_not_kept_longer_than_their_container(node: Node) -> None:
    one = node.add("one")
    before = sys.getrefcount(one)
    node.ask(one)
    assert sys.getrefcount(one) > before
    node.cache.close()
    assert sys.getrefcount(one) == before


async def test_a_container_has_only_the_descriptors_counted_for_it(node: Node) -> None:
    before = open_descriptors()
    node.ask(node.add("one"))
    assert node.cache.descriptors == open_descriptors() - before <= MAX_OF_A_CONTAINER


async def test_a_full_cache_drops_the_least_recently_used(tmp_path: Path) -> None:
    node = Node(tmp_path, most=3 * MAX_OF_A_CONTAINER)
    found = [node.add(f"c{number}") for number in range(40)]
    kept = found[0]
    for each in found:
        assert node.ask(each) == node.direct(each)
        node.ask(kept)
        assert node.cache.descriptors <= 4 * MAX_OF_A_CONTAINER
    assert node.cache.evictions > 30
    node.located = 0
    node.ask(kept)
    assert node.located == 0
    node.cache.close()


async def test_answers_do_not_change_without_spare_descriptors(tmp_path: Path) -> None:
    node = Node(tmp_path, most=0)
    found = [node.add(f"c{number}") for number in range(3)]
    before = open_descriptors()
    for each in found * 3:
        assert node.ask(each) == node.direct(each)
        assert open_descriptors() - before <= MAX_OF_A_CONTAINER
    node.cache.close()


async def test_there_is_a_limit_of_containers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_cache, "MAX_CONTAINERS", 4)
    node = Node(tmp_path)
    for number in range(10):
        node.ask(node.add(f"c{number}"))
        assert len(node.cache) <= 4
    node.cache.close()


async def test_an_idle_container_is_released(node: Node) -> None:
    idle, busy = node.add("idle"), node.add("busy")
    node.ask(idle)
    for _ in range(3):
        node.clock.now += MAX_IDLE_SECONDS / 2 + 1
        node.ask(busy)
        node.cache.sweep()
    assert len(node.cache) == 1
    node.located = 0
    node.ask(busy)
    assert node.located == 0


async def test_all_idle_containers_are_released_in_ten_minutes(node: Node) -> None:
    for number in range(3 * MAX_SWEPT):
        node.ask(node.add(f"c{number}"))
    for _ in range(int(600 / container_cache.SWEEP_SECONDS)):
        node.clock.now += container_cache.SWEEP_SECONDS
        node.cache.sweep()
    assert (len(node.cache), node.cache.descriptors) == (0, 0)


async def test_the_sweep_runs_while_something_is_held(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_cache, "SWEEP_SECONDS", 0.01)
    node.ask(node.add("one"))
    node.clock.now += 2 * MAX_IDLE_SECONDS
    async with asyncio.timeout(5):
        while len(node.cache):  # noqa: ASYNC110 - no event reports it
            await asyncio.sleep(0.01)


async def test_an_ended_container_is_an_error_and_released(node: Node) -> None:
    one = node.add("one")
    node.ask(one)
    (node.top / "pod/one").rename(node.top / "elsewhere")
    node.cache.close()
    with pytest.raises(FailedPrecondition) as refused:
        node.ask(one)
    assert refused.value.reason is Reason.CPUSET_NOT_FOUND
    assert (len(node.cache), node.cache.descriptors) == (0, 0)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_a_shortage_lets_everything_go_and_is_survived(
    node: Node, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = node.add("one"), node.add("other")
    expected = node.direct(other)
    node.ask(one)
    real: Callable[..., int] = os.open

    def failing(path: Any, *rest: Any, **options: Any) -> int:
        if node.cache.descriptors:
            raise OSError(code, os.strerror(code))
        return real(path, *rest, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", failing)
        assert node.ask(other) == expected
    assert (len(node.cache), node.cache.descriptors) == (0, 0)


async def test_derived_values_are_released_with_their_container(node: Node) -> None:
    class Answer:
        pass

    one = node.add("one")
    held = node.cache.container(one)
    facts = node.ask(one)[0]
    answer = weakref.ref(held.kept.get("answer", (facts,), lambda _: Answer()))
    assert answer() is held.kept.get("answer", (facts,), lambda _: Answer())
    del held
    node.cache.close()
    gc.collect()
    assert answer() is None


def test_kept_values_are_of_the_very_same_objects() -> None:
    kept = Kept()
    one, equal = [1], [1]
    made: list[int] = kept.get("a", (one,), list)
    assert kept.get("a", (one,), list) is made
    assert kept.get("a", (equal,), list) is not made
    assert kept.get("b", (equal,), tuple) == (1,)


@pytest.mark.root
async def test_the_sweep_lets_a_container_go_whose_cgroup_was_removed() -> None:
    with cgroup() as made:
        place = ControllerDirectory(1, str(made), str(made.parent))
        cache = ContainerCache(lambda _: ContainerPlaces(None, place), 8192)
        before = open_descriptors()
        held = cache.container(identity("one"))
        assert held.cpu is None and held.partition is None
        assert cache.read(held, held.usage) == cache.read(held, held.usage) == read_usage(place)
        cache.sweep()
        assert (len(cache), cache.ended) == (1, 0)
        made.rmdir()
        cache.sweep()
        assert (len(cache), cache.ended, open_descriptors()) == (0, 1, before)
        cache.close()


async def test_two_thousand_containers_that_come_and_go_leave_nothing(node: Node) -> None:
    def memory() -> int:
        """Bytes that the agent's code has allocated: others of this worker may run meanwhile."""
        gc.collect()
        agent = tracemalloc.Filter(True, f"{Path(container_cache.__file__).parents[1]}/*")
        found = tracemalloc.take_snapshot().filter_traces([agent])
        return sum(each.size for each in found.traces)

    async def churn(containers: int) -> None:
        for number in range(containers):
            node.ask(node.add(f"c{number}"))
            shutil.rmtree(node.top / f"pod/c{number}")
            node.clock.now += 1
            if not number % 10:
                node.cache.sweep()
        for _ in range(int(600 / container_cache.SWEEP_SECONDS)):
            node.clock.now += container_cache.SWEEP_SECONDS
            node.cache.sweep()

    await churn(50)
    tracemalloc.start()
    try:
        before = memory()
        await churn(2000)
        assert memory() - before < 256 * 1024  # tables that have grown
    finally:
        tracemalloc.stop()
    assert (len(node.cache), node.cache.descriptors) == (0, 0)


@pytest.mark.root
async def test_removed_cgroups_are_released_by_the_next_sweeps() -> None:
    before = open_descriptors()
    with cgroup() as top:

        def places_of(cgroups: CgroupIdentity) -> ContainerPlaces:
            directory = str(top / str(cgroups.container_id))
            return ContainerPlaces(None, ControllerDirectory(1, directory, str(top)))

        cache = ContainerCache(places_of, 8192)
        for number in range(4 * MAX_SWEPT):
            (top / f"c{number}").mkdir()
            of_pod = structs.replace(identity(f"c{number}"), pod_uid=f"u{number}")
            held = cache.container(of_pod)
            cache.read(held, held.usage)
            (top / f"c{number}").rmdir()
        for _ in range(4):
            cache.sweep()
        assert (len(cache), cache.ended, open_descriptors()) == (0, 4 * MAX_SWEPT, before)
        cache.close()


async def test_a_file_that_is_held_open_is_read_without_its_path(node: Node) -> None:
    one = node.add("one")
    directory, name = str(node.top / "pod" / "one"), "cpuset.effective_cpus"
    assert node.cache.read_open(directory, name) is None
    node.ask(one)
    assert node.cache.read_open(directory, name) == FILES[name].encode()
    assert node.cache.read_open(directory, "cpu.weight") is None
    held = node.cache.descriptors
    os.rename(directory, node.top / "elsewhere")
    assert node.cache.read_open(directory, name) == FILES[name].encode()
    assert node.cache.descriptors == held


async def test_a_container_that_is_renewed_is_not_idle(node: Node) -> None:
    one, other = node.add("one"), node.add("other")
    node.cache.renew(one)  # held nowhere: nothing happens
    assert len(node.cache) == 0
    node.ask(one)
    node.ask(other)
    node.clock.now += MAX_IDLE_SECONDS
    node.cache.renew(one)
    node.clock.now += 1.0
    node.cache.sweep()
    assert len(node.cache) == 1
    located = node.located
    node.ask(one)
    assert node.located == located
