"""The agent answers the known facts without a pod list, past a limit, with a broken annotation."""

from __future__ import annotations

import json
import re
import sys
import urllib.error
import urllib.request

import pytest

from tests.support.lab import Lab, LabAgent, LabContainer
from tests.support.nodes.agent_node import NETWORK_STATUS, ask, netutil

pytestmark = pytest.mark.xdist_group("degraded")

MANY_CONNECTIONS = """
import json
from netutil.client import Client, NetUtilError
clients, reasons = [Client() for _ in range(6)], []
for client in clients:
    try:
        reasons.append(client.cpu().cpuset)
    except NetUtilError as error:
        reasons.append(error.reason)
print(json.dumps(reasons))
"""


def error_of(container: LabContainer, *argv: str) -> dict[str, object]:
    command = [sys.executable, "-m", "netutil.client", *argv, "-o", "json", "--timeout", "1"]
    done = container.run(command)
    assert done.returncode != 0, done.stdout
    found: dict[str, object] = json.loads(done.stderr)["error"]
    return found


def get(agent: LabAgent, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{agent.metrics_url}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_kernels_facts_are_answered_without_any_pod_list(lab: Lab) -> None:
    app = lab.pod("web").container("app", env={"WHO": "web"}, cpus="0")
    agent = lab.agent(pod_source=f"file:{lab.directory}/missing.json")
    assert netutil(app, "cpu")["cpuset"] == "0"
    assert netutil(app, "env", "--pid", "1")["envs"]["WHO"] == "web"
    for question in ("whoami", "network"):
        error = error_of(app, question)
        assert (error["code"], error["reason"]) == ("UNAVAILABLE", "POD_LIST_UNAVAILABLE")
    assert get(agent, "/healthz")[0] == 200
    status, text = get(agent, "/readyz")
    assert status == 503
    assert "pod list" in text
    assert str(error["advice"]) in text


def test_a_container_that_the_list_does_not_know_is_refused(lab: Lab) -> None:
    app = lab.pod("web").container("app")
    path = lab.write_pod_list()
    path.write_text('{"kind": "PodList", "apiVersion": "v1", "items": []}')
    lab.agent(pod_source=f"file:{path}")
    error = error_of(app, "cpu")
    assert (error["code"], error["reason"]) == ("PERMISSION_DENIED", "UNKNOWN_TO_POD_LIST")
    assert str(error["message"]).startswith("The file of --pod-source does not know")
    assert str(path) in str(error["read"])


def test_the_last_list_answers_while_the_source_is_broken(lab: Lab) -> None:
    app = lab.pod("web").container("app")
    path = lab.write_pod_list()
    agent = lab.agent("--pod-refresh", "0.1")
    before = netutil(app, "whoami")
    path.write_text('{"kind": "PodList", "items": [')
    after = netutil(app, "whoami")
    assert after["name"] == "web"
    assert after["observed_at"] >= before["observed_at"]
    assert "pod" in agent.stderr_text()
    lab.write_pod_list()
    assert netutil(app, "whoami")["name"] == "web"


def test_a_broken_annotation_is_an_error_that_says_where(lab: Lab) -> None:
    broken = json.dumps([{"name": "a", "ips": "10.0.0.1"}])
    app = lab.pod("web", annotations={NETWORK_STATUS: broken}).container("app")
    lab.write_pod_list()
    lab.agent()
    error = error_of(app, "network")
    assert (error["code"], error["reason"]) == ("FAILED_PRECONDITION", "NETWORK_STATUS_MALFORMED")
    assert "[0].ips must be a list" in str(error["message"])
    assert "default/web" in str(error["read"])
    assert netutil(app, "cpu")["cpuset"]


def test_an_annotation_that_was_cleared_is_none_yet(lab: Lab) -> None:
    """Multus clears it on a pod's teardown."""
    app = lab.pod("web", annotations={NETWORK_STATUS: ""}).container("app")
    lab.write_pod_list()
    lab.agent()
    found = netutil(app, "network")
    assert (found["source"], [one["default"] for one in found["status"]]) == ("pod-status", [True])
    assert "network_error" not in {
        key for key, value in netutil(app, "interfaces").items() if value
    }


def test_one_pods_connections_are_limited_and_the_others_go_on(lab: Lab) -> None:
    greedy = lab.pod("greedy").container("app", cpus="0")
    other = lab.pod("other").container("app")
    lab.write_pod_list()
    agent = lab.agent("--max-connections-per-pod", "4")
    reasons = ask(greedy, "-c", MANY_CONNECTIONS)
    assert reasons == ["0"] * 4 + ["TOO_MANY_CONNECTIONS_OF_POD"] * 2
    assert netutil(other, "whoami")["name"] == "other"
    metrics = get(agent, "/metrics")[1]
    refused = 'code="RESOURCE_EXHAUSTED",method="GetCPUInfo",reason="TOO_MANY_CONNECTIONS_OF_POD"'
    found = re.search(rf"^netutil_calls_total\{{{refused}\}} (.*)$", metrics, re.MULTILINE)
    assert found is not None and float(found[1]) >= 2, "the client asks again until its timeout"


def test_the_agents_own_pod_is_a_pod_like_any_other(lab: Lab) -> None:
    """The agent finds itself: a process in its own container is answered."""
    own = lab.pod("netutil-agent", namespace="netutil-system")
    container = own.container("agent")
    lab.write_pod_list()
    agent = lab.agent()
    for directory in container.cgroups:
        (directory / "cgroup.procs").write_text(str(agent.pid))
    assert netutil(container, "whoami")["name"] == "netutil-agent"
