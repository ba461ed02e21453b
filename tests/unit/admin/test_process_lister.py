"""ListProcesses: its limits, its errors, and its effect on other callers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from netutil.agent.admin import processes
from netutil.agent.admin.processes import ListingBounds, ProcessLister
from netutil.agent.collect.processes import ProcessFacts, Quota, Slice
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.errors import NotFound
from netutil.agent.kubelet.podresources.directory import ResourceDirectory
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.model import Pod, decode_pod_list
from netutil.agent.pods.sources.base import SourceKind
from netutil.podresources.v1 import podresources_pb2 as v1
from netutil.v1alpha import node_pb2

from tests.support.fakes.kubelet import list_json, pod_json
from tests.support.fakes.podresources import KubeletDouble, pod

PODS = 3
EVERY = node_pb2.ListProcessesRequest(threads=True)


class Source:
    """A node of pods with a container each."""

    kind = SourceKind("A double")

    def fetch(self) -> tuple[Pod, ...]:
        items = [pod_json(f"web-{n}", f"{n:032x}", {"app": f"{n:064x}"}) for n in range(PODS)]
        return decode_pod_list(list_json(*items))

    def describe(self) -> str:
        return "a double"

    def close(self) -> None:
        pass


def facts(number: int) -> ProcessFacts:
    return ProcessFacts(
        *(number, 1, "server", "sleeping", 1, "0-3", 2, 1.5, 4096, 1_700_000_000.0, number)
    )


class Listed:
    """The messages of `run`, by pod."""

    def __init__(self) -> None:
        self.messages: list[node_pb2.ListProcessesResponse] = []

    async def send(self, message: Any) -> None:
        self.messages.append(message)

    def pids(self, name: str) -> list[int]:
        return [one.pid for each in self.messages if each.pod == name for one in each.processes]

    def last(self, name: str) -> node_pb2.ListProcessesResponse:
        return next(one for one in reversed(self.messages) if one.pod == name)


@asynccontextmanager
async def lister(
    socket: Path | str = "/nonexistent/kubelet.sock",
    bounds: ListingBounds | None = None,
    reads: ReadPool | None = None,
    own: Collection[int] = (),
) -> AsyncIterator[ProcessLister]:
    """`own` are the pods that have a cgroup of their own beside those of containers."""

    async def containers() -> dict[str, dict[str, str]]:
        return {f"{n:032x}": {f"{n:064x}": f"/cgroup/web-{n}"} for n in range(PODS)}

    async def directories() -> dict[str, str]:
        return {f"{n:032x}": f"/cgroup/pod-{n}" for n in own}

    found = SimpleNamespace(containers_by_pod=containers, pods=directories)
    callers: Any = SimpleNamespace(directories=found)
    pods, resources = PodDirectory(Source(), 10), ResourceDirectory(str(socket), 10)
    try:
        yield ProcessLister(callers, pods, resources, reads or ReadPool(), bounds)
    finally:
        await resources.close()
        await pods.close()


def reading(monkeypatch: pytest.MonkeyPatch, read: Any) -> None:
    """Let `read` yield the slices of a container instead of the kernel."""
    monkeypatch.setattr(processes, "read_cgroup", read)


def counting(directory: str, quota: Quota, **_: Any) -> Iterator[Slice]:
    """Three processes in slices of their own, with two threads each, as far as the quota goes."""
    number = int(directory[-1]) * 10 + 1
    for pid in range(number, number + 3):
        if not quota.processes:
            quota.processes_truncated = True
            return
        quota.processes -= 1
        taken = min(2, quota.threads)
        quota.threads -= taken
        quota.threads_truncated |= taken < 2
        yield Slice((facts(pid),), 7.5, 0.0)


async def test_every_pod_comes_by_name_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    reading(monkeypatch, counting)
    listed = Listed()
    async with lister() as found:
        await found.run(EVERY, 5, listed.send)
    first, *others = listed.messages
    assert not first.pod and not first.processes
    assert [one.pod for one in others] == [f"web-{n}" for n in range(PODS) for _ in range(4)]
    assert listed.pids("web-2") == [21, 22, 23]
    process = others[0].processes[0]
    assert (process.container, process.container_id) == ("app", "0" * 64)
    assert process.started_at.seconds == 1_700_000_000 and others[0].read_at_seconds == 7.5


async def test_processes_in_no_container_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    skipped: dict[str, list[bool]] = {}

    def read(
        directory: str, quota: Quota, *, skips: Callable[[str], bool], **_: Any
    ) -> Iterator[Slice]:
        names = ("crio-conmon-" + "0" * 64 + ".scope", "crio-" + "0" * 64 + ".scope")
        skipped[directory] = [skips(name) for name in names]
        yield from counting(directory, quota)

    reading(monkeypatch, read)
    listed = Listed()
    async with lister(own=[1], bounds=ListingBounds(pod_processes=5)) as found:
        await found.run(EVERY, 5, listed.send)
    processes = [one for each in listed.messages if each.pod == "web-1" for one in each.processes]
    assert [one.container for one in processes] == ["app"] * 3 + [""] * 2
    assert [one.container_id for one in processes[2:]] == [f"{1:064x}", "", ""]
    assert listed.last("web-1").processes_truncated
    assert skipped["/cgroup/pod-1"] == [False, True]
    assert skipped["/cgroup/web-1"] == [False, False]
    assert listed.pids("web-2") == [21, 22, 23]


async def test_one_pod_is_listed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    reading(monkeypatch, counting)
    listed = Listed()
    async with lister() as found:
        request = node_pb2.ListProcessesRequest(namespace="default", name="web-1")
        await found.run(request, 5, listed.send)
        assert {one.pod for one in listed.messages} == {"", "web-1"}
        for name in ("", "web-9"):
            request = node_pb2.ListProcessesRequest(namespace="default", name=name)
            with pytest.raises(NotFound):
                await found.run(request, 5, listed.send)


@pytest.mark.parametrize(
    ("bounds", "pids"),
    [
        (ListingBounds(pod_processes=2), [2, 2, 2]),
        (ListingBounds(processes=4), [3, 1, 0]),
    ],
)
async def test_no_more_processes_are_listed_than_the_bounds(
    monkeypatch: pytest.MonkeyPatch, bounds: ListingBounds, pids: list[int]
) -> None:
    reading(monkeypatch, counting)
    listed = Listed()
    async with lister(bounds=bounds) as found:
        await found.run(EVERY, 5, listed.send)
    assert [len(listed.pids(f"web-{n}")) for n in range(PODS)] == pids
    truncated = [listed.last(f"web-{n}").processes_truncated for n in range(PODS)]
    assert truncated == [number < 3 for number in pids]


@pytest.mark.parametrize(
    ("bounds", "truncated"),
    [
        (ListingBounds(pod_threads=5), [True, True, True]),
        (ListingBounds(threads=12), [False, False, True]),
    ],
)
async def test_no_more_threads_are_listed_than_the_bounds(
    monkeypatch: pytest.MonkeyPatch, bounds: ListingBounds, truncated: list[bool]
) -> None:
    reading(monkeypatch, counting)
    listed = Listed()
    async with lister(bounds=bounds) as found:
        await found.run(EVERY, 5, listed.send)
    assert [listed.last(f"web-{n}").threads_truncated for n in range(PODS)] == truncated


async def test_exclusive_cpus_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reading(monkeypatch, counting)
    kubelet = KubeletDouble(tmp_path / "kubelet.sock")
    plain = v1.PodResources(name="plain", namespace="shop", containers=[v1.ContainerResources()])
    kubelet.pods = [pod("web"), plain, pod("db")]
    listed = Listed()
    async with kubelet.serving(), lister(kubelet.path) as found:
        await found.run(EVERY, 5, listed.send)
    first = listed.messages[0].exclusive_cpus.containers
    assert [(one.namespace, one.pod, one.container, one.cpus) for one in first] == [
        ("shop", "db", "app", "2-3"),
        ("shop", "web", "app", "2-3"),
    ]
    assert not listed.messages[0].errors


async def test_exclusive_cpus_of_two_pods_of_one_name_are_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reading(monkeypatch, counting)
    kubelet = KubeletDouble(tmp_path / "kubelet.sock")
    kubelet.pods = [pod("web"), pod("web")]
    listed = Listed()
    async with kubelet.serving(), lister(kubelet.path) as found:
        await found.run(EVERY, 5, listed.send)
    first = listed.messages[0]
    assert not first.HasField("exclusive_cpus")
    assert [one.reason for one in first.errors] == ["POD_RESOURCES_AMBIGUOUS"]


async def test_processes_are_listed_without_a_kubelet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reading(monkeypatch, counting)
    kubelet = KubeletDouble(tmp_path / "kubelet.sock")
    for path, seconds in (("/nonexistent/kubelet.sock", 5), (kubelet.path, 0.05)):
        kubelet.hold.clear()
        listed = Listed()
        async with kubelet.serving(), lister(path) as found:
            await found.run(EVERY, seconds, listed.send)
        (error,) = listed.messages[0].errors
        assert (error.part, error.reason) == ("exclusive_cpus", "POD_RESOURCES_UNAVAILABLE")
        assert listed.pids("web-2") == [21, 22, 23]


async def test_a_container_that_cannot_be_read_is_an_error_of_its_pod(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(directory: str, quota: Quota, **options: Any) -> Iterator[Slice]:
        if directory.endswith("1"):
            raise PermissionError(13, "Permission denied", "/proc/11/status")
        yield from counting(directory, quota, **options)

    reading(monkeypatch, read)
    listed = Listed()
    async with lister() as found:
        await found.run(EVERY, 5, listed.send)
    (error,) = listed.last("web-1").errors
    assert (error.part, error.reason, error.read) == (
        *("processes", "FILE_NOT_READABLE"),
        "/proc/11/status",
    )
    assert listed.pids("web-2") == [21, 22, 23]


async def test_a_container_without_a_cgroup_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reading(monkeypatch, counting)
    listed = Listed()
    async with lister() as found:

        async def none() -> dict[str, dict[str, str]]:
            return {}

        monkeypatch.setattr(found._callers.directories, "containers_by_pod", none)
        await found.run(EVERY, 5, listed.send)
    (error,) = listed.last("web-1").errors
    assert (error.part, error.reason) == ("processes", "CPUSET_NOT_FOUND")
    assert "'app'" in error.message


async def test_processes_without_a_number_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(directory: str, quota: Quota, **_: Any) -> Iterator[Slice]:
        quota.hidden += directory.endswith("1")
        yield from ()

    reading(monkeypatch, read)
    listed = Listed()
    async with lister() as found:
        await found.run(EVERY, 5, listed.send)
    (error,) = listed.last("web-1").errors
    assert (error.reason, "hostPID" in error.advice) == ("PEER_NOT_VISIBLE", True)
    assert not listed.last("web-2").errors


async def test_a_read_that_hangs_keeps_its_pod_alone_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end = threading.Event()

    def read(directory: str, quota: Quota, **options: Any) -> Iterator[Slice]:
        if directory.endswith("1"):
            end.wait(60)
        yield from counting(directory, quota, **options)

    reading(monkeypatch, read)
    listed, reads = Listed(), ReadPool(timeout_seconds=0.2)
    try:
        async with lister(reads=reads) as found:
            running = asyncio.create_task(found.run(EVERY, 5, listed.send))
            assert await reads.run("", lambda: 4, "another call") == 4
            await running
        (error,) = listed.last("web-1").errors
        assert error.reason == "READ_TIMED_OUT"
        assert listed.pids("web-2") == [21, 22, 23]
    finally:
        end.set()


async def test_a_list_takes_half_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = [0.03, 0.05]

    def read(directory: str, quota: Quota, **_: Any) -> Iterator[Slice]:
        del quota
        for cost in costs if directory.endswith("1") else ():
            yield Slice((facts(11),), 7.5, cost)

    reading(monkeypatch, read)
    listed, loop = Listed(), asyncio.get_running_loop()
    async with lister() as found:
        began = loop.time()
        await found.run(EVERY, 5, listed.send)
    assert loop.time() - began >= sum(costs)


async def test_a_reader_that_takes_nothing_reads_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[str] = []

    def read(directory: str, quota: Quota, **options: Any) -> Iterator[Slice]:
        for one in counting(directory, quota, **options):
            begun.append(directory)
            yield one

    reading(monkeypatch, read)
    taken = asyncio.Event()

    async def send(message: Any) -> None:
        if message.processes:
            taken.set()
            await asyncio.Event().wait()

    async with lister() as found:
        running = asyncio.create_task(found.run(EVERY, 5, send))
        await taken.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert begun == ["/cgroup/web-0"]
