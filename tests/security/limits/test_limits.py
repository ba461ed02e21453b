"""Each limit of a pod, hit over the real socket by a real pod, while another pod is answered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.security import over_limit_client
from tests.support.lab import Lab, LabAgent, LabContainer
from tests.support.nodes.agent_node import ask, netutil
from tests.support.nodes.measures import metric_total

pytestmark = pytest.mark.xdist_group("limits")
LIMITS = {
    "max-connections-per-pod": 4,
    "max-streams-per-pod": 3,
    "max-calls-per-second-per-pod": 1,
    "max-call-burst-per-pod": 20,
}


@dataclass
class Node:
    """`hostile` are pods that have asked nothing yet: each test takes one."""

    agent: LabAgent
    hostile: list[LabContainer]
    other: LabContainer

    def others_are_answered(self) -> bool:
        return bool(netutil(self.other, "whoami")["name"] == "other")


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with Lab() as lab:
        hostile = [lab.pod(f"hostile-{number}").container("app") for number in range(9)]
        other = lab.pod("other").container("app")
        lab.write_pod_list()
        agent = lab.agent(*(f"--{name}={value}" for name, value in LIMITS.items()))
        yield Node(agent, hostile, other)


def call(container: LabContainer, *argv: str) -> dict[str, Any]:
    results: dict[str, Any] = ask(container, over_limit_client.PATH, *argv)
    return results


def refusals(agent: LabAgent, reason: str) -> float:
    return metric_total(
        agent, rf'netutil_errors_total\{{outcome="refused",reason="{reason}",stage="[a-z]+"\}}'
    )


PATHS = {
    "of the service": over_limit_client.GET_POD,
    "of health": "/grpc.health.v1.Health/Check",
    "of reflection": "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "that does not exist": "/no.such.Service/Method",
}


@pytest.mark.parametrize("path", PATHS.values(), ids=list(PATHS))
def test_calls_in_a_second_are_limited_whichever_method(path: str, node: Node) -> None:
    reason = "TOO_MANY_CALLS_PER_SECOND"
    before = refusals(node.agent, reason)
    results = call(node.hostile.pop(), "burst", path, "60")
    *earlier, refused = results["answers"]
    assert refused[:2] == ["RESOURCE_EXHAUSTED", reason]
    assert len(earlier) >= LIMITS["max-call-burst-per-pod"]
    assert reason not in {reason for _, reason, _ in earlier}
    # All methods share one count, and the announced time is true.
    assert results["last"][:2] == ["RESOURCE_EXHAUSTED", reason]
    assert 0 < results["last"][2] <= 1 / LIMITS["max-calls-per-second-per-pod"]
    assert results["later"][0] == "OK"
    assert refusals(node.agent, reason) - before == 2
    assert node.others_are_answered()


STREAMS = {
    "of the service": "/v1alpha.NetUtil/Watch",
    "of health": "/grpc.health.v1.Health/Watch",
}


@pytest.mark.parametrize("path", STREAMS.values(), ids=list(STREAMS))
def test_open_streams_are_limited_whichever_method(path: str, node: Node) -> None:
    argv = [sys.executable, over_limit_client.PATH, "streams", path, "5"]
    holding = node.hostile.pop().spawn(argv, stdin=subprocess.PIPE)
    try:
        assert holding.stdout is not None
        results = json.loads(holding.stdout.readline())["answers"]
        refused = [answer for answer in results if answer[0] != "OK"]
        assert refused == [["RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS_OF_POD", 1.0]] * 2
        assert metric_total(node.agent, "netutil_streams") == LIMITS["max-streams-per-pod"]
        assert node.others_are_answered()
    finally:
        holding.communicate(timeout=30)


def test_a_rejected_connection_is_accepted_after_the_retry_time(
    node: Node,
) -> None:
    reason = "TOO_MANY_CONNECTIONS_OF_POD"
    before = refusals(node.agent, reason)
    results = call(node.hostile.pop(), "connections", "6")
    assert [code for code, *_ in results["answers"]] == ["OK"] * 4 + ["RESOURCE_EXHAUSTED"] * 2
    assert results["last"][:2] == ["RESOURCE_EXHAUSTED", reason]
    assert results["later"][0] == "OK"
    assert refusals(node.agent, reason) - before >= 2
    assert node.others_are_answered()


@pytest.mark.parametrize(("count", "size"), [("600", "1"), ("1", "9000")])
def test_metadata_past_the_limit_is_refused_with_a_status(
    count: str, size: str, node: Node
) -> None:
    """By the client itself where it goes by the agent's SETTINGS, as gRPC's does."""
    results = call(node.hostile.pop(), "metadata", count, size)
    assert [code for code, *_ in results["answers"]] == ["RESOURCE_EXHAUSTED", "OK"]
    assert node.others_are_answered()


def test_the_limits_are_metrics_themselves(node: Node) -> None:
    for flag, value in LIMITS.items():
        name = flag.removeprefix("max-").replace("-", "_")
        assert metric_total(node.agent, rf'netutil_limit\{{limit="{name}"\}}') == value
