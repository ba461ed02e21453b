"""Whose environment may be read: what the kernel would let the caller read, and no more."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

import pytest

from tests.support.lab import Lab, LabContainer
from tests.support.nodes.agent_node import netutil

pytestmark = pytest.mark.xdist_group("access")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def shared(lab: Lab) -> tuple[LabContainer, LabContainer, LabContainer]:
    """Three containers of one pod with a shared PID namespace; the last runs as uid 1000."""
    pod = lab.pod("shared", share_process_namespace=True)
    one = pod.container("one", env={"WHO": "one"})
    two = pod.container("two", env={"WHO": "two"})
    user = pod.container(
        "user", env={"WHO": "user", "PCIDEVICE_SECRET": "0000:3b:02.1"}, uid=1000, gid=1000
    )
    apart = lab.pod("apart")
    apart.container("left", env={"WHO": "left"})
    apart.container("right", env={"WHO": "right"})
    lab.write_pod_list()
    lab.agent()
    return one, two, user


def refusal(container: LabContainer, *argv: str) -> str:
    done = container.run([sys.executable, "-m", "netutil.client", *argv, "-o", "json"])
    assert done.returncode != 0, done.stdout
    return str(json.loads(done.stderr)["error"]["reason"])


def test_containers_in_one_pid_namespace_keep_their_identity(
    shared: tuple[LabContainer, LabContainer, LabContainer],
) -> None:
    one, two, _ = shared
    assert netutil(one, "whoami")["container_name"] == "one"
    assert netutil(two, "whoami")["container_name"] == "two"


def test_a_neighbour_in_one_pid_namespace_is_answered(
    shared: tuple[LabContainer, LabContainer, LabContainer],
) -> None:
    one, two, _ = shared
    assert netutil(one, "env", "--pid", str(two.pid_inside))["envs"]["WHO"] == "two"
    assert netutil(one, "whoami", "--pid", str(two.pid_inside))["container_name"] == "two"


def test_an_environment_under_other_ids_is_refused(
    shared: tuple[LabContainer, LabContainer, LabContainer],
) -> None:
    one, _, user = shared
    assert refusal(one, "env", "--pid", str(user.pid_inside)) == "ENVIRONMENT_NOT_READABLE"


def test_devices_of_a_forbidden_environment_are_never_returned(
    shared: tuple[LabContainer, LabContainer, LabContainer],
) -> None:
    one, _, user = shared
    pid = str(user.pid_inside)
    interfaces = netutil(one, "interfaces", "--pid", pid)
    everything = netutil(one, "all", "--pid", pid)
    for answer in (interfaces, everything["interfaces"]):
        assert answer["allocated_error"]["reason"] == "ENVIRONMENT_NOT_READABLE"
        assert "SECRET" not in json.dumps(answer) and "3b:02.1" not in json.dumps(answer)
    assert everything["environment"] is None
    assert "SECRET" not in json.dumps(everything)


def test_other_facts_of_that_process_are_answered(
    shared: tuple[LabContainer, LabContainer, LabContainer],
) -> None:
    one, _, user = shared
    assert netutil(one, "whoami", "--pid", str(user.pid_inside))["container_name"] == "user"


def test_pid_1_is_each_containers_own_in_separate_namespaces(
    lab: Lab, shared: tuple[LabContainer, LabContainer, LabContainer]
) -> None:
    del shared
    left, right = lab.pods[1].containers
    assert netutil(left, "env", "--pid", "1")["envs"]["WHO"] == "left"
    assert netutil(right, "env", "--pid", "1")["envs"]["WHO"] == "right"


def test_a_host_pid_means_nothing_inside_a_pod(
    lab: Lab, shared: tuple[LabContainer, LabContainer, LabContainer]
) -> None:
    left, right = lab.pods[1].containers
    assert refusal(left, "env", "--pid", str(right.pid)) == "PID_NOT_FOUND"
    assert refusal(left, "cpu", "--pid", str(shared[0].pid)) == "PID_NOT_FOUND"
