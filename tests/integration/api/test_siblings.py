"""`pid` names a process of any container of the pod, also of a pod without a cgroup of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.lab import Lab, LabAgent, LabContainer, LabPod
from tests.support.lab.observing import needs_lab
from tests.support.lab.shapes import Driver, Runtime
from tests.support.nodes.agent_node import netutil
from tests.support.nodes.client_driver import EVERYTHING, POD_CLIENT, Call, Outcomes, asked, task
from tests.support.nodes.forged_cgroups import process_in_own_cgroup
from tests.support.nodes.measures import metric_total

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("siblings")]

SHAPES: dict[str, tuple[Driver, Runtime]] = {
    "a directory of its own": ("cgroupfs", "containerd"),
    "joined names": ("joined", "containerd"),
    "no UID": ("no-uid", "cri-o"),
}
USER = 12345


@dataclass
class Node:
    lab: Lab
    agent: LabAgent
    pod: LabPod
    one: LabContainer
    two: LabContainer
    user: LabContainer
    other: LabContainer
    apart: LabPod


@pytest.fixture(scope="module", params=SHAPES)
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    driver, runtime = SHAPES[request.param]
    with Lab() as lab:
        pod, other, apart = (
            lab.pod(name, driver=driver, runtime=runtime, share_process_namespace=shared)
            for name, shared in (("shared", True), ("other", True), ("apart", False))
        )
        one = pod.container("one", env={"WHO": "one"}, cpus="0")
        two = pod.container("two", env={"WHO": "two"}, cpus="0-1")
        user = pod.container("user", env={"WHO": "user"}, uid=1000, gid=1000)
        foreign = other.container("app", env={"WHO": "other"})
        apart.container("left", env={"WHO": "left"})
        apart.container("right", env={"WHO": "right"})
        agent = lab.agent("--pod-refresh=3600")
        yield Node(lab, agent, pod, one, two, user, foreign, apart)


def refusal(container: LabContainer, *argv: str) -> Any:
    done = container.run([sys.executable, "-m", "netutil.client", *argv, "-o", "json"])
    assert done.returncode != 0, done.stdout
    return json.loads(done.stderr)["error"]["reason"]


def of(container: LabContainer) -> tuple[str, str]:
    return "--pid", str(container.pid_inside)


def test_a_process_of_a_sibling_is_its_containers(node: Node) -> None:
    assert netutil(node.one, "whoami", *of(node.two))["container_name"] == "two"
    assert netutil(node.two, "whoami", *of(node.one))["container_name"] == "one"
    assert netutil(node.one, "cpu", *of(node.two))["cpuset"] == "0-1"
    assert netutil(node.two, "cpu", *of(node.one))["cpuset"] == "0"
    assert netutil(node.one, "env", *of(node.two))["envs"]["WHO"] == "two"
    everything = netutil(node.one, "all", *of(node.two))
    assert everything["pod"]["container_name"] == "two"
    assert everything["environment"]["envs"]["WHO"] == "two"


def test_the_kernel_decides_on_a_siblings_environment(node: Node) -> None:
    assert netutil(node.one, "whoami", *of(node.user))["container_name"] == "user"
    assert refusal(node.one, "env", *of(node.user)) == "ENVIRONMENT_NOT_READABLE"


def test_a_process_of_another_pod_is_not_there(node: Node) -> None:
    calls: list[Call] = [
        (method, fields | {"pid": str(number)})
        for number in (node.other.pid, node.other.pid_inside + 4000)
        for method, fields in EVERYTHING[:-1]
    ]
    got = asked(node.one, *calls)
    assert got.refusals() == {("NOT_FOUND", "PID_NOT_FOUND")}


def test_a_call_of_many_parts_waits_for_at_most_one_newer_list(node: Node) -> None:
    before = metric_total(node.agent, "netutil_pod_list_fetches")
    (got,) = asked(node.one, ("GetAll", {"pid": "4000"})).calls
    assert metric_total(node.agent, "netutil_pod_list_fetches") - before <= 1
    errors = {one["part"]: one["reason"] for one in got.answer["errors"]}
    assert len(errors) >= 6
    assert set(errors.values()) == {"PID_NOT_FOUND"}


def test_the_same_number_in_another_namespace_is_not_meant(node: Node) -> None:
    left, right = node.apart.containers
    assert netutil(left, "env", "--pid", "1")["envs"]["WHO"] == "left"
    assert netutil(right, "env", "--pid", "1")["envs"]["WHO"] == "right"


def test_a_sibling_that_the_list_lacks_so_far_is_found(node: Node) -> None:
    late = node.pod.container("late", env={"WHO": "late"})
    node.lab.write_pod_list()
    answer = netutil(node.one, "env", *of(late))
    assert answer["envs"]["WHO"] == "late"


@pytest.mark.parametrize("whose", ["own", "sibling's"])
def test_a_users_cgroup_named_like_a_container_is_outside(node: Node, whose: str) -> None:
    """For a caller that sees the node's processes (hostPID)."""
    container = node.one if whose == "own" else node.two
    with process_in_own_cgroup(USER, container.cgroups[0].name) as forger:
        files = [str(directory / "cgroup.procs") for directory in node.one.cgroups]
        enter = f"for file in {files!r}: open(file, 'w').write('0')"
        calls: list[Call] = [("GetPod", {"pid": str(forger)}), ("GetCPUInfo", {"pid": str(forger)})]
        done = subprocess.run(
            [sys.executable, POD_CLIENT],
            input=task(calls, before=enter, socket=str(node.lab.socket)),
            capture_output=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr.decode()
    got = Outcomes.from_output(done.stdout)
    assert got.refusals() == {("PERMISSION_DENIED", "PID_OUTSIDE_POD")}
