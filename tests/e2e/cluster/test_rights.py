"""The agent has the rights of its service account only, and reports a missing right."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.e2e.cluster.kubectl import AGENTS, Cluster
from tests.e2e.cluster.objects import container, pod
from tests.e2e.node import wait_for

_FIX = "kubectl apply -f manifests/nodes-proxy.yaml"
_PROXY = "manifests/nodes-proxy.yaml"


@pytest.fixture(scope="module", autouse=True)
def given_back(cluster: Cluster) -> Iterator[None]:
    """A pod that asks; and the right, whatever the tests do with it."""
    cluster.apply(pod("asking", container("app", cluster.image)))
    cluster.wait("condition=Ready", "pod/asking")
    yield
    cluster.documented(f"kubectl apply -f {_PROXY}")
    cluster.documented("kubectl -n netutil rollout status daemonset/netutil-agent")


def test_the_agent_uses_a_token_and_no_client_certificate(cluster: Cluster) -> None:
    agent = cluster.agent()
    assert agent["spec"]["serviceAccountName"] == "netutil-agent"
    assert not any("client" in word for word in agent["spec"]["containers"][0]["args"])


def test_an_agent_that_lost_the_right_answers_from_the_last_list(
    cluster: Cluster,
) -> None:
    before = cluster.ask("asking", "whoami")
    cluster.documented(f"kubectl delete -f {_PROXY}")

    def refused() -> bool:
        cluster.ask("asking", "whoami")
        return "403" in cluster.logs("daemonset/netutil-agent", namespace=AGENTS)

    wait_for(refused, "a refusal in the agent's log", 30)
    log = cluster.logs("daemonset/netutil-agent", namespace=AGENTS)
    (line,) = [line for line in log.splitlines() if "HTTP status 403" in line]
    assert "system:serviceaccount:netutil:netutil-agent" in line
    assert _FIX in line

    after = cluster.ask("asking", "whoami")
    assert {**after, "observed_at": ""} == {**before, "observed_at": ""}
    age = time.time() - datetime.fromisoformat(after["observed_at"]).timestamp()
    time.sleep(1.5)  # observed_at is to stand still while the clock goes on
    again = cluster.ask("asking", "whoami")
    assert again["observed_at"] == after["observed_at"]
    print(f"answered from a list of {age:.1f} s ago")
    assert _readiness(cluster) == (200, "ok\n")


def _log(cluster: Cluster) -> str:
    """Return the agent's log, "" where its container is not known to have started."""
    return cluster.attempt("logs", "--namespace", AGENTS, "daemonset/netutil-agent").stdout


def test_an_agent_started_without_the_right_says_what_to_apply(
    cluster: Cluster,
) -> None:
    cluster.run("-n", AGENTS, "delete", "pod", "-l", "app.kubernetes.io/name=netutil")
    wait_for(lambda: _readiness(cluster)[0] == 503, "an agent without a list", 60)
    wait_for(lambda: "403" in _readiness(cluster)[1], "the kubelet's refusal in /readyz", 15)

    _, said = _readiness(cluster)
    assert "HTTP status 403" in said
    assert _FIX in said
    # The API server hears later than the probe that the new container runs.
    wait_for(lambda: "no pod list yet" in _log(cluster), "the agent's log", 60)
    assert _FIX in _log(cluster)
    (status,) = cluster.agent()["status"]["containerStatuses"]
    assert status["ready"] is False


def test_the_kernels_facts_are_answered_without_a_list(cluster: Cluster) -> None:
    answer = cluster.ask("asking", "cpu")
    assert answer["effective_cpus"]
    refused = cluster.attempt(
        "exec", "--namespace=netutil-e2e", "asking", "--", "netutil", "whoami", "-o", "json"
    )
    assert refused.returncode == 5  # unavailable: docs/use.md
    assert "POD_LIST_UNAVAILABLE" in refused.stdout + refused.stderr


def test_given_the_right_it_becomes_ready_without_a_restart(cluster: Cluster) -> None:
    before = cluster.agent()
    cluster.documented(f"kubectl apply -f {_PROXY}")
    cluster.documented("kubectl -n netutil rollout status daemonset/netutil-agent")

    after = cluster.agent()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    (status,) = after["status"]["containerStatuses"]
    assert status["restartCount"] == 0
    assert cluster.ask("asking", "whoami")["name"] == "asking"


def _readiness(cluster: Cluster) -> tuple[int, str]:
    """Return the agent's status of /readyz; 0 while there is no agent that answers."""
    try:
        address = cluster.agent()["status"]["podIP"]
        with urllib.request.urlopen(f"http://{address}:9464/readyz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except (KeyError, OSError, ValueError):
        return 0, ""
