"""The agent follows its node's pods at the API server, with the token of its service account."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import overlay
from tests.e2e.cluster.kubectl import AGENTS, Cluster
from tests.e2e.cluster.objects import container, pod
from tests.e2e.node import wait_for

_VARIANT = "at-the-api-server"
_COMPONENTS = ("apiserver", "resource-claims")
_ROLLOUT = ("-n", AGENTS, "rollout", "status", "daemonset/netutil-agent", "--timeout=120s")
_BINDING = "netutil-agent-pods"
_ACCOUNT = f"--as=system:serviceaccount:{AGENTS}:netutil-agent"


@pytest.fixture(scope="module", autouse=True)
def at_the_api_server(cluster: Cluster) -> Iterator[None]:
    """An agent installed with the components; afterwards the one of the other tests."""
    minor = cluster.server_minor()
    overlay.write_variant(cluster.directory, _VARIANT, cluster.image, minor, *_COMPONENTS)
    # A component removes the right to read the kubelet. kubectl apply removes no object.
    cluster.run("delete", "clusterrole,clusterrolebinding", "netutil-agent", "--ignore-not-found")
    cluster.run("delete", "-f", "netutil/manifests/nodes-proxy.yaml", "--ignore-not-found")
    cluster.run("apply", "-k", _VARIANT)
    cluster.run(*_ROLLOUT, seconds=150.0)
    cluster.apply(pod("asking", container("app", cluster.image)))
    cluster.wait("condition=Ready", "pod/asking")
    try:
        yield
    finally:
        cluster.run("delete", "-k", _VARIANT, "--ignore-not-found", seconds=180.0)
        cluster.documented("kubectl apply -k .")
        cluster.documented("kubectl apply -f manifests/nodes-proxy.yaml")
        cluster.run(*_ROLLOUT, seconds=150.0)


def log(cluster: Cluster) -> str:
    return cluster.logs("daemonset/netutil-agent", namespace=AGENTS)


def test_its_service_account_may_read_pods_and_no_node(cluster: Cluster) -> None:
    for verb in ("list", "watch"):
        allowed = cluster.attempt("auth", "can-i", verb, "pods", "--all-namespaces", _ACCOUNT)
        assert allowed.stdout == "yes\n"
    refused = cluster.attempt("auth", "can-i", "get", "nodes", "--subresource=pods", _ACCOUNT)
    assert refused.stdout == "no\n"


def test_a_pod_gets_what_the_api_server_has(cluster: Cluster) -> None:
    answer, truth = cluster.ask("asking", "whoami"), cluster.get("pod", "asking")
    assert answer["uid"] == truth["metadata"]["uid"]
    assert answer["qos_class"] == truth["status"]["qosClass"]
    assert answer["node_name"] == truth["spec"]["nodeName"]
    assert answer["container_name"] == "app"
    assert "pods from apiserver" in log(cluster)


def test_a_change_reaches_the_agent_without_a_new_list(cluster: Cluster) -> None:
    def labels() -> dict[str, str]:
        found: dict[str, str] = cluster.ask("asking", "whoami")["labels"]
        return found

    cluster.run("label", "--namespace=netutil-e2e", "pod/asking", "tier=edge")
    wait_for(lambda: labels().get("tier") == "edge", "the label", 5)


def test_a_server_without_claims_costs_no_other_answer(cluster: Cluster) -> None:
    """The cluster's API server is older than resource.k8s.io/v1."""
    shown = json.loads(
        cluster.run(
            *("exec", "--namespace", AGENTS, "daemonset/netutil-agent", "--"),
            *("netutil", "node", "doctor", "-o", "json"),
        )
    )
    checks = {one["name"]: one for one in shown["checks"]}
    claims = checks["ResourceClaims at the API server"]
    assert (claims["outcome"], "HTTP status 404" in claims["found"]) == ("warning", True)
    assert "does not serve resource.k8s.io" in claims["remedy"]
    assert not [one for one in checks.values() if one["outcome"] == "failed"]
    assert cluster.ask("asking", "cpu")["effective_cpus"]


def test_an_agent_that_lost_the_right_says_so_and_gets_it_back(cluster: Cluster) -> None:
    binding = cluster.run("get", "clusterrolebinding", _BINDING, "--output", "json")
    cluster.run("delete", "clusterrolebinding", _BINDING)
    try:
        cluster.run("-n", AGENTS, "delete", "pod", "-l", "app.kubernetes.io/component=agent")

        def said() -> str:
            return cluster.attempt("logs", "-n", AGENTS, "daemonset/netutil-agent").stdout

        wait_for(lambda: "403" in said(), "the refusal in the agent's log", 60)
        assert f"system:serviceaccount:{AGENTS}:netutil-agent" in said()
    finally:
        made = json.loads(binding)
        for field in ("resourceVersion", "uid", "creationTimestamp", "managedFields"):
            made["metadata"].pop(field, None)
        cluster.apply(made)
    cluster.run(*_ROLLOUT, seconds=150.0)
    assert cluster.ask("asking", "whoami")["name"] == "asking"
