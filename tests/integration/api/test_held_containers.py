"""No answer is older than what its sources say when the question is asked.

1 000 changes, each of one source at a random moment, each followed at once by questions over
several connections, while another connection asks all the time.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.fakes.podresources import pod as allocated
from tests.support.lab import Lab, LabAgent, LabContainer, LabPod, LabProcess
from tests.support.lab.observing import needs_lab
from tests.support.lab.shapes import Driver
from tests.support.nodes.agent_node import ask
from tests.support.nodes.dpdk_node import podresources
from tests.support.nodes.measures import metric
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("held-containers")]

CLIENT = str(Path(__file__).with_name("held_client.py"))
CONNECTIONS = 4
CHANGES = 1000
PERIOD = 100_000
CPUS = sorted(os.sched_getaffinity(0))[:2]
Change = Callable[[random.Random], None]


@dataclass
class Node:
    lab: Lab
    agent: LabAgent
    pod: LabPod
    app: LabContainer


@pytest.fixture(scope="module", params=["cgroupfs", "systemd"])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    driver: Driver = request.param
    with Lab() as lab, podresources(lab.directory / "kubelet.sock") as kubelet:
        kubelet.pods = [allocated("web", "default")]
        pod = lab.pod("web", driver=driver)
        app = pod.container("app", env={"PATH": os.environ["PATH"]}, cpus=listed(CPUS))
        # The client asks more often than a pod may.
        rates = ("--max-calls-per-second-per-pod=100000", "--max-call-burst-per-pod=100000")
        agent = lab.agent(f"--pod-resources={kubelet.path}", *rates)
        yield Node(lab, agent, pod, app)


def listed(cpus: list[int]) -> str:
    return ",".join(map(str, cpus))


class Client:
    """The client in the container."""

    def __init__(self, process: LabProcess) -> None:
        self.process = process

    def answers(self) -> list[dict[str, Any]]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        found: list[dict[str, Any]] = json.loads(self.process.stdout.readline())
        return found


@pytest.fixture
def client(node: Node) -> Iterator[Client]:
    process = node.app.spawn(
        [sys.executable, CLIENT, str(CONNECTIONS)], stdin=subprocess.PIPE, stderr=None
    )
    yield Client(process)
    process.kill()
    process.wait()


@dataclass
class Sources:
    """The sources of an answer as written, and the answer that they mean."""

    node: Node
    process: int
    own: float | None = None
    pod: float | None = None
    kubepods: float | None = None
    cpus: tuple[int, ...] = tuple(CPUS)
    weight: int = 0

    def limit_container(self, chance: random.Random) -> None:
        self.own = chance.choice((None, 0.25, 0.5, 0.75))
        quota = "max" if self.own is None else str(round(self.own * PERIOD))
        for directory in self.node.app.cgroups:
            if (directory / "cpu.max").exists():
                (directory / "cpu.max").write_text(f"{quota} {PERIOD}")
            if (directory / "cpu.cfs_quota_us").exists():
                (directory / "cpu.cfs_quota_us").write_text(quota.replace("max", "-1"))

    def limit_pod(self, chance: random.Random) -> None:
        self.pod = chance.choice((None, 0.8, 0.9, 1.0))
        self.node.pod.limit(self.pod)

    def limit_kubepods(self, chance: random.Random) -> None:
        self.kubepods = chance.choice((None, 1.25, 1.5, 1.75))
        self.node.lab.limit_kubepods(self.kubepods)

    def set_cpus(self, chance: random.Random) -> None:
        self.cpus = tuple(sorted(chance.sample(CPUS, chance.randrange(1, len(CPUS) + 1))))
        for directory in self.node.app.cgroups:
            if (directory / "cpuset.cpus").exists():
                (directory / "cpuset.cpus").write_text(listed(list(self.cpus)))

    def set_affinity(self, chance: random.Random) -> None:
        affinity = chance.sample(self.cpus, chance.randrange(len(self.cpus)) + 1)
        os.sched_setaffinity(self.process, affinity)

    def set_weight(self, chance: random.Random) -> None:
        self.weight = chance.randrange(2, 10_000)
        for directory in self.node.app.cgroups:
            for name in ("cpu.shares", "cpu.weight"):
                if (directory / name).exists():
                    (directory / name).write_text(str(self.weight))

    def expected(self) -> dict[str, Any]:
        limits = [one for one in (self.own, self.pod, self.kubepods) if one is not None]
        return {
            "quota_cores": min(limits, default=None),
            "container_quota_cores": self.own,
            "cpuset_ids": list(self.cpus),
            "effective_cpu_ids": list(self.cpus),
            # The rest after a change of the container's set depends on the kernel.
            "affinity_ids": sorted(os.sched_getaffinity(self.process)),
            "weight": self.weight,
        }


def shown(answer: dict[str, Any]) -> dict[str, Any]:
    names = ("quota_cores", "container_quota_cores", "cpuset_ids", "effective_cpu_ids")
    found = {name: answer.get(name) for name in (*names, "affinity_ids")}
    weight = answer.get("shares") or answer.get("weight")
    return found | {"weight": int(weight or 0)}


def test_no_answer_is_older_than_its_question(node: Node, client: Client) -> None:
    chance = random.Random(node.app.id)  # noqa: S311 - not a secret
    sources = Sources(node, client.process.host_pid)
    changes: list[Change] = [
        sources.limit_container,
        sources.limit_pod,
        sources.limit_kubepods,
        sources.set_cpus,
        sources.set_affinity,
        sources.set_weight,
    ]
    client.answers()
    for change in changes:
        change(chance)
    for _ in range(CHANGES // 2):  # of two drivers
        time.sleep(chance.random() / 500)
        chance.choice(changes)(chance)
        expected = sources.expected()
        for answer in client.answers():
            assert shown(answer) == expected
    assert metric(node.agent, "netutil_held_containers") == 1
    assert metric(node.agent, "netutil_held_files") <= 32


def test_an_ended_containers_values_are_released(node: Node) -> None:
    held = "netutil_held_containers"
    command = ("-m", "netutil.client", "cpu", "-o", "json")
    assert ask(node.app, *command)["cpuset"]
    before, files = metric(node.agent, held), metric(node.agent, "netutil_held_files")
    ended = metric(node.agent, f"{held}_ended_total")
    other = node.pod.container("other", env={"PATH": os.environ["PATH"]}, cpus=str(CPUS[0]))
    node.lab.write_pod_list()
    assert ask(other, *command)["cpuset"] == str(CPUS[0])
    assert metric(node.agent, held) == before + 1
    assert metric(node.agent, "netutil_held_files") > files
    other.kill()
    eventually(lambda: metric(node.agent, held) == before)
    assert metric(node.agent, "netutil_held_files") == files
    assert metric(node.agent, f"{held}_ended_total") == ended + 1
