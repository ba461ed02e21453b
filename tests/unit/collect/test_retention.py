"""A sweep releases what is kept for pods that have ended, and nothing of those that have not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Set
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from netutil.agent.collect import retention as retention_module
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.collect.retention import Kept, Memos, Retention
from netutil.agent.connections.registry import Connection, ConnectionRegistry
from netutil.agent.connections.seen_pods import SeenPods
from netutil.agent.errors import Reason, Unavailable
from netutil.agent.identity.host_root import HOST_ROOT
from netutil.agent.identity.peer import NO_POD
from netutil.agent.observability.call_stats import CallStats
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.model import decode_pod_list
from netutil.agent.recent_cache import RecentCache

from tests.support.fakes.kubelet import list_json, pod_json
from tests.unit.connections.test_seen_pods import CONTAINER, KEY, UID, peer_of, tree_of
from tests.unit.pods.test_directory import Source


class Node:
    """One pod that has connected and asked, and what an agent keeps of it."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "kubepods" / f"pod{UID}"
        self.directory.mkdir(parents=True)
        self.tree = tree_of(root)
        self.source = Source()
        self.source.pods = decode_pod_list(list_json(pod_json("web", UID, {"app": CONTAINER})))
        self.pods = PodDirectory(self.source, 10)
        self.seen, self.registry, self.log = SeenPods(self.tree), ConnectionRegistry(), CallStats()
        self.cache: RecentCache[str, int] = RecentCache(16)
        self.reads = ReadPool(threads=2)
        kept = Kept({"calls": self.log}, {"cache": self.cache}, {"connections": self.registry})
        self.retention = Retention(kept, self.seen, self.registry, self.pods, self.reads)
        self.peer = peer_of(self.tree)

    def asks(self) -> Connection:
        self.seen.note(self.peer)
        self.log.record(KEY, "OK", "", 0.001)
        connection = Connection(KEY, self.peer)
        self.registry.add(connection)
        return connection


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_a_pod_that_has_ended_is_forgotten_at_the_next_sweep(node: Node) -> None:
    node.registry.remove(node.asks())
    await node.retention.sweep()
    assert node.retention.counts() == {"calls": 1, "cache": 0, "connections": 0, "pods": 1}
    node.directory.rmdir()
    await node.retention.sweep()
    assert node.retention.counts() == {"calls": 0, "cache": 0, "connections": 0, "pods": 0}


async def test_a_pod_with_an_open_connection_is_kept(node: Node) -> None:
    connection = node.asks()
    node.directory.rmdir()
    await node.retention.sweep()
    assert KEY in node.log.by_pod
    node.registry.remove(connection)
    await node.retention.sweep()
    assert KEY not in node.log.by_pod


async def test_a_pod_that_has_no_connection_but_runs_is_kept(node: Node) -> None:
    node.registry.remove(node.asks())
    for _ in range(20):
        await node.retention.sweep()
    assert KEY in node.log.by_pod


async def test_the_entries_of_an_unseen_pod_are_dropped(node: Node) -> None:
    node.log.record("f" * 32, "OK", "", 0.001)
    node.log.record(NO_POD, "OK", "", 0.001)
    node.log.record(HOST_ROOT, "OK", "", 0.001)
    await node.retention.sweep()
    assert list(node.log.by_pod) == [NO_POD, HOST_ROOT]


async def test_an_entry_unused_for_two_sweeps_is_released(node: Node) -> None:
    node.cache["used"] = node.cache["not used"] = 1
    for _ in range(2):
        await node.retention.sweep()
        assert node.cache.get("used") == 1
    assert len(node.cache) == 1


async def test_a_pod_is_kept_while_its_state_is_unknown(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def times_out(*_: object) -> None:
        raise Unavailable(Reason.READ_TIMED_OUT, "It took too long.")

    node.registry.remove(node.asks())
    node.directory.rmdir()
    with monkeypatch.context() as patched:
        patched.setattr(node.reads, "run", times_out)
        await node.retention.sweep()
    assert KEY in node.log.by_pod
    assert "it is not known which pods have ended" in caplog.text
    await node.retention.sweep()
    assert KEY not in node.log.by_pod


async def test_a_pod_that_connects_during_the_sweep_is_kept(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A static pod that is started again has the UID that it had."""
    node.registry.remove(node.asks())
    node.directory.rmdir()
    run = node.reads.run

    async def slow(key: str, read: Callable[[], Any], what: str) -> Any:
        found = await run(key, read, what)
        node.directory.mkdir()
        node.asks()
        return found

    monkeypatch.setattr(node.reads, "run", slow)
    await node.retention.sweep()
    assert (KEY in node.log.by_pod, list(node.seen)) == (True, [KEY])


async def test_an_ended_pod_is_forgotten_once_no_list_has_it(node: Node) -> None:
    await node.pods.refresh()
    node.registry.remove(node.asks())
    node.directory.rmdir()
    await node.retention.sweep()  # the list is late: it still has the pod
    node.source.pods = ()
    await node.pods.refresh()
    assert len(node.pods.remembered) == 1
    await node.retention.sweep()
    assert len(node.pods.remembered) == 0
    await node.pods.close()


async def test_a_pod_that_runs_is_remembered_though_no_list_has_it(node: Node) -> None:
    await node.pods.refresh()
    node.registry.remove(node.asks())
    node.source.pods = ()
    await node.pods.refresh()
    for _ in range(3):
        await node.retention.sweep()
    assert len(node.pods.remembered) == 1
    await node.pods.close()


async def test_a_sweep_that_fails_does_not_end_the_sweeps(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        calls = 0

        def __len__(self) -> int:
            return 0

        def retain(self, pod_keys: Container[str]) -> None:
            self.calls += 1
            raise RuntimeError("a bug")

    monkeypatch.setattr(retention_module, "SWEEP_SECONDS", 0.001)
    broken = Broken()
    kept = Kept({"broken": broken}, {}, {})
    retention = Retention(kept, node.seen, node.registry, node.pods, node.reads)
    running = asyncio.create_task(retention.run())
    async with asyncio.timeout(20):
        while broken.calls < 3:  # noqa: ASYNC110 - the sweep sets no event
            await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert "a sweep failed" in caplog.text


def test_the_results_of_functions_are_counted_and_dropped() -> None:
    doubled, tripled = lru_cache(4)(lambda n: 2 * n), lru_cache(4)(lambda n: 3 * n)
    memos = Memos((doubled, tripled))
    assert [doubled(1), doubled(2), tripled(1)] == [2, 4, 3]
    assert len(memos) == 3
    memos.age()
    assert len(memos) == 0


def ended(node: Node, *keys: str) -> Set[str]:
    return node.pods.forget(frozenset(keys))


async def test_a_pod_is_found_by_its_uid_and_by_its_containers(node: Node) -> None:
    assert ended(node, KEY) == frozenset()
    await node.pods.refresh()
    assert ended(node, KEY, CONTAINER, "other") == {KEY, CONTAINER}
    await node.pods.close()
