"""The agent in a cluster, installed by the documented commands and taken away at the end."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import overlay
from tests.e2e.cluster.kubectl import AGENTS, NAMESPACE, Cluster, CommandFailed
from tests.support.manifests.kubectl import find_kubectl

OWN_CLUSTER = bool(os.environ.get("NETUTIL_OWN_CLUSTER"))
# These need a kubelet that forgets at once what rights there were, the node's network, its mounts.
_OF_THIS_MACHINE = ["test_rights.py", "test_registered_node.py", "test_csi.py"]
collect_ignore = [] if OWN_CLUSTER else _OF_THIS_MACHINE
# The other ways end with the uninstallation; the chart then has the cluster for itself.
_LAST = ("test_uninstall.py", "test_helm.py")
_FIRST_WITH_NODES_PODS = 33


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    last = {name: number for number, name in enumerate(_LAST, 1)}
    items.sort(key=lambda item: last.get(item.path.name, 0))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster of KUBECONFIG, with a namespace for the tests' pods."""
    with tempfile.TemporaryDirectory(prefix="netutil-cluster-") as name:
        cluster = Cluster(find_kubectl(), Path(name), os.environ["NETUTIL_IMAGE"])
        _refuse_what_is_not_ours(cluster)
        overlay.write(Path(name), cluster.image, cluster.server_minor())
        labels = {"pod-security.kubernetes.io/enforce": "privileged"}
        metadata = {"name": NAMESPACE, "labels": labels}
        try:
            cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
            yield cluster
        finally:
            _clean(cluster)


@pytest.fixture(scope="session", autouse=True)
def installed(cluster: Cluster) -> None:
    """The agent on every node, ready; this is docs/install.md, "Step by step"."""
    cluster.documented("kubectl apply -k .")
    if cluster.oldest_kubelet_minor() < _FIRST_WITH_NODES_PODS:
        cluster.documented("kubectl apply -f manifests/nodes-proxy.yaml")
    rollout = cluster.attempt(
        "-n", AGENTS, "rollout", "status", "daemonset/netutil-agent", "--timeout=120s", seconds=150
    )
    if rollout.returncode != 0:
        pytest.exit(f"the agent does not become ready: {rollout.stderr}\n{_why(cluster)}", 1)


def _why(cluster: Cluster) -> str:
    """Return the state of an agent that does not become ready."""
    log = cluster.attempt("-n", AGENTS, "logs", "daemonset/netutil-agent", "--tail=20")
    events = cluster.attempt("-n", AGENTS, "get", "events", "--sort-by=.lastTimestamp")
    return f"{log.stdout}{log.stderr}\n{events.stdout}"


def _refuse_what_is_not_ours(cluster: Cluster) -> None:
    found = cluster.attempt("get", "namespace", AGENTS, "--output", "json")
    if found.returncode != 0:
        if "NotFound" not in found.stderr:
            pytest.exit(f"the cluster of KUBECONFIG does not answer: {found.stderr}", 1)
        return
    if overlay.MARK not in json.loads(found.stdout)["metadata"].get("annotations", {}):
        pytest.exit(
            f"the cluster has a namespace {AGENTS} already, which these tests would take away:"
            " uninstall the agent first (docs/install.md), or use another cluster",
            1,
        )


def _clean(cluster: Cluster) -> None:
    """Take everything away, the rest as well if a part of it fails."""
    failures = []
    for command in (
        ("delete", "namespace", NAMESPACE, "--ignore-not-found"),
        ("delete", "-k", ".", "--ignore-not-found"),
        ("delete", "-f", "netutil/manifests/nodes-proxy.yaml", "--ignore-not-found"),
    ):
        try:
            cluster.run(*command, seconds=180.0)
        except (CommandFailed, subprocess.TimeoutExpired) as error:
            failures.append(str(error))
    assert not failures
