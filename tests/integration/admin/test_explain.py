"""`netutil node explain` is true for every kind of process, on one screen."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from netutil.client import InvalidArgument, NodeClient
from netutil.client.cli.render.node_text import explanation
from netutil.client.cli.render.tables import Style
from netutil.client.models.node import Explanation
from netutil.client.rpc import requests

from tests.support.lab import Lab, LabContainer, LabPod
from tests.support.lab.observing import needs_lab
from tests.support.nodes.forged_cgroups import process_in_own_cgroup
from tests.support.processes import process

pytestmark = [pytest.mark.root, needs_lab]

USER = 12345
KTHREADD = 2
SCREEN_LINES, SCREEN_COLUMNS = 50, 100
TREASURE = "correct-horse-battery-staple"
ALL_STEPS = ["pid", "process", "cgroup", "ownership", "pod list", "answer"]
HELD = 2
HOLD = f"""
import socket, sys
held = [socket.socket(socket.AF_UNIX) for _ in range({HELD})]
for one in held: one.connect("/etc/netutil/net.sock")
for one in held: one.recv(1)  # the agent has accepted it
print("held", flush=True)
sys.stdin.read()
"""


@dataclass
class Node:
    lab: Lab
    client: NodeClient
    web: LabPod
    app: LabContainer
    setup: LabContainer
    other: LabContainer

    def explain(self, pid: int) -> Explanation:
        """The explanation; that it fits a screen and holds no secret is seen each time."""
        answer = self.client.call(requests.explanation(pid))
        text = explanation(answer, Style(width=SCREEN_COLUMNS))
        assert len(text.splitlines()) <= SCREEN_LINES, text
        assert all(len(line) <= SCREEN_COLUMNS for line in text.splitlines()), text
        assert TREASURE not in repr(answer)
        assert f"PID {pid} is {'answered' if answer.answered else 'refused'}" in text
        return answer


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Lab() as lab:
        environment = {"KEY": TREASURE}
        web = lab.pod("web", namespace="shop")
        app = web.container("app", env=environment, argv=["sleep", "1000000"])
        web.container("side")
        setup = web.container("setup", kind="init")
        other = lab.pod("other").container("app")
        lab.agent(f"--max-connections-per-pod={HELD}")
        with NodeClient(lab.admin_socket, timeout_seconds=20) as client:
            yield Node(lab, client, web, app, setup, other)


def assert_stops(answer: Explanation, step: str, reason: str, *said: str) -> None:
    """It stops at that step for that reason, those before it passed, and each text is there."""
    last = answer.steps[-1]
    assert not answer.answered
    assert (last.name, last.outcome, last.reason) == (step, "stopped", reason)
    assert {one.outcome for one in answer.steps[:-1]} <= {"ok"}
    step_text = "\n".join((*last.found, last.advice))
    for text in said:
        assert text in step_text


def found(answer: Explanation, step: str) -> str:
    (one,) = (one for one in answer.steps if one.name == step)
    return "\n".join(one.found)


def below_kubepods(container: LabContainer) -> str:
    """The part of a container's path that an agent in a cgroup namespace of its own sees too."""
    return "".join(container.cgroup_path.partition("/kubepods")[1:])


def test_a_process_of_a_container_is_answered(node: Node) -> None:
    answer = node.explain(node.app.pid)
    assert (answer.answered, answer.pod, answer.container) == (True, "shop/web", "app")
    assert [one.name for one in answer.steps] == ALL_STEPS
    assert {one.outcome for one in answer.steps} == {"ok"}
    assert f"pod segment: pod{node.web.uid}" in found(answer, "cgroup")
    assert f"container segment: {node.app.id}" in found(answer, "cgroup")
    assert below_kubepods(node.app) in found(answer, "cgroup")
    assert "root made /sys/fs/cgroup" in found(answer, "ownership")
    assert "'sleep'" in found(answer, "process")
    assert "1000000" not in repr(answer)  # a command line may hold a password


def test_a_process_of_another_pod_is_that_pods(node: Node) -> None:
    answer = node.explain(node.other.pid)
    assert (answer.answered, answer.pod, answer.container) == (True, "default/other", "app")


def test_an_init_container_is_named_as_one(node: Node) -> None:
    answer = node.explain(node.setup.pid)
    assert (answer.answered, answer.container) == (True, "setup")
    assert "init container setup" in found(answer, "pod list")


def test_a_process_in_a_container_has_another_pid_there(node: Node) -> None:
    with node.app.spawn(["sleep", "infinity"]) as inside:
        answer = node.explain(inside.host_pid)
        status = Path(f"/proc/{inside.host_pid}/status").read_text()
        inside.kill()
    (numbers,) = (line.split()[1:] for line in status.splitlines() if line.startswith("NSpid"))
    assert f"PID namespace of its own, where it is {numbers[-1]}" in found(answer, "process")
    assert (answer.answered, answer.container) == (True, "app")


def test_a_host_process_is_no_pod(node: Node) -> None:
    with process() as host:
        answer = node.explain(host.pid)
        host.kill()
        host.wait()
    assert_stops(answer, "cgroup", "NOT_A_POD", "not in a pod's container", "other numbers")
    assert answer.steps[-1].read == f"/proc/{host.pid}/cgroup"


def test_a_kernel_thread_is_called_one(node: Node) -> None:
    answer = node.explain(KTHREADD)
    assert "a kernel thread" in found(answer, "process")
    assert_stops(answer, "cgroup", "NOT_A_POD")


def test_a_dead_process_is_none(node: Node) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    answer = node.explain(ended.pid)
    assert_stops(
        answer, "pid", "PEER_GONE", "no process of this node has that number", "other numbers"
    )


def test_a_zombie_is_called_one_with_its_parent(node: Node) -> None:
    with subprocess.Popen(["true"]) as ended:
        while " Z " not in Path(f"/proc/{ended.pid}/stat").read_text():
            time.sleep(0.01)
        answer = node.explain(ended.pid)
    assert_stops(answer, "pid", "PEER_GONE", "a zombie: 'true'", f"pid {os.getpid()}")
    assert answer.steps[-1].advice == "It asks nothing any more: explain the process that does."


def test_the_error_for_a_thread_names_its_process(node: Node) -> None:
    done, ready = threading.Event(), threading.Event()

    def wait() -> None:
        ready.set()
        done.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        ready.wait()
        assert thread.native_id is not None
        answer = node.explain(thread.native_id)
    finally:
        done.set()
        thread.join()
    assert_stops(answer, "pid", answer.steps[-1].reason, f"it is a thread of process {os.getpid()}")
    assert answer.steps[-1].advice.endswith(f"`netutil node explain {os.getpid()}`.")


def test_a_pod_that_the_list_lacks_is_refused_there(node: Node) -> None:
    unlisted = node.lab.pod("unlisted")
    try:
        container = unlisted.container("app")
        assert_stops(
            node.explain(container.pid),
            "pod list",
            "UNKNOWN_TO_POD_LIST",
            unlisted.uid.replace("-", ""),
        )
    finally:
        unlisted.delete()


def test_the_sandbox_of_a_pod_is_its_pods_without_a_name(node: Node) -> None:
    answer = node.explain(node.web.sandbox_pid)
    assert (answer.answered, answer.pod, answer.container) == (True, "shop/web", "")
    (step,) = (one for one in answer.steps if one.name == "pod list")
    assert (step.outcome, step.reason) == ("degraded", "CONTAINER_NOT_LISTED")
    assert "in none of the containers that the list has" in found(answer, "pod list")
    assert f"app ({node.app.id[:12]}, running)" in found(answer, "pod list")


def test_a_container_that_is_not_reported_yet_is_called_that(node: Node) -> None:
    young = node.lab.pod("young")
    try:
        young.container("app").kill()
        again = young.container("app")
        young.containers.remove(again)
        node.lab.write_pod_list()
        with NodeClient(node.lab.admin_socket, timeout_seconds=2) as hasty:
            answer = hasty.call(requests.explanation(again.pid))
    finally:
        young.delete()
        node.lab.write_pod_list()
    assert (answer.answered, answer.pod, answer.container) == (True, "default/young", "")
    (step,) = (one for one in answer.steps if one.name == "pod list")
    assert (step.outcome, step.reason) == ("degraded", "CONTAINER_NOT_REPORTED")
    assert "not reported yet" in found(answer, "pod list")
    assert "It may be app" in step.advice


def test_a_process_in_the_pods_own_cgroup_is_in_no_container(node: Node) -> None:
    """As a sandbox of gVisor's is on cgroup v1."""
    if (node.app.cgroups[0] / "cgroup.controllers").exists():
        pytest.skip("cgroup v2 lets no process into a cgroup that hands controllers down")
    with node.app.spawn(["sleep", "infinity"]) as outside:
        for directory in node.app.cgroups:
            (directory.parent / "cgroup.procs").write_text(str(outside.host_pid))
        answer = node.explain(outside.host_pid)
        outside.kill()
    assert (answer.answered, answer.pod, answer.container) == (True, "shop/web", "")
    assert "no container segment: it is in the pod's own cgroup" in found(answer, "cgroup")
    (step,) = (one for one in answer.steps if one.name == "pod list")
    assert (step.outcome, step.reason) == ("degraded", "NOT_IN_A_CONTAINER")


def test_a_forged_cgroup_stops_at_its_place(node: Node) -> None:
    with process_in_own_cgroup(USER, f"pod{node.web.uid}", node.app.id) as pid:
        answer = node.explain(pid)
    said = "is not where this node's kubelet keeps its pods"
    assert_stops(answer, "cgroup", "OUTSIDE_KUBELET_CGROUPS", said)
    assert "--cgroup-root" in answer.steps[-1].advice
    assert f"pod{node.web.uid}" in found(answer, "cgroup")


def test_a_pods_cgroup_that_is_not_roots_stops_at_its_owner(node: Node) -> None:
    pod = node.app.cgroups[0].parent
    os.chown(pod, USER, -1)
    try:
        answer = node.explain(node.app.pid)
    finally:
        os.chown(pod, 0, -1)
    assert_stops(answer, "ownership", "CGROUP_NOT_OWNED_BY_ROOT", f"made by uid {USER}")
    assert f"pod segment: pod{node.web.uid}" in found(answer, "cgroup")


def test_cgroups_that_disagree_are_shown_side_by_side(node: Node) -> None:
    if len(node.app.cgroups) < 2:
        pytest.skip("needs two hierarchies (cgroup v1)")
    with node.app.spawn(["sleep", "infinity"]) as torn:
        (node.other.cgroups[1] / "cgroup.procs").write_text(str(torn.host_pid))
        answer = node.explain(torn.host_pid)
        torn.kill()
    paths = below_kubepods(node.app), below_kubepods(node.other)
    assert_stops(answer, "cgroup", "CGROUPS_DISAGREE", *paths)


def test_a_pod_at_its_limit_stops_at_the_last_step(node: Node) -> None:
    holder = node.other.spawn([sys.executable, "-c", HOLD], stdin=subprocess.PIPE)
    assert holder.stdin is not None and holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        answer = node.explain(node.other.pid)
    finally:
        holder.kill()
        holder.communicate()
    assert_stops(answer, "answer", "TOO_MANY_CONNECTIONS_OF_POD", f"holds {HELD} connections")


def test_the_kernels_half_is_answered_without_a_pod_list() -> None:
    with Lab() as lab:
        app = lab.pod("web").container("app")
        lab.agent(pod_source=f"file:{lab.directory}/none.json")
        with NodeClient(lab.admin_socket, timeout_seconds=2) as client:
            answer = client.call(requests.explanation(app.pid))
    assert answer.answered
    (step,) = (one for one in answer.steps if one.name == "pod list")
    assert (step.outcome, step.reason) == ("degraded", "POD_LIST_UNAVAILABLE")
    assert "CPUs and environment are answered" in step.found[0]


def test_a_number_that_no_process_can_have_is_malformed(node: Node) -> None:
    with pytest.raises(InvalidArgument) as refused:
        node.client.call(requests.explanation(2**23))
    assert refused.value.reason == "PID_MALFORMED"
