"""Pods that a list lacks although their processes run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from netutil.agent.pods import grace_cache
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.grace_cache import RecentlyRemoved
from netutil.agent.pods.index import PodList, index
from netutil.agent.pods.model import convert_pod_list, decode_pod_list

from tests.unit.pods.test_directory import Source, pod_list

FIRST = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source() -> Iterator[Source]:
    made = Source()
    yield made
    made.leave.set()


def listed(*names: str, minutes: int = 0) -> PodList:
    return index(decode_pod_list(pod_list(*names)), FIRST + timedelta(minutes=minutes))


def uid(number: int) -> str:
    return f"{number:032x}"


def container(number: int) -> str:
    return f"{number:064x}"


def test_a_pod_missing_from_a_newer_list_is_known_from_the_last(clock: Clock) -> None:
    pods = RecentlyRemoved(clock)
    pods.follow(listed("a", "b"))
    pods.follow(listed("a", minutes=1))
    match = pods.find(uid(2), container(2))
    assert match is not None
    assert (match.pod.metadata.name, match.container_name) == ("b", "app")
    assert match.observed_at == FIRST


def test_a_pod_that_is_still_listed_is_not_remembered(clock: Clock) -> None:
    pods = RecentlyRemoved(clock)
    pods.follow(listed("a"))
    pods.follow(listed("a", minutes=1))
    assert pods.find(uid(1), container(1)) is None
    assert len(pods) == 0


def test_a_pod_is_forgotten_in_time(clock: Clock) -> None:
    pods = RecentlyRemoved(clock)
    pods.follow(listed("a"))
    pods.follow(listed(minutes=1))
    clock.now = grace_cache.REMEMBERED_SECONDS - 1
    assert pods.find(uid(1), container(1)) is not None
    clock.now += 1
    assert pods.find(uid(1), container(1)) is None


def test_a_pod_is_released_in_time_without_calls(clock: Clock) -> None:
    pods = RecentlyRemoved(clock)
    pods.follow(listed("a"))
    pods.follow(listed(minutes=1))
    clock.now = grace_cache.REMEMBERED_SECONDS - 11
    pods.age()
    assert len(pods) == 1
    clock.now += 1
    pods.age()
    assert (len(pods), pods.size_bytes) == (0, 0)


def test_pods_that_have_ended_are_forgotten_and_no_others(clock: Clock) -> None:
    pods = RecentlyRemoved(clock)
    pods.follow(listed("a", "b", "c"))
    pods.follow(listed(minutes=1))
    size_bytes = pods.size_bytes
    pods.forget({uid(1), container(3)})
    assert [pods.find(uid(number), container(number)) is None for number in (1, 2, 3)] == [
        True,
        False,
        True,
    ]
    assert (len(pods), 3 * pods.size_bytes) == (1, size_bytes)
    clock.now = grace_cache.REMEMBERED_SECONDS
    assert pods.find(uid(2), container(2)) is None


def test_another_pods_container_is_no_remembered_one(clock: Clock) -> None:
    pods = RecentlyRemoved(clock)
    pods.follow(listed("a", "b"))
    pods.follow(listed())
    assert pods.find(uid(2), container(1)) is None
    assert pods.find("f" * 32, container(1)) is None


def test_the_oldest_are_forgotten_when_too_many_are_lost(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grace_cache, "MAX_REMEMBERED", 3)
    pods = RecentlyRemoved(clock)
    pods.follow(listed("a", "b", "c"))
    pods.follow(listed("a"))
    pods.follow(listed())
    assert len(pods) == 3
    pods.follow(listed("a", "b", "c", "d"))
    pods.follow(listed("a", "b", "c"))
    assert len(pods) <= 3
    assert pods.find(uid(4), container(4)) is not None


async def test_a_returned_static_pod_is_not_answered_as_its_old_self(
    source: Source,
) -> None:
    """Its UID is the hash of its manifest; its container is another one."""
    directory = PodDirectory(source, 10)
    assert await directory.lookup(uid(1), container(1))
    source.pods = ()
    await directory.refresh()
    source.pods = decode_pod_list(pod_list("again"))
    match = await directory.lookup(uid(1), container(7))
    assert match is not None
    assert (match.pod.metadata.name, match.is_remembered) == ("again", False)
    await directory.close()


@pytest.mark.parametrize("annotation", ["kubernetes.io/config.hash", "kubernetes.io/config.mirror"])
async def test_a_tenants_annotation_takes_no_remembered_pods_place(
    source: Source, annotation: str
) -> None:
    """The API server and a file do not report the source of a pod."""
    directory = PodDirectory(source, 10)
    assert await directory.lookup(uid(1), container(1))
    claims = {"kubernetes.io/config.hash": uid(1), annotation: uid(1)}
    metadata = {"name": "tenant", "uid": uid(66), "annotations": claims}
    source.pods = convert_pod_list({"items": [{"metadata": metadata}]})
    await directory.refresh()
    for container_id in (container(1), container(7), None):
        match = await directory.lookup(uid(1), container_id)
        assert match is not None
        assert (match.pod.metadata.name, match.is_remembered) == ("web", True)
    await directory.close()


async def test_unrequested_lists_are_remembered(source: Source) -> None:
    directory = PodDirectory(source, 10)
    await directory.refresh()
    source.pods = decode_pod_list(pod_list("web", "short"))
    await directory.refresh()
    source.pods = decode_pod_list(pod_list("web"))
    await directory.refresh()
    match = await directory.lookup(uid(2), container(2))
    assert match is not None
    assert (match.pod.metadata.name, match.is_remembered) == ("short", True)
    await directory.close()


async def test_an_empty_list_of_a_restarted_kubelet_removes_nothing(source: Source) -> None:
    directory = PodDirectory(source, 10)
    assert await directory.lookup(uid(1), container(1), need_container=True)
    source.pods = ()
    await directory.refresh()
    match = await directory.lookup(uid(1), container(1), need_container=True)
    assert match is not None
    assert (match.pod.metadata.name, match.container_name) == ("web", "app")
    assert directory.last is not None
    assert directory.last.pods == ()
    assert await directory.lookup("f" * 32, "f" * 64) is None
    await directory.close()


def test_remembered_pods_are_bounded_in_bytes(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grace_cache, "MAX_REMEMBERED_BYTES", 2500)
    pods = RecentlyRemoved(clock)
    pods.follow(listed("a", "b", "c"))
    pods.follow(listed("a", "b", minutes=1))
    one = pods.size_bytes
    assert 0 < one < 2500
    monkeypatch.setattr(grace_cache, "MAX_REMEMBERED_BYTES", int(1.5 * one))
    pods.follow(listed("a", minutes=2))
    assert pods.find(uid(3), container(3)) is None, "the oldest are forgotten first"
    assert pods.find(uid(2), container(2)) is not None
    monkeypatch.setattr(grace_cache, "MAX_REMEMBERED_BYTES", one // 2)
    pods.follow(listed(minutes=3))
    assert len(pods) == 0 and pods.size_bytes == 0, "one that is too large alone is not kept"
