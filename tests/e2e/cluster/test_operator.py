"""The operator's tools in the agent's pod: by `kubectl exec`, and by the kubectl plugin."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import netutil.client.kubectl_netutil as plugin
import pytest

from tests.e2e.cluster.kubectl import AGENTS, NAMESPACE, Cluster
from tests.e2e.cluster.objects import container, pod

_EXEC = ("exec", "--namespace", AGENTS, "daemonset/netutil-agent", "--")


@pytest.fixture(scope="module", autouse=True)
def asking(cluster: Cluster) -> None:
    """A pod that has asked once."""
    cluster.apply(pod("asking", container("app", cluster.image)))
    cluster.wait("condition=Ready", "pod/asking")
    cluster.ask("asking", "whoami")


def run(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the plugin as kubectl would: its file, with kubectl where $KUBECTL says."""
    return subprocess.run(
        [sys.executable, "-I", Path(plugin.__file__), *words],
        env={**os.environ, "KUBECTL": cluster.kubectl},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def of_node(cluster: Cluster, *words: str) -> dict[str, Any]:
    """The answer of the agent on the node of the pod that asks."""
    node = cluster.get("pod", "asking")["spec"]["nodeName"]
    done = run(cluster, "node", node, *words, "-o", "json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_pods_are_listed_by_kubectl_exec(cluster: Cluster) -> None:
    answer = json.loads(cluster.run(*_EXEC, "netutil", "node", "pods", "-o", "json"))
    assert f"{AGENTS}/netutil-agent" in str(
        [f"{p['namespace']}/{p['name']}" for p in answer["pods"]]
    )
    table = cluster.run(*_EXEC, "netutil", "node", "pods", "--sort", "calls")
    assert table.splitlines()[0] == "PODS"


def test_the_plugin_finds_the_agent_of_a_pod(cluster: Cluster) -> None:
    done = run(cluster, "pod", f"{NAMESPACE}/asking", "-o", "json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    truth = cluster.get("pod", "asking")
    assert answer["pod"]["uid"] == truth["metadata"]["uid"]
    assert answer["node_name"] == truth["spec"]["nodeName"]
    assert answer["pod"]["calls"] >= 1
    (app,) = answer["containers"]
    assert app["cpu"]["cpuset"] and app["pids"]
    assert answer["interfaces"]["interfaces"][0]["name"] == "eth0"


def test_the_plugin_explains_a_pid_of_the_node(cluster: Cluster) -> None:
    done = run(cluster, "--namespace", NAMESPACE, "pod", "asking", "-o", "json")
    pid = json.loads(done.stdout)["containers"][0]["pids"][0]
    answer = of_node(cluster, "explain", str(pid))
    assert (answer["answered"], answer["pod"]) == (True, f"{NAMESPACE}/asking")
    node = cluster.get("pod", "asking")["spec"]["nodeName"]
    refused = run(cluster, "node", node, "explain", "1")
    assert refused.returncode == 1
    assert "NOT_A_POD" in refused.stdout


def test_the_doctor_finds_nothing_that_failed(cluster: Cluster) -> None:
    checks = of_node(cluster, "doctor")["checks"]
    assert [one for one in checks if one["outcome"] == "failed"] == []
    names = {one["name"] for one in checks if one["outcome"] == "ok"}
    assert {"agent", "connect", "hostPID", "cgroups", "capabilities", "pod list"} <= names


def _put_lines(stream: IO[str], lines: queue.Queue[str]) -> None:
    for line in stream:
        lines.put(line)


def test_top_and_trace_show_the_pod_that_asks(cluster: Cluster) -> None:
    found = of_node(cluster, "top", "--once", "--interval", "500ms")
    assert found["max_connections"] == 4096
    node = cluster.get("pod", "asking")["spec"]["nodeName"]
    tracing = subprocess.Popen(
        [
            *(sys.executable, "-I", Path(plugin.__file__)),
            *("node", node, "trace", "-o", "json", "--timeout", "60s"),
        ],
        env={**os.environ, "KUBECTL": cluster.kubectl},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines: queue.Queue[str] = queue.Queue()
    assert tracing.stdout is not None
    reader = threading.Thread(target=_put_lines, args=(tracing.stdout, lines))
    reader.start()
    deadline = time.monotonic() + 60.0
    try:
        while lines.empty():  # until the trace has begun
            assert time.monotonic() < deadline
            cluster.ask("asking", "whoami")
        call = json.loads(lines.get())
    finally:
        tracing.kill()
        tracing.wait()
        reader.join()
        tracing.stdout.close()
    assert (call["method"], call["pod"], call["container"]) == ("GetPod", "asking", "app")
