"""The operators' tools at a node that holds all the pods that a kubelet takes by default: 110."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import pytest
from netutil.client import AsyncNodeClient
from netutil.client.rpc import requests
from netutil.client.rpc.requests import Request

from tests.support.fakes.kubelet import pods
from tests.support.lab.confined import CONFINED
from tests.support.lab.observing import needs_lab
from tests.support.nodes.full_node import FullNode, full_node
from tests.support.nodes.measures import metric
from tests.support.svg_reader import Drawn, faults, read

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("full-node")]

PODS = 110
_WITH_NETWORKS = 12
_TIMEOUT_SECONDS = 60
_NO_LINKS = "not known: link: NET...MESPACE_NOT_READABLE"
"""What is drawn of a confined agent's answer in place of links; as wide as a pod's column."""
_MAX_MESSAGE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Cost:
    """The cost of a command: requests to the kubelet, and walks of the node's cgroups."""

    gets: int
    resource_lists: int
    walks: int


@pytest.fixture(scope="module")
def node() -> Iterator[FullNode]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with full_node(PODS, _WITH_NETWORKS) as node:
        yield node


def walks(node: FullNode) -> int:
    return int(metric(node.agent, "netutil_cgroup_scans_total"))


def run(node: FullNode, *words: str) -> tuple[str, Cost]:
    """The output of `netutil node`, and what it cost."""
    before = len(node.kubelet.requests), node.resources.lists, walks(node)
    done = subprocess.run(
        [sys.executable, "-m", "netutil.client", "node", *words],
        env={**os.environ, "NETUTIL_ADMIN_SOCKET": str(node.lab.admin_socket)},
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, "")
    after = len(node.kubelet.requests), node.resources.lists, walks(node)
    return done.stdout, Cost(*(now - then for now, then in zip(after, before, strict=True)))


def assert_one_look(cost: Cost) -> None:
    """One list was read for the command; a second may fall due beside it, and one at the start."""
    assert 1 <= cost.gets <= 3
    assert cost.resource_lists <= 2
    assert cost.walks == 1


def assert_whole(node: FullNode, drawn: Drawn) -> None:
    """Every pod is drawn once, with each of its containers and the CPUs that it runs on."""
    names = [thing.name for thing in drawn.things if thing.name is not None]
    assert sorted(names) == sorted(node.pod_names)
    for pod in node.lab.pods:
        lines = drawn.pod(f"{pod.namespace}/{pod.name}").text.split("\n")
        for container in pod.containers:
            (line,) = (line for line in lines if line.startswith(f"{container.name}: "))
            assert re.search(r": (own|pool) \S+$", line), line
        unknown = {line for line in lines if "not known" in line}
        assert unknown <= ({_NO_LINKS} if CONFINED else set())


def test_a_picture_of_a_full_node_is_whole_readable_and_one_look(node: FullNode) -> None:
    text, cost = run(node, "map", "-o", "svg")
    drawn = read(text)
    assert_whole(node, drawn)
    assert list(faults(drawn)) == []
    assert "user-plane: own 1" in drawn.pod("core-5g/upf").text
    (shared,) = (thing for thing in drawn.of("pool") if "Pool A" in thing.text)
    assert f"{PODS - 1} containers of {PODS - 1} pods" in shared.text
    assert_one_look(cost)


def test_the_page_holds_the_same_picture_for_the_same_price(node: FullNode) -> None:
    page, cost = run(node, "map", "-o", "html")
    (drawing,) = re.findall(r"<svg .*</svg>", page, re.DOTALL)
    assert_whole(node, read(drawing))
    assert_one_look(cost)


async def test_pods_are_sent_one_by_one_in_their_order(node: FullNode) -> None:
    """So that no message grows with the node: gRPC in other languages takes at most 4 MiB."""
    question: Request[Any] = replace(requests.described_pods(), decode=lambda message: message)
    async with (
        AsyncNodeClient(node.lab.admin_socket) as client,
        aclosing(client.stream(question, _TIMEOUT_SECONDS)) as stream,
    ):
        sent = [message async for message in stream]
    assert [f"{one.pod.namespace}/{one.pod.name}" for one in sent] == node.pod_names
    assert max(one.ByteSize() for one in sent) < _MAX_MESSAGE_BYTES


async def test_the_topology_is_not_sent_again_with_each_pod(node: FullNode) -> None:
    """A node may have hundreds of CPUs, and most pods run on nearly all of them."""
    async with (
        AsyncNodeClient(node.lab.admin_socket) as client,
        aclosing(client.stream(requests.described_pods(), _TIMEOUT_SECONDS)) as stream,
    ):
        sent = {one.pod.name: one async for one in stream}
    cpus = [container.cpu for one in sent.values() for container in one.containers]
    assert all(cpu is not None and cpu.cpuset_ids and not cpu.cpus for cpu in cpus)
    assert [one.cpu and one.cpu.exclusive_cpu_ids for one in sent["upf"].containers] == [(1,)]


def test_the_list_and_one_pod_cost_one_look_each(node: FullNode) -> None:
    listed, cost = run(node, "pods")
    names = re.findall(r"^([a-z0-9-]+/[a-z0-9-]+) ", listed, re.MULTILINE)
    assert names == node.pod_names
    assert_one_look(cost)
    for name in (node.pod_names[0], node.pod_names[-1]):
        output, cost = run(node, "pod", name)
        assert name in output and "NOT KNOWN" not in output
        assert_one_look(cost)


def test_a_pod_is_described_as_it_is_now(node: FullNode) -> None:
    upf = next(pod for pod in node.lab.pods if pod.name == "upf")
    before, _ = run(node, "pod", "core-5g/upf")
    assert "release=two" not in before
    upf.labels["release"] = "two"
    node.kubelet.answer = pods(*node.lab.pod_list()["items"])
    after, _ = run(node, "pod", "core-5g/upf")
    assert re.search(r"^label +release=two$", after, re.MULTILINE)


def test_top_asks_neither_kubelet_nor_cgroups(node: FullNode) -> None:
    costs = []
    for _ in range(3):  # a fetch that another command began may end meanwhile
        output, cost = run(node, "top", "--once", "--interval", "100ms")
        assert f"(without a connection or a call: {PODS})" in output
        costs.append(cost)
    assert Cost(gets=0, resource_lists=0, walks=0) in costs
