"""Two pods on one socket, real processes in real namespaces: each gets its own facts only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.nodes.agent_node import Node, ask, hostile_environment, netutil

HERE = Path(__file__).parent
pytestmark = pytest.mark.xdist_group("service")


def test_each_pod_sees_only_its_own_facts(node: Node) -> None:
    feed = netutil(node.feed_app, "whoami")
    upf = netutil(node.upf_app, "whoami")
    assert (feed["namespace"], feed["name"], feed["container_name"]) == (
        "trading",
        "feed-handler",
        "app",
    )
    assert feed["container_id"] == node.feed_app.id
    assert (upf["namespace"], upf["name"], upf["uid"]) == ("telco", "upf", node.upf.uid)
    assert netutil(node.feed_app, "cpu")["cpuset"] == "0"
    assert netutil(node.feed_app, "env", "--pid", "1")["envs"]["WHO"] == "feed"
    assert netutil(node.upf_app, "env", "--pid", "1")["envs"]["WHO"] == "upf"


def test_the_sidecars_own_client_works_with_its_namespaced_pid(node: Node) -> None:
    answer = ask(
        node.feed_app,
        str(HERE / "sidecar_client.py"),
        "/etc/netutil/net.sock",
        env={"WHO": "raw", "PATH": os.environ["PATH"]},
    )
    assert 1 < int(answer["pid"]) < 1000  # a small number: that of the pod's own namespace
    assert answer["cpuset"] == "0"
    assert answer["envs"]["WHO"] == "raw"
    assert answer["one"] == {"WHO": "raw"}
    assert answer["status"] == [
        ["cbr0", "eth0", "", ["10.1.0.5"]],
        ["trading/fast", "net1", "02:00:00:00:00:05", ["192.168.7.5"]],
    ]


def test_a_hostile_environment_comes_back_as_the_rules_say(node: Node) -> None:
    answer = netutil(node.feed_app, "env", "--pid", "1")
    envs = answer["envs"]
    assert envs["SIGNS"] == "a=b==c="
    assert envs["LINES"] == "one\ntwo\n"
    assert envs["EMPTY"] == ""
    assert envs["BAD"] == "\ufffd\ufffd"
    assert envs["BIG"] == "x" * 100 * 1024
    assert len(envs) == len(hostile_environment()) - 1
    assert answer["replaced_entries"] == 1
    assert answer["skipped_entries"] == 1


def test_a_host_process_is_refused_with_a_sentence(node: Node) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "netutil.client",
            "cpu",
            "--socket",
            node.agent.socket,
            "-o",
            "json",
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 4
    error = json.loads(done.stderr)["error"]
    assert (error["code"], error["reason"]) == ("PERMISSION_DENIED", "NOT_A_POD")
    assert "not in a pod's container" in error["message"]


@pytest.mark.parametrize(
    ("pid", "status"),
    [("999999", "PID_NOT_FOUND"), *((pid, "PID_MALFORMED") for pid in ("x", "None", "0", "-1"))],
)
def test_a_pid_that_names_nothing_is_refused(node: Node, pid: str, status: str) -> None:
    done = node.feed_app.run(
        [sys.executable, "-m", "netutil.client", "cpu", f"--pid={pid}", "-o", "json"]
    )
    assert done.returncode in (2, 3)
    assert status in done.stderr.decode() or "pid" in done.stderr.decode()


def test_a_variable_or_interface_that_is_not_there_is_not_found(node: Node) -> None:
    for argv, reason in (
        (("env", "NOT_SET"), "VARIABLE_NOT_SET"),
        (("network", "net9"), "INTERFACE_NOT_FOUND"),
    ):
        done = node.feed_app.run([sys.executable, "-m", "netutil.client", *argv, "-o", "json"])
        assert done.returncode == 3
        assert json.loads(done.stderr)["error"]["reason"] == reason


def test_one_interface_can_be_asked_for(node: Node) -> None:
    (only,) = netutil(node.feed_app, "network", "net1")["status"]
    assert only["name"] == "trading/fast"


def test_threads_and_exec_processes_have_the_containers_identity(node: Node) -> None:
    script = (
        "import json, threading\n"
        "from netutil.client import Client\n"
        "found = []\n"
        "def ask():\n"
        "    with Client() as client: found.append(client.pod().name)\n"
        "t = threading.Thread(target=ask); t.start(); t.join()\n"
        "print(json.dumps(found))\n"
    )
    assert ask(node.upf_app, "-c", script) == ["upf"]


def test_an_orphans_inherited_connection_gives_no_environment(node: Node) -> None:
    assert ask(node.upf_app, str(HERE / "orphan_client.py"), "/etc/netutil/net.sock") == {
        "cpuset": "0-1",
        "has_affinity": False,
        "pod": "upf",
        "env": "UNAUTHENTICATED",
    }


def test_a_process_that_ends_before_it_is_seen_is_refused(node: Node) -> None:
    os.kill(node.agent.pid, signal.SIGSTOP)
    try:
        script = [sys.executable, str(HERE / "orphan_client.py"), "/etc/netutil/net.sock", "unseen"]
        client = node.upf_app.spawn(script, stdin=subprocess.PIPE)
        assert client.stderr is not None
        assert client.stderr.readline() == b"exited\n"
    finally:
        os.kill(node.agent.pid, signal.SIGCONT)
    output, _ = client.communicate(timeout=60)
    answer = json.loads(output)
    assert answer["refused"] == "UNAUTHENTICATED"
    assert "has ended" in answer["message"]


def test_operators_see_every_pod(node: Node) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "netutil.client", "node", "pods", "-o", "json"],
        env={**os.environ, "NETUTIL_ADMIN_SOCKET": str(node.agent.admin_socket)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pods = {f"{pod['namespace']}/{pod['name']}": pod for pod in json.loads(done.stdout)["pods"]}
    assert set(pods) == {"telco/upf", "trading/feed-handler"}
    assert pods["trading/feed-handler"]["containers"][0]["effective_cpus"] == "0"
    assert pods["trading/feed-handler"]["networks"] == ["eth0", "net1"]
