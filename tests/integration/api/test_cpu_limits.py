"""Limits and sets of CPUs as a container gets them, against the kernel's own cgroups."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from netutil.client import NodeClient
from netutil.client.rpc import requests

from tests.integration.api.test_unnamed import in_the_pods_own_cgroup
from tests.support.lab import Lab, LabContainer, LabPod
from tests.support.lab.observing import needs_lab
from tests.support.lab.shapes import Driver
from tests.support.nodes.agent_node import ask, netutil
from tests.support.nodes.json_calls import call
from tests.support.repository import ROOT

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("cpu-limits")]

DOCUMENT = ROOT / "docs/facts/cpu.md"


@dataclass
class Node:
    lab: Lab
    pod: LabPod
    app: LabContainer


@pytest.fixture(scope="module", params=["cgroupfs", "systemd"])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    driver: Driver = request.param
    with Lab() as lab:
        pod = lab.pod("web", driver=driver)
        app = pod.container("app", env={"PATH": os.environ["PATH"]}, cpus="0")
        lab.agent("--pod-resources=/nonexistent/kubelet.sock")
        yield Node(lab, pod, app)


@pytest.fixture
def limited(node: Node) -> Iterator[Node]:
    """A pod of half a CPU whose container has no limit of its own."""
    node.pod.limit(0.5)
    yield node
    node.pod.limit(None)


def cpu(container: LabContainer, **fields: object) -> dict[str, Any]:
    found: dict[str, Any] = call(container, "GetCPUInfo", "CPURequest", **fields)
    return found


def command(container: LabContainer, *words: str) -> str:
    """Return what `netutil` prints for a person in the container."""
    done = container.run([sys.executable, "-m", "netutil.client", *words])
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_a_limit_of_the_pod_is_marked_in_its_container(limited: Node) -> None:
    found = cpu(limited.app)
    assert (found["quota_cores"], found["quota_level"]) == (0.5, "CGROUP_LEVEL_POD")
    assert (found["quota_microseconds"], found["period_microseconds"]) == ("50000", "100000")
    assert "container_quota_cores" not in found
    assert found["container_period_microseconds"] == "100000"


def test_a_limit_of_the_pods_own_cgroup_is_no_containers(limited: Node) -> None:
    """As in a sandbox of gVisor's on cgroup v1."""
    if (limited.app.cgroups[0] / "cgroup.controllers").exists():
        pytest.skip("cgroup v2 lets no process into a cgroup that hands controllers down")
    move = in_the_pods_own_cgroup(limited.app)
    run = f"{move}\nimport os, sys\nos.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    words = (sys.executable, "-c", run, "-m", "netutil.client", "cpu")
    done = limited.app.run([*words, "-o", "json"])
    found = json.loads(done.stdout)
    assert (found["quota_cores"], found["quota_level"]) == (0.5, "pod")
    assert found["container_quota_cores"] is None
    assert found["container_quota_microseconds"] is None
    table = limited.app.run(words).stdout.decode()
    assert "limit of the pod cgroup" in table and "container_quota" not in table


def test_no_level_is_reported_without_a_limit(node: Node) -> None:
    found = cpu(node.app)
    assert not {"quota_cores", "quota_microseconds", "quota_level", "quota_unknown"} & set(found)


def test_a_smaller_limit_of_the_containers_own_counts(limited: Node) -> None:
    own = limited.pod.container("own", cpus="0", quota=0.25)
    found = cpu(own)
    assert (found["quota_cores"], found["quota_level"]) == (0.25, "CGROUP_LEVEL_CONTAINER")
    assert found["container_quota_cores"] == 0.25
    own.kill()


def test_a_limit_of_all_pods_together_is_named_kubepods(node: Node) -> None:
    node.lab.limit_kubepods(1.25)
    try:
        found = cpu(node.app)
    finally:
        node.lab.limit_kubepods(None)
    assert (found["quota_cores"], found["quota_level"]) == (1.25, "CGROUP_LEVEL_KUBEPODS")


def test_a_private_cgroup_namespace_hides_the_host_path(limited: Node) -> None:
    inner = limited.pod.container("inner", cpus="0", private_cgroup_namespace=True)
    found = cpu(inner, topology=True)
    assert (found["quota_cores"], found["quota_level"]) == (0.5, "CGROUP_LEVEL_POD")
    del found["resources_error"]
    assert limited.lab.name not in json.dumps(found)
    inner.kill()


def test_sets_as_numbers_are_there_without_the_topology(node: Node) -> None:
    found = cpu(node.app)
    assert found["cpuset_ids"] == found["effective_cpu_ids"] == [0]
    assert found["affinity_ids"] == [0]
    assert not {"cpus", "cpuset_partition", "exclusive_cpus", "exclusive_cpu_ids"} & set(found)


def test_the_topology_includes_the_partition(node: Node) -> None:
    found = cpu(node.app, topology=True)
    partition = found["cpuset_partition"]
    if found["cgroup_version"] == 1:
        assert partition == {"cpu_exclusive": False}
    else:
        assert partition["state"] == "member" and "level" not in partition


def test_the_client_prints_null_for_what_was_not_asked_for(limited: Node) -> None:
    found = netutil(limited.app, "cpu")
    assert found["cpuset_ids"] == found["effective_cpu_ids"] == found["affinity_ids"] == [0]
    not_asked = ("cpus", "exclusive_cpus", "exclusive_cpu_ids", "cpuset_partition")
    assert [found[name] for name in not_asked] == [None] * 4
    assert (found["quota_cores"], found["quota_level"]) == (0.5, "pod")


def test_the_table_shows_where_the_limit_is_set(limited: Node) -> None:
    said = command(limited.app, "cpu")
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert "quota 0.5 CPUs (50000 us in 100000 us), limit of the pod cgroup" in lines
    assert "container_quota no limit" in lines
    if any((one / "cpu.shares").exists() for one in limited.app.cgroups):  # as documented: v1
        assert f"$ netutil cpu\n{said}```" in DOCUMENT.read_text(encoding="utf-8")


def test_the_operator_sees_which_cgroup_it_is(limited: Node) -> None:
    with NodeClient(limited.lab.admin_socket, timeout_seconds=20) as client:
        answer = client.call(requests.described_pod("default", "web"))
    container = answer.containers[0]
    assert container.cpu is not None and container.cpu.quota_level == "pod"
    sources = {one.part: one.read for one in container.sources}
    (quota,) = [
        directory
        for directory in (str(place.parent) for place in limited.app.cgroups)
        if os.path.exists(f"{directory}/cpu.max") or os.path.exists(f"{directory}/cpu.cfs_quota_us")
    ]
    assert sources["cpu quota"] == quota


def test_the_old_script_still_reads_what_it_knows(limited: Node) -> None:
    script = (
        "import grpc, json; from netutil.client import Client\n"
        "with Client() as agent: found = agent.cpu()\n"
        "print(json.dumps([found.quota_cores, found.cpuset_ids, found.exclusive_cpu_ids]))"
    )
    assert ask(limited.app, "-c", script) == [0.5, [0], None]
