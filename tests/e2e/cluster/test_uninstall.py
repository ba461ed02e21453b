"""docs/install.md, "Uninstall", the last of these tests."""

from __future__ import annotations

import pytest

from tests.e2e.cluster.kubectl import Cluster, CommandFailed
from tests.e2e.cluster.objects import container, pod


def test_a_pod_that_stays_finds_no_socket(cluster: Cluster) -> None:
    cluster.apply(pod("staying", container("app", cluster.image)))
    cluster.wait("condition=Ready", "pod/staying")
    cluster.ask("staying", "whoami")

    cluster.documented("kubectl delete -f manifests/daemonset.yaml")
    cluster.documented("kubectl delete -f manifests/nodes-proxy.yaml --ignore-not-found")

    with pytest.raises(CommandFailed, match="SOCKET_MISSING"):
        cluster.ask("staying", "whoami", "--timeout", "1")


def test_the_cluster_has_no_object_left(cluster: Cluster) -> None:
    kinds = "namespaces,clusterroles,clusterrolebindings"
    found = cluster.run("get", kinds, "-l", "app.kubernetes.io/name=netutil", "--output", "name")
    assert found == ""
