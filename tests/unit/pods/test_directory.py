"""The fetches of a pod list, their waiting callers, and the error if no list is available."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator

import pytest
from netutil.agent.errors import Unavailable
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.model import Pod, decode_pod_list
from netutil.agent.pods.sources.base import SourceKind, unavailable

from tests.support.fakes.kubelet import list_json, pod_json

UID, ID = f"{1:032x}", f"{1:064x}"


def pod_list(*names: str) -> bytes:
    """Running pods with one container each; the nth has n as its UID and container ID."""
    return list_json(
        *(
            pod_json(name, f"{number:032x}", {"app": f"{number:064x}"})
            for number, name in enumerate(names, start=1)
        )
    )


class Source:
    """A source that waits for leave, fails on demand, and counts."""

    kind = SourceKind("A double")

    def __init__(self) -> None:
        self.pods: tuple[Pod, ...] = decode_pod_list(pod_list("web"))
        self.failing = False
        self.fetches = 0
        self.leave = threading.Event()
        self.leave.set()
        self.closed = False

    def fetch(self) -> tuple[Pod, ...]:
        self.fetches += 1
        self.leave.wait(30)
        if self.failing:
            raise unavailable("It is broken.", "here", "Repair it.")
        return self.pods

    def describe(self) -> str:
        return "here"

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def source() -> Iterator[Source]:
    made = Source()
    yield made
    made.leave.set()


@pytest.mark.timeout(30)
async def test_a_caller_between_a_fetch_and_its_result_stops_no_loop(
    source: Source,
) -> None:
    directory = PodDirectory(source, 10)
    source.leave.clear()
    first = asyncio.create_task(directory.lookup(UID, ID))
    await asyncio.sleep(0)
    source.leave.set()
    time.sleep(0.3)  # noqa: ASYNC251 - the result waits in the loop's queue, before the second runs
    second = asyncio.create_task(directory.lookup(UID, ID))
    found = await asyncio.gather(first, second)
    assert {match.container_name for match in found if match} == {"app"}
    await directory.close()


async def test_one_fetch_serves_all_waiting_callers(source: Source) -> None:
    directory = PodDirectory(source, 10)
    source.leave.clear()
    waiting = [asyncio.create_task(directory.lookup(UID, ID)) for _ in range(50)]
    await asyncio.sleep(0)
    source.leave.set()
    found = await asyncio.gather(*waiting)
    assert {match.container_name for match in found if match} == {"app"}
    assert source.fetches == 1
    await directory.close()


async def test_a_known_caller_costs_no_fetch_while_the_list_is_young(source: Source) -> None:
    directory = PodDirectory(source, 10)
    for _ in range(20):
        assert await directory.lookup(UID, ID)
    assert source.fetches == 1
    await directory.close()


async def test_a_caller_that_no_fresh_list_knows_is_none(source: Source) -> None:
    directory = PodDirectory(source, 10)
    assert await directory.lookup("f" * 32, "f" * 64) is None
    await directory.close()


async def test_a_container_that_just_started_waits_for_a_fresh_list(
    source: Source,
) -> None:
    directory = PodDirectory(source, 10)
    await directory.refresh()
    source.pods = decode_pod_list(pod_list("web", "new"))
    match = await directory.lookup(f"{2:032x}", f"{2:064x}", need_container=True)
    assert match is not None
    assert match.pod.metadata.name == "new"
    await directory.close()


async def test_a_pod_whose_container_is_unlisted_is_matched_by_its_uid(source: Source) -> None:
    directory = PodDirectory(source, 10)
    match = await directory.lookup(UID, "e" * 64)
    assert match is not None
    assert (match.pod.metadata.name, match.container_name) == ("web", "")
    await directory.close()


async def test_a_container_that_the_kubelet_reports_late_is_waited_for(source: Source) -> None:
    late = list_json(pod_json("web", UID, {"app": f"{1:064x}", "late": "e" * 64}))

    async def sleep(_: float) -> None:
        if source.fetches == 3:
            source.pods = decode_pod_list(late)

    directory = PodDirectory(source, 10, sleep=sleep)
    match = await directory.lookup(UID, "e" * 64, need_container=True)
    assert match is not None
    assert match.container_name == "late"
    await directory.close()


async def test_an_unlisted_container_is_answered_nameless_in_time(
    source: Source,
) -> None:
    directory = PodDirectory(source, 10)
    match = await directory.lookup(UID, "e" * 64, need_container=True, timeout_seconds=0.2)
    assert match is not None
    assert (match.pod.metadata.name, match.container_name) == ("web", "")
    await directory.close()


async def test_a_pods_only_container_is_named_before_it_is_listed(source: Source) -> None:
    only = {**pod_json("web", UID, {}), "spec": {"containers": [{"name": "app"}]}}
    source.pods = decode_pod_list(list_json(only))
    directory = PodDirectory(source, 10)
    match = await directory.lookup(UID, "e" * 64, need_container=True, timeout_seconds=30)
    assert match is not None
    assert (match.container_name, match.container_kind) == ("app", "container")
    assert source.fetches == 1
    await directory.close()


def whole_pod(**containers: str) -> bytes:
    """A list of one pod whose containers of these names run under these IDs."""
    spec = {"containers": [{"name": name} for name in containers]}
    return list_json({**pod_json("web", UID, containers), "spec": spec})


@pytest.mark.parametrize("names", [("app",), ("app", "side")])
async def test_a_container_of_no_list_costs_one_list_and_no_wait(
    source: Source, names: tuple[str, ...]
) -> None:
    source.pods = decode_pod_list(whole_pod(**{name: name[0] * 64 for name in names}))
    directory = PodDirectory(source, 10)
    await directory.refresh()
    began = time.monotonic()
    for _ in range(20):
        match = await directory.lookup(UID, "e" * 64, need_container=True)
        assert match is not None
        assert (match.container_name, match.is_unlisted) == ("", True)
    assert time.monotonic() - began < 4
    assert source.fetches == 2
    await directory.close()


async def test_a_list_from_before_the_question_rules_nothing_out(
    source: Source,
) -> None:
    source.pods = decode_pod_list(whole_pod(app="a" * 64))
    directory = PodDirectory(source, 10)
    await directory.refresh()
    source.failing = True
    match = await directory.lookup(UID, "e" * 64, need_container=True, timeout_seconds=0.5)
    assert match is not None
    assert (match.container_name, match.is_unlisted) == ("", False)
    await directory.close()


async def test_no_call_waits_for_a_name_missing_for_half_a_minute(source: Source) -> None:
    """A neighbour crashes in a loop, so each list says that a container may be starting."""
    crashing = json.loads(whole_pod(app="a" * 64, side="b" * 64))
    crashing["items"][0]["status"]["containerStatuses"][1]["state"] = {"waiting": {}}
    source.pods = decode_pod_list(json.dumps(crashing).encode())
    later = 0.0
    directory = PodDirectory(source, 10, clock=lambda: time.monotonic() + later)
    began = time.monotonic()
    await directory.lookup(UID, "e" * 64, need_container=True, timeout_seconds=0.5)
    assert time.monotonic() - began > 0.4
    later, fetches, began = 31.0, source.fetches, time.monotonic()
    for _ in range(20):
        match = await directory.lookup(UID, "e" * 64, need_container=True)
        assert match is not None and match.container_name == ""
    assert time.monotonic() - began < 2
    assert source.fetches <= fetches + 2
    source.pods = decode_pod_list(whole_pod(app="a" * 64, side="e" * 64))
    later = 60.0
    match = await directory.lookup(UID, "e" * 64, need_container=True)
    assert match is not None and match.container_name == "side"
    await directory.close()


async def test_a_process_in_no_container_waits_for_no_list(source: Source) -> None:
    directory = PodDirectory(source, 10)
    await directory.refresh()
    for _ in range(20):
        match = await directory.lookup(UID, None, need_container=True)
        assert match is not None
        assert (match.container_name, match.container_id) == ("", None)
    assert source.fetches == 1
    await directory.close()


async def test_a_container_that_was_started_again_is_waited_for(source: Source) -> None:
    old, new = "a" * 64, "b" * 64
    ended = pod_json("web", UID, {"app": old})
    ended["status"]["containerStatuses"][0]["state"] = {"terminated": {}}
    ended["spec"] = {"containers": [{"name": "app"}]}
    source.pods = decode_pod_list(list_json(ended))

    async def sleep(_: float) -> None:
        if source.fetches == 2:
            source.pods = decode_pod_list(whole_pod(app=new))

    directory = PodDirectory(source, 10, sleep=sleep)
    match = await directory.lookup(UID, new, need_container=True)
    assert match is not None
    assert (match.container_name, source.fetches) == ("app", 3)
    await directory.close()


async def test_an_old_list_does_not_prove_an_only_container(source: Source) -> None:
    containers = {"containers": [{"name": "app"}]}
    source.pods = decode_pod_list(list_json({**pod_json("web", UID, {}), "spec": containers}))
    directory = PodDirectory(source, 10)
    await directory.refresh()
    debugged = {**containers, "ephemeralContainers": [{"name": "debugger"}]}
    source.pods = decode_pod_list(list_json({**pod_json("web", UID, {}), "spec": debugged}))
    match = await directory.lookup(UID, "e" * 64, need_container=True, timeout_seconds=1.5)
    assert match is not None
    assert match.container_name == ""
    await directory.close()


async def test_unknown_callers_cause_one_fetch_a_second_at_most(source: Source) -> None:
    directory = PodDirectory(source, 10)
    await directory.refresh()
    began = time.monotonic()
    await asyncio.gather(*(directory.lookup("f" * 32, f"{n:064x}") for n in range(1000, 1200)))
    await asyncio.gather(*(directory.lookup("f" * 32, f"{n:064x}") for n in range(1000, 1200)))
    assert source.fetches - 1 <= time.monotonic() - began + 1
    await directory.close()


async def test_one_callers_cancellation_does_not_end_anothers_wait(source: Source) -> None:
    directory = PodDirectory(source, 10)
    source.leave.clear()
    first = asyncio.create_task(directory.lookup(UID, ID))
    second = asyncio.create_task(directory.lookup(UID, ID))
    await asyncio.sleep(0.01)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.leave.set()
    assert await second
    assert source.fetches == 1
    await directory.close()


async def test_a_failed_fetch_names_the_next_try_and_is_not_kept(source: Source) -> None:
    directory = PodDirectory(source, 10)
    source.failing = True
    with pytest.raises(Unavailable) as refused:
        await directory.lookup(UID, ID)
    assert 0 < refused.value.retry_after_seconds <= 0.5
    fetches = source.fetches
    with pytest.raises(Unavailable):
        await directory.lookup(UID, ID)
    assert source.fetches == fetches
    source.failing = False
    await asyncio.sleep(refused.value.retry_after_seconds + 0.05)
    assert await directory.lookup(UID, ID)
    assert directory.last_error is None
    await directory.close()


async def test_a_known_caller_is_answered_while_the_source_fails(
    source: Source,
) -> None:
    directory = PodDirectory(source, 0)
    before = await directory.lookup(UID, ID)
    source.failing = True
    for _ in range(5):
        match = await directory.lookup(UID, ID)
        assert match is not None and before is not None
        assert match.observed_at == before.observed_at
    assert directory.stats.failures >= 1
    await directory.close()


async def test_a_known_caller_does_not_wait_for_a_source_that_hangs(source: Source) -> None:
    directory = PodDirectory(source, 0)
    await directory.lookup(UID, ID)
    source.leave.clear()
    began = time.monotonic()
    assert await directory.lookup(UID, ID)
    assert time.monotonic() - began < 2
    await directory.close()


async def test_a_stale_list_without_the_caller_decides_nothing(source: Source) -> None:
    directory = PodDirectory(source, 10)
    await directory.refresh()
    source.failing = True
    with pytest.raises(Unavailable):
        await directory.lookup("f" * 32, "f" * 64)
    await directory.close()


async def test_a_caller_with_little_time_gets_its_error_in_time(source: Source) -> None:
    directory = PodDirectory(source, 10)
    source.leave.clear()
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await directory.lookup(UID, ID, timeout_seconds=0.05)
    assert time.monotonic() - began < 2
    await directory.close()


async def test_close_does_not_wait_for_a_source_that_hangs(source: Source) -> None:
    directory = PodDirectory(source, 10)
    source.leave.clear()
    waiting = asyncio.create_task(directory.lookup(UID, ID))
    await asyncio.sleep(0.01)
    began = time.monotonic()
    await directory.close()
    assert time.monotonic() - began < 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_a_waiter_for_a_change_gets_a_list_that_differs(source: Source) -> None:
    directory = PodDirectory(source, 0.01)
    first = await directory.changed(0)
    waiting = asyncio.create_task(directory.changed(first))
    fetched = source.fetches
    while source.fetches < fetched + 3:  # noqa: ASYNC110 - a thread fetches
        await asyncio.sleep(0.005)
    assert not waiting.done()
    source.pods = decode_pod_list(pod_list("web", "shop"))
    assert await asyncio.wait_for(waiting, 10) == first + 1
    assert directory.last is not None and len(directory.last.pods) == 2
    await directory.close()


async def test_one_fetch_serves_all_waiters_for_a_change(source: Source) -> None:
    directory = PodDirectory(source, 3600)
    waiting = [asyncio.create_task(directory.changed(0)) for _ in range(50)]
    assert await asyncio.gather(*waiting) == [1] * 50
    assert source.fetches == 1
    await directory.close()


async def test_a_waiter_for_a_change_survives_a_failed_fetch(source: Source) -> None:
    source.failing = True
    directory = PodDirectory(source, 0.01)
    waiting = asyncio.create_task(directory.changed(0))
    while not directory.stats.failures:  # noqa: ASYNC110 - a thread fetches
        await asyncio.sleep(0.005)
    source.failing = False
    assert await asyncio.wait_for(waiting, 10) == 1
    await directory.close()


async def test_a_stop_fails_the_waiters_for_a_change(source: Source) -> None:
    directory = PodDirectory(source, 3600)
    waiting = asyncio.create_task(directory.changed(await directory.changed(0)))
    await asyncio.sleep(0)
    await directory.close()
    with pytest.raises(Unavailable, match="stopping"):
        await waiting
