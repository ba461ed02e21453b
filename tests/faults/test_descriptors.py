"""The agent has at most two free file descriptors while it answers open connections."""

from __future__ import annotations

import json
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.faulty import probe
from tests.support.lab import Lab, LabAgent, LabContainer
from tests.support.nodes.client_driver import EVERYTHING, ConnectedClient, Outcomes, asked
from tests.support.nodes.measures import metric, metrics_text
from tests.support.nodes.watching import ip, watching
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("faults-descriptors")]
SHORT = ("RESOURCE_EXHAUSTED", "AGENT_OUT_OF_RESOURCES")
MAX_NEEDED = 5
"""No answer needs so many descriptors at once."""
OF_CONNECTION = 3
_SETTLED = 5
"""So many readings in a row that do not differ."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with Lab() as lab:
        lab.pod("web").container("app")
        yield lab


@pytest.fixture
def agent(lab: Lab) -> Iterator[LabAgent]:
    # The list is not read again meanwhile: it would take a descriptor now and then.
    agent = lab.agent("--pod-refresh=3600")
    yield agent
    agent.stop()


def held(agent: LabAgent) -> set[int]:
    return set(map(int, os.listdir(f"/proc/{agent.pid}/fd")))


def held_at_rest(agent: LabAgent) -> int:
    """Return how many files are open once no connection is; one ends a moment after its client."""
    seen: list[int] = []

    def is_settled() -> bool:
        seen.append(len(held(agent)))
        return len(seen) > _SETTLED and len(set(seen[-_SETTLED:])) == 1

    eventually(lambda: metric(agent, "netutil_open_connections") == 0)
    eventually(is_settled)
    return seen[-1]


@contextmanager
def few_left(agent: LabAgent, number: int) -> Iterator[None]:
    """Let the agent open so many files and no more (setrlimit(2), RLIMIT_NOFILE)."""
    taken, limit, free = held(agent), 0, 0
    while free < number or limit in taken:
        free += limit not in taken
        limit += 1
    before = resource.prlimit(agent.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(agent.pid, resource.RLIMIT_NOFILE, before)


def shortages(agent: LabAgent) -> float:
    """Return how often the agent answered with a shortage."""
    text = metrics_text(agent)
    found = re.findall(r'^netutil_errors_total\{.*"AGENT_OUT_OF_RESOURCES".*\} (\S+)$', text, re.M)
    return sum(map(float, found))


def asked_with(agent: LabAgent, container: LabContainer, number: int) -> Outcomes:
    """Outcomes on an open connection while the agent can open only `number` more files."""
    before = held_at_rest(agent)
    client = ConnectedClient.connected(container, *EVERYTHING)
    eventually(lambda: len(held(agent)) >= before + OF_CONNECTION)
    with few_left(agent, number):
        found = client.ask()
    eventually(lambda: len(held(agent)) <= before)
    return found


def test_open_connections_get_an_answer_or_an_error(lab: Lab, agent: LabAgent) -> None:
    web = lab.pods[0].containers[0]
    assert asked(web, *EVERYTHING).refusals() == {("OK", "")}
    outcomes = [asked_with(agent, web, number) for number in range(MAX_NEEDED + 1)]
    assert set().union(*(one.refusals() for one in outcomes)) == {("OK", ""), SHORT}
    assert outcomes[-1].refusals() == {("OK", "")}
    methods = [method for method, _ in EVERYTHING]
    none_left = dict(zip(methods, outcomes[0].calls, strict=True))
    assert none_left["GetEnv"].refusal == SHORT
    assert "the agent has as many files open as it may" in none_left["GetEnv"].sentence
    # What needs no file that is not open is answered, and the other parts of an answer are.
    assert none_left["GetPod"].answer["name"] == "web"
    assert none_left["GetCPUInfo"].answer["cpuset"]
    assert none_left["GetHugepages"].refusal == ("OK", "")
    parts = none_left["GetAll"].answer
    assert parts["pod"]["name"] == "web"
    short = {error["part"] for error in parts["errors"] if error["reason"] == SHORT[1]}
    assert "environment" in short and not {"cpu", "hugepages", "pod"} & short
    assert shortages(agent) >= len(short)
    log = agent.stderr_text()
    assert re.search(r"GetEnv refused: AGENT_OUT_OF_RESOURCES: \S.* could not be read now", log)
    assert "Traceback" not in log
    assert probe(agent, "/healthz") == (200, "ok")


def test_a_watcher_with_a_shortage_recovers_after_its_end(lab: Lab, agent: LabAgent) -> None:
    web = lab.pods[0].containers[0]
    with watching(web) as watcher:
        assert "cpu" in watcher.next()["snapshot"]
        with few_left(agent, 0):
            ip(web, "link set dev lo mtu 60000")
            watcher.until(lambda one: SHORT[1] in json.dumps(one["snapshot"]))
        watcher.until(lambda one: SHORT[1] not in json.dumps(one["snapshot"]))
