"""A caller in a container that the pod list does not name is only its pod's."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from netutil.client import NodeClient
from netutil.client.rpc import requests

from tests.support.fakes.podresources import pod as allocated
from tests.support.lab import Lab, LabContainer, LabPod
from tests.support.lab.observing import needs_lab
from tests.support.lab.processes import inside_pid
from tests.support.nodes.agent_node import NETWORK_STATUS
from tests.support.nodes.client_driver import Call, ConnectedClient, Outcome, asked
from tests.support.nodes.dpdk_node import podresources
from tests.support.nodes.watching import watching

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("unnamed")]

CALLS: tuple[Call, ...] = (
    ("GetPod", {}),
    ("GetResource", {}),
    ("GetCPUInfo", {"topology": True}),
    ("GetEnv", {"key": "WHO"}),
    ("GetNetworkStatus", {}),
    ("GetAll", {}),
)
DEVICE = "0000:3b:02.1"
WAIT_SECONDS = 5.0
"""What a call waits for a list that names its container, as long as one may come."""
TIMEOUT_SECONDS = 60
V1_ONLY = "cgroup v2 lets no process into a cgroup that hands controllers down (cgroup-v2.rst)"


@dataclass
class Node:
    """Pods with an unlisted container; the kubelet allocated devices to the app of each pod."""

    lab: Lab
    one: LabPod
    two: LabPod


def unlisted_container_in(pod: LabPod, name: str = "unlisted") -> LabContainer:
    """A container that was started past the kubelet, as a sandbox is: no list has its ID."""
    made = pod.container(name, env={"WHO": name, "PATH": "/usr/bin:/bin"})
    pod.containers.remove(made)
    return made


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Lab() as lab, podresources(lab.directory / "kubelet.sock") as kubelet:
        networks = json.dumps([{"name": "cbr0", "interface": "eth0", "default": True}])
        one = lab.pod("one", qos="guaranteed", annotations={NETWORK_STATUS: networks})
        one.container("app")
        two = lab.pod("two", qos="guaranteed")
        two.container("app")
        two.container("side")
        kubelet.pods = [allocated(pod.name, pod.namespace, DEVICE) for pod in (one, two)]
        lab.agent(f"--pod-resources={kubelet.path}")
        yield Node(lab, one, two)


@contextmanager
def at_once() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < WAIT_SECONDS


def ask_all(container: LabContainer, before: str = "") -> tuple[Outcome, ...]:
    """The ends of all calls; were one of them to wait for its time, this would fail."""
    asked(container, ("GetEnv", {}))  # Python is read
    with at_once():
        return asked(container, *CALLS, before=before).calls


def assert_pods_without_a_name(
    outcomes: tuple[Outcome, ...], pod: LabPod, container_id: str, reason: str
) -> None:
    """The pod's facts are answered, and those of a container are refused for that reason."""
    identity, resources, cpu, env, network, everything = outcomes
    for found in (identity.answer, everything.answer["pod"]):
        assert (found["namespace"], found["name"], found["uid"]) == (
            pod.namespace,
            pod.name,
            pod.uid,
        )
        assert found.get("container_name", "") == ""
        assert found.get("container_id", "") == container_id
    assert resources.refusal == ("FAILED_PRECONDITION", reason)
    assert cpu.answer["cpuset"]
    assert "exclusive_cpus" not in cpu.answer
    assert cpu.answer["resources_error"]["reason"] == reason
    assert env.answer["envs"]["WHO"]
    assert network.code == "OK"
    parts = {error["part"]: error["reason"] for error in everything.answer["errors"]}
    assert parts == {"resources": reason}
    assert not {"allocated"} & {
        key for one in everything.answer["interfaces"]["interfaces"] for key in one
    }
    for outcome in outcomes:
        assert DEVICE not in repr(outcome)


def in_the_pods_own_cgroup(container: LabContainer) -> str:
    """Python that moves its process from a container's cgroups to those of the pod."""
    files = [str(directory.parent / "cgroup.procs") for directory in container.cgroups]
    return f"for each in {files!r}:\n    open(each, 'w').write('0')"


@pytest.mark.parametrize("name", ["one", "two"])
def test_a_caller_in_an_unnamed_container_gets_no_others_facts(node: Node, name: str) -> None:
    pod = node.one if name == "one" else node.two
    unlisted = unlisted_container_in(pod)
    outcomes = ask_all(unlisted)
    assert_pods_without_a_name(outcomes, pod, unlisted.id, "CONTAINER_NOT_LISTED")
    app = pod.containers[0]
    sentence = f"container {unlisted.id[:12]} of pod default/{name}"
    assert sentence in outcomes[1].sentence
    assert f"app ({app.id[:12]}, running)" in outcomes[1].sentence
    assert asked(app, ("GetResource", {})).calls[0].answer["devices"][0]["ID"] == DEVICE


def test_the_error_names_a_caller_in_the_pods_own_cgroup(node: Node) -> None:
    """As a sandbox of gVisor's is on cgroup v1."""
    app = unlisted_container_in(node.one)
    if (app.cgroups[0] / "cgroup.controllers").exists():
        pytest.skip(V1_ONLY)
    outcomes = ask_all(app, before=in_the_pods_own_cgroup(app))
    assert_pods_without_a_name(outcomes, node.one, "", "NOT_IN_A_CONTAINER")
    assert "in the cgroup of pod default/one itself" in outcomes[1].sentence


OF_A_PROCESS: tuple[tuple[str, ...], ...] = (
    ("devices",),
    ("dpdk",),
    ("cpu", "--topology"),
    ("all",),
)


@pytest.mark.parametrize("words", OF_A_PROCESS, ids=lambda words: words[0])
def test_an_answer_about_another_process_names_that_process(
    node: Node, words: tuple[str, ...]
) -> None:
    pod = node.lab.pod("shared", share_process_namespace=True)
    app = pod.container("app")
    unlisted = unlisted_container_in(pod)
    node.lab.write_pod_list()
    number = str(unlisted.pid_inside)
    command = [sys.executable, "-m", "netutil.client", *words, "--pid", number]
    done = app.run(command, timeout=TIMEOUT_SECONDS)
    output = done.stdout.decode() + done.stderr.decode()
    assert f"Process {number} is in container {unlisted.id[:12]} of pod default/shared" in output
    assert "The calling process" not in output
    if done.returncode:
        assert "Ask about a process in a container of the pod's spec." in output


def test_a_process_in_the_pods_own_cgroup_is_reported_as_such(node: Node) -> None:
    pod = node.lab.pod("own", share_process_namespace=True)
    app = pod.container("app")
    if (app.cgroups[0] / "cgroup.controllers").exists():
        pytest.skip(V1_ONLY)
    code = f"{in_the_pods_own_cgroup(app)}\nprint(flush=True)\nimport time\ntime.sleep(60)"
    moved = app.spawn([sys.executable, "-c", code])
    try:
        assert moved.stdout is not None and moved.stdout.readline()
        node.lab.write_pod_list()
        number = inside_pid(moved.host_pid)
        refused = asked(app, ("GetResource", {"pid": str(number)})).calls[0]
    finally:
        moved.kill()
    assert refused.refusal == ("FAILED_PRECONDITION", "NOT_IN_A_CONTAINER")
    assert f"Process {number} is in the cgroup of pod default/own itself" in refused.sentence


def test_dpdk_gets_no_line_and_does_not_wait_for_its_timeout(node: Node) -> None:
    unlisted = unlisted_container_in(node.one)
    began = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "netutil.client",
        "dpdk",
        f"--timeout={TIMEOUT_SECONDS}",
        "-o",
        "json",
    ]
    done = unlisted.run(command, timeout=90)
    assert time.monotonic() - began < TIMEOUT_SECONDS / 2
    assert (done.returncode, done.stdout) == (1, b"")
    assert json.loads(done.stderr)["error"]["reason"] == "CONTAINER_NOT_LISTED"


def test_a_watcher_in_an_unnamed_container_sees_its_pod_only(node: Node) -> None:
    unlisted = unlisted_container_in(node.two)
    with watching(unlisted) as watcher:
        first = watcher.next()
        node.two.labels["step"] = "2"
        node.lab.write_pod_list()
        news = watcher.next()
    for one in (first, news):
        assert one["snapshot"]["pod"].get("container_name", "") == ""
        assert [error["reason"] for error in one["snapshot"]["errors"]] == ["CONTAINER_NOT_LISTED"]
    assert news["changed"] == ["pod"]


def test_a_restarted_container_has_its_name_once_it_is_listed(node: Node) -> None:
    pod = node.lab.pod("again")
    pod.container("app").kill()
    new = pod.container("app")
    pod.containers.remove(new)
    node.lab.write_pod_list()
    began = time.monotonic()
    waiting = asked(new, ("GetResource", {})).calls[0]
    assert time.monotonic() - began >= WAIT_SECONDS * 0.9
    assert waiting.refusal == ("UNAVAILABLE", "CONTAINER_NOT_REPORTED")
    pod.containers[:] = [new]
    node.lab.write_pod_list()
    named = asked(new, ("GetPod", {})).calls[0]
    assert named.answer["container_name"] == "app"


def test_a_list_with_an_ended_container_decides_on_no_successor(
    node: Node,
) -> None:
    """The kubelet's list is as the API server gave it back: late while that cannot be reached."""
    pod = node.lab.pod("late")
    old = pod.container("app")
    node.lab.write_pod_list()
    old.kill()
    while datetime.now(UTC) < old.started_at + timedelta(seconds=2):
        time.sleep(0.1)
    new = unlisted_container_in(pod, "app")
    refused = asked(new, ("GetResource", {})).calls[0]
    assert refused.refusal == ("UNAVAILABLE", "CONTAINER_NOT_REPORTED")
    pod.containers[:] = [new]
    node.lab.write_pod_list()
    assert asked(new, ("GetPod", {})).calls[0].answer["container_name"] == "app"


def test_an_old_sandbox_is_no_restarted_container(
    node: Node,
) -> None:
    """As gVisor's is with systemd on cgroup v2, which makes no cgroup for a container."""
    pod = node.lab.pod("sandboxed")
    sandbox = unlisted_container_in(pod, "sandbox")
    caller = ConnectedClient.connected(sandbox, ("GetResource", {}))
    app = pod.container("app")
    node.lab.write_pod_list()
    app.kill()
    with at_once():
        refused = caller.ask().calls[0]
    assert refused.refusal == ("FAILED_PRECONDITION", "CONTAINER_NOT_LISTED")


def test_a_pods_only_container_has_a_name_before_its_id(node: Node) -> None:
    pod = node.lab.pod("young")
    app = pod.container("app")
    path = node.lab.directory / "pods.json"
    listed = node.lab.pod_list()
    (entry,) = (one for one in listed["items"] if one["metadata"]["name"] == "young")
    entry["status"]["containerStatuses"] = [{"name": "app", "state": {"waiting": {}}}]
    path.write_text(json.dumps(listed))
    with at_once():
        named = asked(app, ("GetPod", {})).calls[0]
    assert (named.answer["container_name"], named.answer["container_id"]) == ("app", app.id)


def test_an_operator_sees_the_same_for_such_a_process(node: Node) -> None:
    unlisted = unlisted_container_in(node.two)
    node.lab.write_pod_list()
    with at_once(), NodeClient(node.lab.admin_socket, timeout_seconds=20) as client:
        answer = client.call(requests.explanation(unlisted.pid))
    assert (answer.answered, answer.pod, answer.container) == (True, "default/two", "")
    (step,) = (one for one in answer.steps if one.name == "pod list")
    assert (step.outcome, step.reason) == ("degraded", "CONTAINER_NOT_LISTED")
    text = "\n".join(step.found)
    assert "in none of the containers that the list has" in text
    assert f"Process {unlisted.pid} is in container {unlisted.id[:12]}" in text
    for container in node.two.containers:
        assert f"{container.name} ({container.id[:12]}, running)" in text
