"""The agent goes on through everything that is done to it and around it, under load."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e import load
from tests.e2e.deploy import agent_pod
from tests.e2e.first_answer import first_answer
from tests.e2e.node import Node, wait_for
from tests.e2e.settings import RESULTS
from tests.e2e.truth import container_of
from tests.e2e.workloads import answer, asking, caller, container, pod
from tests.support.manifests.privileges import hardened_capabilities, mask, profile

PODS = ("load-a", "load-b")
SOCKET = Path("/run/netutil/net.sock")


@pytest.fixture
def loaded(node: Node) -> Iterator[Node]:
    """A node with the default agent, and pods that ask all the time."""
    node.deploy("default")
    try:
        load.start(node, *PODS)
        yield node
    finally:
        node.remove(*PODS)


def assert_no_call_failed() -> None:
    for name in PODS:
        found = load.goes_on(name)
        assert found.wrong == [], f"{found}; the agents said: {load.said()}"
        print(f"{name}: {found.calls} calls, the longest pair {found.longest_seconds:.2f} s")


def test_a_new_agent_beside_the_old_one_costs_no_call(loaded: Node) -> None:
    old, new = "netutil-agent-default", "netutil-agent-default-new"
    for first, second, suffix in ((old, new, "-new"), (new, old, "")):
        inode = SOCKET.stat().st_ino
        loaded.add(agent_pod("default", suffix))
        loaded.running(second)
        assert SOCKET.stat().st_ino != inode
        loaded.remove(first)
        assert_no_call_failed()


def test_the_other_variant_takes_over_without_a_failed_call(loaded: Node) -> None:
    for variant in ("hardened", "default"):
        loaded.deploy(variant)
        assert_no_call_failed()


def test_a_restart_of_the_kubelet_costs_no_call(loaded: Node) -> None:
    loaded.stop_kubelet()
    assert_no_call_failed()
    loaded.start_kubelet()
    loaded.running(*PODS, "netutil-agent-default")
    assert_no_call_failed()


def test_clients_wait_for_a_killed_agent_that_comes_back(loaded: Node) -> None:
    agent = container_of(loaded, "netutil-agent-default", "agent")
    before = restarts(loaded)
    os.kill(agent.pid, signal.SIGKILL)
    wait_for(lambda: container_id(loaded) not in (agent.id, ""), "a new container of the agent", 60)
    assert_no_call_failed()
    assert restarts(loaded) == before + 1


def test_a_rebooted_node_answers_again(node: Node) -> None:
    node.deploy("default")
    node.add(pod("web", container("app", asking("web"))))
    before = node.running("web")["web"]
    node.reboot()
    after = node.running("web", "netutil-agent-default")["web"]
    wait_for((RESULTS / "web").exists, "an answer")
    (old,), (new,) = (one["status"]["containerStatuses"] for one in (before, after))
    assert old["containerID"] != new["containerID"]
    found = answer("web")["pod"]
    assert found["uid"] == after["metadata"]["uid"]
    assert f"containerd://{found['container_id']}" == new["containerID"]
    node.remove("web")


def test_a_restarted_container_has_a_name_while_the_list_is_old(node: Node) -> None:
    """Its first instruction asks; the list names its predecessor for some time."""
    node.deploy("default")
    node.add(pod("restarting", caller("app", result="restarting"), caller("other", result="other")))
    node.running("restarting")
    before = container_of(node, "restarting", "app")
    wait_for((RESULTS / "restarting").exists, "the first answer")
    (RESULTS / "restarting").unlink()
    os.kill(before.pid, signal.SIGKILL)
    wait_for((RESULTS / "restarting").exists, "an answer after the restart", 60)
    after = container_of(node, "restarting", "app")
    assert after.id != before.id
    found = first_answer("restarting")
    assert (found.pod.container_name, found.pod.container_id) == ("app", after.id)
    node.remove("restarting")


def test_a_deleted_pods_connection_is_released(node: Node) -> None:
    node.deploy("default")
    agent = container_of(node, "netutil-agent-default", "agent")

    def held() -> int:
        """Return the number of descriptors of connections: all but those of files in /sys."""
        found = 0
        for entry in os.scandir(f"/proc/{agent.pid}/fd"):
            with suppress(FileNotFoundError):  # closed meanwhile
                found += "/sys/" not in os.readlink(entry.path)
        return found

    before = held()
    for _ in range(20):  # what was asked while it was deployed is let go meanwhile
        time.sleep(0.1)
        before = min(before, held())
    node.add(pod("held", caller("app", result="held")))
    node.running("held")
    wait_for((RESULTS / "held").exists, "an answer")
    assert held() > before
    node.remove("held")
    wait_for(lambda: held() <= before, "closed descriptors")
    assert "held" not in agent.run("netutil", "node", "pods").stdout


def test_the_hardened_agent_has_its_rights_and_profile_only(node: Node) -> None:
    node.deploy("hardened")
    agent = container_of(node, "netutil-agent-hardened", "agent")
    for name in ("CapBnd", "CapPrm", "CapEff"):
        assert int(agent.status(name), 16) == mask(hardened_capabilities())
    assert (agent.status("NoNewPrivs"), agent.status("Seccomp")) == ("1", "2")
    applied = agent.spec["linux"]["seccomp"]
    shipped = profile()
    for name in ("defaultAction", "defaultErrnoRet", "architectures"):
        assert applied[name] == shipped[name]
    assert [rule["names"] for rule in applied["syscalls"]] == [
        rule["names"] for rule in shipped["syscalls"]
    ]
    assert agent.run("netutil", "node", "pods").returncode == 0
    # What the runtime's own profile would let by: a process, and a kind of socket.
    for refused in ("os.fork()", "socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)"):
        done = agent.run("python", "-c", f"import os, socket; {refused}")
        assert done.returncode != 0
        assert "not permitted" in done.stderr or "not implemented" in done.stderr


def restarts(node: Node) -> int:
    (status,) = node.pods()["netutil-agent-default"]["status"]["containerStatuses"]
    found: int = status["restartCount"]
    return found


def container_id(node: Node) -> str:
    (status,) = node.pods()["netutil-agent-default"]["status"]["containerStatuses"]
    found: str = status["containerID"].removeprefix("containerd://")
    return found if "running" in status["state"] else ""
