"""A caller gets the same objects of its held container while nothing differs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from netutil.agent.collect.caller import Caller, CallerResolver
from netutil.agent.collect.collector import Collector
from netutil.agent.collect.container_cache import ContainerCache, ContainerPlaces
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.errors import (
    FailedPrecondition,
    InvalidArgument,
    Reason,
    Unauthenticated,
    Unavailable,
)
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.peer import Peer
from netutil.agent.identity.pidfd import pin_pid
from netutil.agent.identity.process import Credentials, PinnedProcess
from netutil.agent.pods.model import decode_pod_list

from tests.support.fakes.kubelet import list_json, pod_json
from tests.support.nodes.sriov_node import build_sriov_node
from tests.unit.collect.test_container_cache import Node, identity

NOTHING: Any = None


@pytest.fixture
def process() -> Iterator[PinnedProcess]:
    with subprocess.Popen(["sleep", "infinity"]) as started:
        pinned = pin_pid(started.pid)
        yield pinned
        pinned.close()
        started.kill()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    found = Node(tmp_path / "cgroup")
    found.add("one")
    yield found
    found.cache.close()


def gathering(node: Node) -> Collector:
    callers = CallerResolver(CgroupTree({}), NOTHING, ReadPool(threads=1))
    root = build_sriov_node(node.top.parent / "root")
    return Collector(callers, NOTHING, NOTHING, root, node.cache, NOTHING)


def caller(process: PinnedProcess, pod: Any = None) -> Caller:
    cgroups = identity("one")
    peer = Peer(Credentials(process.pid, 0, 0), process, cgroups, "u")
    match: Any = None if pod is None else SimpleNamespace(pod=pod, container_name="app")
    unavailable = Unavailable(Reason.POD_LIST_UNAVAILABLE, "There is none.")
    return Caller(peer, cgroups, match, None if pod is not None else unavailable)


def a_pod() -> Any:
    return decode_pod_list(list_json(pod_json("web", "u", {})))[0]


async def test_answers_are_the_same_objects_until_something_differs(
    node: Node, process: PinnedProcess
) -> None:
    found, pod = gathering(node), a_pod()
    asks = caller(process, pod)
    cpus, pages = found.cpus.own(asks), found.hugepages.own(asks)
    assert found.cpus.own(asks) is cpus
    assert found.hugepages.own(asks) is pages is not None
    assert found.cpus.own(asks, partition=True) is not cpus
    assert found.cpus.own(asks) is cpus
    assert found.cpus.own(caller(process, a_pod())) is not cpus
    (node.top / "pod/one/cpu.shares").write_text("7\n")
    (node.top / "pod/one/hugetlb.2MB.usage_in_bytes").write_text("2097152\n")
    assert found.cpus.own(asks).facts.bandwidth.shares == 7
    (usage,) = (found.hugepages.own(asks) or pages).usage
    assert usage.usage_bytes == 2097152


async def test_the_kernels_half_is_answered_without_a_pod_list(
    node: Node, process: PinnedProcess
) -> None:
    found, asks = gathering(node), caller(process)
    assert found.cpus.own(asks).asked.error is asks.unavailable
    pages = found.hugepages.own(asks)
    assert pages is not None and pages.spec_error is asks.unavailable


async def test_the_own_pid_is_the_caller_and_no_other_text_is(
    node: Node, process: PinnedProcess
) -> None:
    found, asks = gathering(node), caller(process, a_pod())
    for pid in ("None", "-1", "01x"):
        with pytest.raises(InvalidArgument):
            await found.cpus.of_process(asks, pid)
    process.own_number = 1
    assert await found.cpus.of_process(asks, "1") is found.cpus.own(asks)
    assert await found.hugepages.of_process(asks, "1") is found.hugepages.own(asks)


async def test_an_ended_caller_is_answered_without_affinity(
    node: Node, process: PinnedProcess
) -> None:
    found, asks = gathering(node), caller(process, a_pod())
    process.own_number = 1
    assert found.cpus.own(asks).affinity is not None
    os.kill(process.pid, 9)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - it was killed
    assert (await found.cpus.of_process(asks, "")).affinity is None
    with pytest.raises(Unauthenticated):
        await found.cpus.of_process(asks, "1")


async def test_a_container_in_no_cpuset_hierarchy_is_an_error(process: PinnedProcess) -> None:
    cache = ContainerCache(lambda _: ContainerPlaces(None, None), 0)
    callers: Any = SimpleNamespace(reads=NOTHING)
    found = Collector(callers, NOTHING, NOTHING, "/", cache, NOTHING)
    with pytest.raises(FailedPrecondition) as refused:
        found.cpus.own(caller(process, a_pod()))
    assert refused.value.reason is Reason.CPUSET_NOT_FOUND
    cache.close()
