"""Each refusal leaves a line with the caller, the method and the reason. No output has a secret."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.security import over_limit_client
from tests.security.disclosure import rejected_client
from tests.support import raw_calls
from tests.support.lab import Lab, LabAgent, LabContainer
from tests.support.lab.agent import free_address
from tests.support.nodes.agent_node import NETWORK_STATUS, ask
from tests.support.nodes.measures import metric_total

pytestmark = pytest.mark.xdist_group("audit")
SECRETS = {
    "environment": "planted-in-the-environment",
    "annotation": "planted-in-an-annotation",
    "broken status": "planted-in-a-broken-status",
    "token": "planted-in-the-token",
    "body": "planted-in-a-pod-list",
}
KEYS = (
    {"time", "level", "logger", "message", "event", "outcome", "stage", "namespace", "pod"}
    | {"pod_uid", "container", "container_id", "pid", "uid", "gid", "method", "reason"}
    | {"why", "read"}
)  # fmt: skip
PER_SECOND = 5


@dataclass
class Node:
    lab: Lab
    hostile: LabContainer
    victim: LabContainer


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with Lab() as lab:
        secret = {"example.com/token": SECRETS["annotation"]}
        broken = '[{"name": "a", "ips": 1, "x": "' + SECRETS["broken status"]
        victim = lab.pod(
            "victim",
            namespace="bank",
            annotations=secret | {NETWORK_STATUS: broken},
        ).container("app", env={"PATH": "/usr/bin:/bin", "PASSWORD": SECRETS["environment"]})
        hostile = lab.pod("hostile", namespace="street", annotations=secret).container("app")
        lab.write_pod_list()
        yield Node(lab, hostile, victim)


def lines(agent: LabAgent, event: str = "error") -> list[dict[str, Any]]:
    entries = (json.loads(line) for line in agent.stderr_text().splitlines())
    return [entry for entry in entries if entry.get("event") == event]


def read_page(agent: LabAgent, path: str) -> str:
    try:
        with urllib.request.urlopen(f"{agent.metrics_url}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()


def operators_view(agent: LabAgent) -> str:
    argv = [sys.executable, "-m", "netutil.client", "node", "pods", "-o", "json"]
    argv += [f"--admin-socket={agent.admin_socket}"]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
    return (done.stdout + done.stderr).decode()


def everything_said(agent: LabAgent) -> str:
    pages = [read_page(agent, path) for path in ("/metrics", "/readyz", "/healthz", "/none")]
    return "\n".join([agent.stderr_text(), *pages, operators_view(agent)])


def refuse_in_every_way(node: Node, agent: LabAgent) -> str:
    """Return the results of callers other than the victim."""
    results = ask(node.hostile, rejected_client.PATH, "all", str(node.victim.pid))
    results.append(ask(node.hostile, over_limit_client.PATH, "connections", "4"))
    for path in (b"/\xff", b"/no.such/Method"):
        node.hostile.run(raw_calls.command("path", path.hex()))
    results.append(
        ask(node.hostile, over_limit_client.PATH, "burst", over_limit_client.GET_POD, "300")
    )
    # The victim is refused its own networks; its answer is in the log as well.
    ask(node.victim, rejected_client.PATH, "all", "x")
    outside = [sys.executable, "-m", "netutil.client", "whoami", "--socket", str(agent.socket)]
    done = subprocess.run(outside, capture_output=True, check=False, timeout=60)
    return f"{results} {done.stdout!r} {done.stderr!r}"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_appears_in_any_refusal_or_failure(log_format: str, node: Node) -> None:
    (node.lab.directory / "token").write_text(SECRETS["token"])
    flags = ["--log-level=debug", f"--log-format={log_format}", "--max-connections-per-pod=3"]
    flags += ["--max-calls-per-second-per-pod=10", "--max-call-burst-per-pod=100"]
    agent = node.lab.agent(*flags)
    received = refuse_in_every_way(node, agent)
    said = everything_said(agent)
    assert "TOO_MANY_CALLS_PER_SECOND" in said and "NETWORK_STATUS_MALFORMED" in said
    assert "PID_OUTSIDE_POD" in received + said or "PID_NOT_FOUND" in received + said
    agent.stop()
    source = node.lab.directory / "broken.yaml"
    source.write_text(f"items: [{{a: *{SECRETS['body']}}}]\n")
    kubelet = [
        f"--kubelet-url=https://{free_address()}",
        f"--kubelet-token={node.lab.directory / 'token'}",
    ]
    for pod_source, more in ((f"file:{source}", []), ("kubelet", kubelet)):
        broken = node.lab.agent(*flags, *more, pod_source=pod_source)
        received += str(ask(node.hostile, rejected_client.PATH, "all", str(node.victim.pid)))
        said += everything_said(broken)
        broken.stop()  # it would take the socket back when another agent's is removed
    assert "POD_LIST_UNAVAILABLE" in received
    for kind, secret in SECRETS.items():
        assert secret not in said, kind
        assert secret not in re.sub(r"annotations \{.*?\}", "", received, flags=re.DOTALL), kind


def test_a_refusal_is_a_line_with_caller_method_and_reason(node: Node) -> None:
    agent = node.lab.agent("--log-format=json")
    ask(node.hostile, rejected_client.PATH, "all", str(node.victim.pid))
    found = [line for line in lines(agent) if line["reason"] == "VARIABLE_NOT_SET"]
    assert found and all(set(line) == KEYS for line in lines(agent))
    line = found[0]
    pod = node.hostile.pod
    assert (line["namespace"], line["pod"], line["container"]) == ("street", "hostile", "app")
    assert line["pod_uid"] == pod.uid.replace("-", "")
    assert line["container_id"] == node.hostile.id
    assert (line["uid"], line["gid"], line["stage"], line["method"]) == (0, 0, "call", "GetEnv")
    assert line["pid"] > 1 and "NOT_SET" in line["why"]
    parts = [line for line in lines(agent) if line["stage"] == "part"]
    assert {line["reason"] for line in parts} >= {"PID_MALFORMED"}, "GetAll hides no probe"
    assert max(len(line["why"]) for line in lines(agent)) <= 300
    agent.stop()


def test_a_process_outside_of_pods_is_named_by_its_pid(node: Node) -> None:
    agent = node.lab.agent("--log-format=json")
    outside = [sys.executable, "-m", "netutil.client", "whoami", "--socket", str(agent.socket)]
    with subprocess.Popen(outside, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        client.communicate(timeout=60)
    (line,) = (
        line for line in lines(agent) if line["pid"] == client.pid and line["stage"] == "connection"
    )
    assert (line["reason"], line["pod"], line["pod_uid"]) == ("NOT_A_POD", "", "")
    assert line["uid"] == 0
    agent.stop()


def test_one_pods_refusals_hide_no_others_and_are_counted(node: Node) -> None:
    agent = node.lab.agent("--log-format=json")
    began = time.monotonic()
    ask(node.hostile, rejected_client.PATH, "flood", "300")
    ask(node.victim, rejected_client.PATH, "flood", "1")
    agent.stop()  # it says what it has not said yet
    seconds = time.monotonic() - began
    own = [line for line in lines(agent) if line["pod"] == "hostile"]
    summaries = [line for line in lines(agent, "errors") if line["pod"] == "hostile"]
    assert len(own) <= PER_SECOND * (seconds + 2)
    assert len(own) + sum(line["count"] for line in summaries) == 300
    assert [line["reason"] for line in lines(agent) if line["pod"] == "victim"] == [
        "VARIABLE_NOT_SET"
    ]


def test_every_refusal_is_counted(node: Node) -> None:
    agent = node.lab.agent("--log-format=json")
    ask(node.hostile, rejected_client.PATH, "flood", "30")
    name = r'netutil_errors_total\{outcome="not_found",reason="VARIABLE_NOT_SET",stage="call"\}'
    assert metric_total(agent, name) == 30
    logged = [line for line in lines(agent) if line["reason"] == "VARIABLE_NOT_SET"]
    assert metric_total(agent, "netutil_audit_suppressed_total") == 30 - len(logged)
    agent.stop()
