"""`kubectl netutil`, with a kubectl that writes down how it is called and answers from files."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import netutil.client.kubectl_netutil as plugin
import pytest

FILE = Path(plugin.__file__)
# Answers of `kubectl get`, by kind; `exec` ends with what the container's command would.
_KUBECTL = """#!{python} -IS
import json, os, sys
words = sys.argv[1:]
with open({calls!r}, "a") as calls:
    calls.write(json.dumps(words) + "\\n")
if "exec" in words:
    answer = {directory!r} + "/" + words[words.index("--namespace") + 2] + ".answer"
    if os.path.exists(answer):
        sys.stdout.write(open(answer).read())
        sys.exit(0)
    if words[-2:] == ["-o", "json"] and "pods" in words:
        sys.exit("netutil: no agent [SOCKET_MISSING]")
    print("executed")
    sys.exit(7)
kind = words[words.index("get") + 1]
try:
    sys.stdout.write(open({directory!r} + "/" + kind + ".json").read())
except FileNotFoundError:
    sys.exit('Error from server (NotFound): no such thing')
"""


def agent(name: str, **status: Any) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "True"}
    return {
        "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"phase": "Running", "conditions": [ready], **status},
    }


@dataclass
class Kubectl:
    directory: Path

    def answers(self, kind: str, answer: dict[str, Any]) -> None:
        (self.directory / f"{kind}.json").write_text(json.dumps(answer))

    def agents(self, *agents: dict[str, Any]) -> None:
        self.answers("pods", {"items": agents})

    def calls(self) -> list[list[str]]:
        lines = (self.directory / "calls").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def run(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        path = f"{self.directory}:{os.environ['PATH']}"
        environment = {k: v for k, v in os.environ.items() if k != "KUBECTL"} | {"PATH": path}
        return subprocess.run(
            [sys.executable, "-I", str(FILE), *words],
            **{"stdin": subprocess.DEVNULL, "capture_output": True, **more},
            text=True,
            check=False,
            env=environment,
        )


@pytest.fixture
def kubectl(tmp_path: Path) -> Kubectl:
    program = tmp_path / "kubectl"
    program.write_text(
        _KUBECTL.format(
            python=sys.executable, calls=str(tmp_path / "calls"), directory=str(tmp_path)
        )
    )
    program.chmod(0o755)
    found = Kubectl(tmp_path)
    found.answers(
        "pod",
        {
            "metadata": {"namespace": "shop", "name": "web"},
            "spec": {"nodeName": "worker-3"},
        },
    )
    found.agents(agent("netutil-agent-x"))
    return found


EXEC = ["exec", "--namespace", "netutil", "netutil-agent-x", "--container", "agent", "--"]
FIND = [
    *("get", "pods", "--namespace", "netutil", "--selector"),
    "app.kubernetes.io/name=netutil,app.kubernetes.io/component=agent",
    *("--field-selector", "spec.nodeName=worker-3", "--output", "json"),
]


def test_a_pod_is_asked_about_on_its_own_node(kubectl: Kubectl) -> None:
    done = kubectl.run("pod", "shop/web", "-o", "json")
    assert kubectl.calls() == [
        ["get", "pod", "web", "--namespace", "shop", "--output", "json"],
        FIND,
        [*EXEC, "netutil", "node", "pod", "shop/web", "-o", "json"],
    ]
    assert (done.stdout, done.stderr) == ("executed\n", "")
    assert done.returncode == 7  # that of the command in the container


def test_a_node_is_asked_whatever_netutil_node_can(kubectl: Kubectl) -> None:
    kubectl.run("node", "worker-3", "top", "--once", "--sort", "latency")
    assert kubectl.calls() == [
        FIND,
        [*EXEC, "netutil", "node", "top", "--once", "--sort", "latency"],
    ]


def test_the_help_of_the_commands_is_theirs(kubectl: Kubectl) -> None:
    kubectl.run("node", "worker-3", "--help")
    assert kubectl.calls()[-1] == [*EXEC, "netutil", "node", "--help"]


@pytest.mark.parametrize("command", ["pod", "node", "nodes"])
def test_help_of_the_plugin_needs_no_cluster(kubectl: Kubectl, command: str) -> None:
    done = kubectl.run(command, "--help")
    assert done.stdout.startswith(f"usage: kubectl netutil {command} [-h]")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (kubectl.directory / "calls").exists()


def test_the_cluster_that_is_meant_is_passed_on(kubectl: Kubectl) -> None:
    kubectl.run(
        *("--context", "lab", "--kubeconfig", "/k/config", "-n", "shop"),
        *("--agent-namespace", "infra", "pod", "web"),
    )
    calls = kubectl.calls()
    assert len(calls) == 3
    assert all(call[:2] == ["--context=lab", "--kubeconfig=/k/config"] for call in calls)
    assert calls[0][2:] == ["get", "pod", "web", "--namespace", "shop", "--output", "json"]
    assert "infra" in calls[1] and calls[2][3:5] == ["--namespace", "infra"]
    assert calls[2][-1] == "shop/web"


def test_kubectl_takes_the_contexts_namespace_by_default(kubectl: Kubectl) -> None:
    kubectl.run("pod", "web")
    calls = kubectl.calls()
    assert calls[0] == ["get", "pod", "web", "--output", "json"]
    assert calls[-1][-1] == "shop/web"


def test_the_ready_one_of_two_agents_is_asked_in_an_update(kubectl: Kubectl) -> None:
    leaving = agent("leaving")
    leaving["metadata"] |= {"deletionTimestamp": "x", "creationTimestamp": "2027"}
    starting = agent("starting", conditions=[{"type": "Ready", "status": "False"}])
    starting["metadata"]["creationTimestamp"] = "2026-06"
    kubectl.agents(leaving, starting, agent("netutil-agent-x"), agent("failed", phase="Failed"))
    kubectl.run("node", "worker-3", "pods")
    assert kubectl.calls()[-1][3] == "netutil-agent-x"


def test_a_node_without_an_agent_is_an_error(kubectl: Kubectl) -> None:
    kubectl.agents()
    done = kubectl.run("node", "worker-3", "pods")
    assert done.returncode == 1
    assert "no agent runs on node worker-3 (namespace netutil" in done.stderr
    assert len(kubectl.calls()) == 1


def test_a_pod_without_a_node_is_an_error(kubectl: Kubectl) -> None:
    kubectl.answers("pod", {"metadata": {"namespace": "shop", "name": "web"}, "spec": {}})
    done = kubectl.run("pod", "shop/web")
    assert (done.returncode, done.stderr) == (
        1,
        "kubectl-netutil: pod shop/web is on no node yet\n",
    )


def test_an_error_of_kubectl_is_printed(kubectl: Kubectl) -> None:
    (kubectl.directory / "pod.json").unlink()
    done = kubectl.run("pod", "shop/none")
    assert done.returncode == 1
    assert done.stderr == "kubectl-netutil: Error from server (NotFound): no such thing\n"


def test_a_missing_kubectl_is_reported(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", str(FILE), "node", "a", "pods"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (127, "kubectl-netutil: kubectl is not in the PATH\n")


def test_a_terminal_is_passed_on(kubectl: Kubectl) -> None:
    ours, theirs = pty.openpty()
    try:
        kubectl.run("node", "worker-3", "top", stdin=theirs, stdout=theirs, capture_output=False)
    finally:
        os.close(theirs)
        os.close(ours)
    assert kubectl.calls()[-1][:5] == ["exec", "--namespace", "netutil", "-i", "-t"]


def test_the_file_alone_is_enough(tmp_path: Path, kubectl: Kubectl) -> None:
    copied = tmp_path / "kubectl-netutil"
    shutil.copy(FILE, copied)
    copied.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        [copied, "node", "worker-3", "pods"], env={"PATH": path}, capture_output=True, check=False
    )
    assert done.returncode == 7, done.stderr


def test_it_is_installed_under_the_name_that_kubectl_looks_for() -> None:
    installed = Path(sys.executable).with_name("kubectl-netutil")
    done = subprocess.run([installed, "--help"], capture_output=True, text=True, check=True)
    assert "usage: kubectl netutil" in done.stdout


def test_it_prints_its_versions_without_a_call(kubectl: Kubectl) -> None:
    done = kubectl.run("--version")
    assert done.returncode == 0
    expected = rf"kubectl-netutil {re.escape(version('kube-netutil'))} \(Python 3[0-9.]+\)\n"
    assert re.fullmatch(expected, done.stdout)
    assert not (kubectl.directory / "calls").exists()


def test_a_copy_alone_says_that_its_version_is_unknown() -> None:
    isolated = [sys.executable, "-IS", str(FILE), "--version"]
    done = subprocess.run(isolated, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("kubectl-netutil unknown version: ")


@pytest.mark.parametrize("words", [(), ("pod",), ("node",), ("nothing",)])
def test_a_wrong_command_line_makes_no_call(kubectl: Kubectl, words: tuple[str, ...]) -> None:
    assert kubectl.run(*words).returncode == 2
    assert not (kubectl.directory / "calls").exists()


def on_node(name: str, node: str, **status: Any) -> dict[str, Any]:
    return {**agent(name, **status), "spec": {"nodeName": node}}


def pod(**counts: int) -> dict[str, int]:
    return {"connections": 1, "calls": 2, "refused": 0, "failed": 0, "not_found": 0, **counts}


def test_nodes_prints_a_line_for_each_agent(kubectl: Kubectl) -> None:
    old = on_node("agent-a-old", "worker-1", conditions=[])
    kubectl.agents(on_node("agent-b", "worker-2"), old, on_node("agent-a", "worker-1"))
    first = {"pods": [pod(refused=3), pod(not_found=4)]}
    (kubectl.directory / "agent-a.answer").write_text(json.dumps(first))
    (kubectl.directory / "agent-b.answer").write_text(json.dumps({"pods": []}))
    done = kubectl.run("nodes")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split() for line in done.stdout.splitlines()] == [
        [*("NODE", "AGENT", "PODS", "CONNS", "CALLS", "REFUSED", "FAILED", "NOT", "FOUND")],
        [*("worker-1", "agent-a", "2", "2", "4", "3", "0", "4")],
        [*("worker-2", "agent-b", "0", "0", "0", "0", "0", "0")],
    ]
    assert kubectl.run("nodes", "--no-headers").stdout.splitlines()[0].startswith("worker-1")
    found = json.loads(kubectl.run("nodes", "-o", "json").stdout)["nodes"]
    assert [(one["node"], one["pods"], one["not_found"]) for one in found] == [
        *(("worker-1", 2, 4), ("worker-2", 0, 0)),
    ]


@pytest.mark.parametrize("answer", ["no json", "[]", json.dumps({"pods": [{"calls": "x"}]}), None])
def test_a_node_that_does_not_answer_is_named_beside_the_others(
    kubectl: Kubectl, answer: str | None
) -> None:
    kubectl.agents(on_node("agent-a", "worker-1"), on_node("agent-b", "worker-2"))
    (kubectl.directory / "agent-a.answer").write_text(json.dumps({"pods": [pod()]}))
    if answer is not None:
        (kubectl.directory / "agent-b.answer").write_text(answer)
    done = kubectl.run("nodes", "--no-headers")
    assert done.returncode == 1
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0][:3] == ["worker-1", "agent-a", "1"]
    assert lines[1] == ["worker-2", "agent-b", *["-"] * 6]
    assert done.stderr.startswith("kubectl-netutil: node worker-2: ")


def test_nodes_on_a_full_disk_ends_without_a_traceback(kubectl: Kubectl) -> None:
    kubectl.agents(on_node("agent-a", "worker-1"))
    (kubectl.directory / "agent-a.answer").write_text(json.dumps({"pods": [pod()]}))
    with open("/dev/full", "w") as full:
        done = kubectl.run("nodes", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == "kubectl-netutil: cannot write the output: No space left on device\n"


def test_nodes_without_an_agent_is_a_failure(kubectl: Kubectl) -> None:
    kubectl.agents()
    done = kubectl.run("nodes")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no agent runs" in done.stderr
