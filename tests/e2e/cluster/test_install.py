"""docs/install.md, run unchanged."""

from __future__ import annotations

import os

import pytest

from tests.e2e.cluster.kubectl import AGENTS, Cluster


def test_every_node_has_an_agent_that_is_ready(cluster: Cluster) -> None:
    cluster.documented("kubectl -n netutil rollout status daemonset/netutil-agent")
    status = cluster.get("daemonset", "netutil-agent", AGENTS)["status"]
    assert status["numberReady"] == status["desiredNumberScheduled"] > 0


def test_the_daemon_sets_controller_made_the_agents_pod(cluster: Cluster) -> None:
    (owner,) = cluster.agent()["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("DaemonSet", "netutil-agent")


@pytest.mark.skipif(
    not os.environ.get("NETUTIL_OWN_CLUSTER"), reason="the component is only on the tests' cluster"
)
def test_the_selinux_container_ends_well_without_selinux(cluster: Cluster) -> None:
    (status,) = cluster.agent()["status"]["initContainerStatuses"]
    assert (status["name"], status["state"]["terminated"]["exitCode"]) == ("selinux-label", 0)


def test_its_log_says_that_it_serves(cluster: Cluster) -> None:
    log = cluster.documented("kubectl -n netutil logs daemonset/netutil-agent")
    assert "serving on /run/netutil/net.sock" in log
    assert "Traceback" not in log


def test_the_service_account_may_read_pod_lists_and_no_secrets(cluster: Cluster) -> None:
    account = "--as=system:serviceaccount:netutil:netutil-agent"
    said = cluster.documented(f"kubectl auth can-i get nodes --subresource=pods {account}")
    assert said == "yes\n"
    refused = cluster.attempt("auth", "can-i", "list", "secrets", "--all-namespaces", account)
    assert (refused.returncode, refused.stdout) == (1, "no\n")


def test_the_example_pod_prints_its_facts_but_no_environment(cluster: Cluster) -> None:
    try:
        cluster.documented("kubectl apply -f manifests/examples/pod.yaml")
        cluster.documented(
            "kubectl wait --for=jsonpath='{.status.phase}'=Succeeded pod/netutil-example"
        )
        printed = cluster.documented("kubectl logs netutil-example")
        for word in ("effective_cpus", "NETWORK STATUS", "observed at"):
            assert word in printed
        assert "HOSTNAME" not in printed
    finally:
        cluster.documented("kubectl delete -f manifests/examples/pod.yaml")


def test_the_operator_sees_every_pod_of_the_node(cluster: Cluster) -> None:
    shown = cluster.documented(
        "kubectl -n netutil exec daemonset/netutil-agent -- netutil node pods"
    )
    assert cluster.agent()["metadata"]["name"] in shown
