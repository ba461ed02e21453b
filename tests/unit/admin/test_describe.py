"""Describing all pods of a node: what it holds at a time, and says of what it cannot read."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from netutil.agent.admin.describe import PodDescriber
from netutil.agent.admin.pod_summary import PodSummaries
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.connections.registry import ConnectionRegistry
from netutil.agent.errors import QuotaExceeded, Reason, Unavailable
from netutil.agent.facts.cpu import CpuDirectories
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.observability.call_stats import CallStats
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.model import Pod, decode_pod_list
from netutil.agent.pods.sources.base import SourceKind

from tests.support.fakes.kubelet import list_json, pod_json

PODS = 50
MAX_HELD = 8


class Source:
    """A node of pods with a container each."""

    kind = SourceKind("A double")

    def __init__(self) -> None:
        self.fetches = 0

    def fetch(self) -> tuple[Pod, ...]:
        self.fetches += 1
        items = [pod_json(f"web-{n:02}", f"{n:032x}", {"app": f"{n:064x}"}) for n in range(PODS)]
        return decode_pod_list(list_json(*reversed(items)))

    def describe(self) -> str:
        return "a double"

    def close(self) -> None:
        pass


class Summaries(PodSummaries):
    """Counts the pods that were begun."""

    def __init__(self) -> None:
        super().__init__(ConnectionRegistry(), CallStats())
        self.begun = 0

    def summarize(self, *arguments: Any) -> Any:
        self.begun += 1
        return super().summarize(*arguments)


class StuckReads(ReadPool):
    """No read succeeds; those after the first `given_up` never end."""

    def __init__(self, given_up: int) -> None:
        super().__init__()
        self._given_up = given_up

    async def run(self, pod_key: str, read: Any, what: str, share: Any = None) -> Any:
        self._given_up -= 1
        if self._given_up < 0:
            await asyncio.Event().wait()
        raise Unavailable(Reason.READ_TIMED_OUT, "It took too long.", read=what)


class Node:
    """The node that is described; without `running` no container has a cgroup."""

    def __init__(self, *, running: bool = False, given_up: int = PODS) -> None:
        self.source, self.summaries, self.walks = Source(), Summaries(), 0
        self.pods = PodDirectory(self.source, 10)
        self._directories = {}
        if running:
            place = CpuDirectories(1, "/nowhere/web", "/nowhere", None)
            self._directories = {f"{n:064x}": place for n in range(PODS)}
        callers: Any = SimpleNamespace(directories=SimpleNamespace(all_cpu=self._walk))
        facts: Any = None
        self.describing = PodDescriber(
            CgroupTree(),
            callers,
            self.pods,
            StuckReads(given_up),
            self.summaries,
            facts,
            "kubelet.sock",
        )

    async def _walk(self) -> dict[str, CpuDirectories]:
        self.walks += 1
        return self._directories


async def test_all_pods_come_in_order_of_one_list_and_one_walk() -> None:
    node, names = Node(), []

    async def send(message: Any) -> None:
        names.append(message.pod.name)

    await node.describing.describe_all(5, send)
    await node.pods.close()
    assert names == [f"web-{n:02}" for n in range(PODS)]
    assert (node.source.fetches, node.walks) == (1, 1)


async def test_a_slow_reader_holds_a_few_pods_and_leaves_no_task() -> None:
    node, asked, taken = Node(running=True, given_up=1), asyncio.Event(), asyncio.Event()
    before = asyncio.all_tasks()

    async def send(_: Any) -> None:
        asked.set()
        await taken.wait()

    sending = asyncio.create_task(node.describing.describe_all(5, send))
    await asked.wait()
    for _ in range(100):  # whatever could run has run
        await asyncio.sleep(0)
    assert node.summaries.begun == MAX_HELD
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert asyncio.all_tasks() == before
    await node.pods.close()


async def test_the_error_that_ends_the_stream_is_passed_on() -> None:
    node = Node()
    error = QuotaExceeded(Reason.TOO_MANY_UNREAD_ANSWERS, "Too much.", read="the table")

    async def send(_: Any) -> None:
        raise error

    with pytest.raises(QuotaExceeded) as raised:
        await node.describing.describe_all(5, send)
    await node.pods.close()
    assert raised.value is error


async def test_unreadable_processes_are_an_error_of_their_container() -> None:
    node, messages = Node(running=True), list[Any]()

    async def send(message: Any) -> None:
        messages.append(message)

    await node.describing.describe_all(5, send)
    await node.pods.close()
    assert len(messages) == PODS
    for message in messages:
        (container,) = message.containers
        (error,) = container.errors
        assert (error.part, error.reason) == ("processes", "READ_TIMED_OUT")
        assert error.read == "/nowhere/web/cgroup.procs"
