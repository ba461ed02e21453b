"""Pods that the API server made get the answers that the API server would give."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.cluster.kubectl import Cluster
from tests.e2e.cluster.objects import (
    container,
    deployment,
    job,
    pod,
    service_account,
    template,
)

REFRESH_SECONDS = 10.0  # --pod-refresh
# What a kubelet adds to its own copy of a pod.
KUBELETS_OWN = {"kubernetes.io/config.seen", "kubernetes.io/config.source"}
_WHOAMI = "netutil whoami --output json"
# The kubelet reports a container some time after its first instruction: until then its pod is
# known and its name, one of several, is not.
_WHOAMI_ONCE_REPORTED = (
    "until netutil whoami --output json >/tmp/answer"
    ' && grep -q \'"container_name": "[^"]\' /tmp/answer; do sleep 0.2; done; cat /tmp/answer'
)
_QUALITY = {
    "guaranteed": {"limits": {"cpu": "500m", "memory": "64Mi"}},
    "burstable": {"requests": {"cpu": "10m"}},
    "besteffort": {},
}


@pytest.fixture(scope="module", autouse=True)
def workloads(cluster: Cluster) -> None:
    """All pods of these tests, made at once."""

    def asks(name: str = "app", script: str = "", **more: Any) -> dict[str, Any]:
        then = f"{script}\n" if script else ""
        return container(name, cluster.image, f"{then}exec sleep infinity", **more)

    # The first process of a container is sent no signal that it does not handle.
    restarted = f"trap 'exit 1' TERM\n{_WHOAMI}\nsleep infinity & wait"
    cluster.apply(
        service_account("reader"),
        deployment("web", template("web", asks())),
        job("once", template("once", container("app", cluster.image, _WHOAMI))),
        *(pod(name, asks(resources=resources)) for name, resources in _QUALITY.items()),
        pod("with-account", asks(), serviceAccountName="reader"),
        pod("on-the-host", asks(), hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"),
        pod("pair", asks("first"), asks("second")),
        pod(
            "starting",
            asks(),
            initContainers=[
                container(name, cluster.image, _WHOAMI_ONCE_REPORTED)
                for name in ("prepare", "migrate")
            ],
        ),
        pod("restarting", container("app", cluster.image, restarted)),
        pod("changing", asks()),
    )
    cluster.wait("condition=Available", "deployment/web")
    running = ("with-account", "on-the-host", "pair", "starting", "restarting", "changing")
    for name in (*_QUALITY, *running):
        cluster.wait("condition=Ready", f"pod/{name}")


def assert_is(answer: dict[str, Any], pod: dict[str, Any], container: str) -> None:
    """The answer says what the API server says of the pod and of that container."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod["status"]
    assert answer["namespace"] == metadata["namespace"]
    assert answer["name"] == metadata["name"]
    assert answer["uid"] == metadata["uid"]
    assert answer["container_name"] == container
    assert answer["container_id"] in {
        one["containerID"].rpartition("/")[2]
        for one in (*status["containerStatuses"], *status.get("initContainerStatuses", ()))
        if one["name"] == container
    }
    assert answer["node_name"] == spec["nodeName"]
    assert answer["service_account"] == spec["serviceAccountName"]
    assert answer["qos_class"] == status["qosClass"]
    assert answer["host_network"] == spec.get("hostNetwork", False)
    assert answer["labels"] == metadata.get("labels", {})
    annotations = {k: v for k, v in answer["annotations"].items() if k not in KUBELETS_OWN}
    assert annotations == metadata.get("annotations", {})


def test_a_deployments_pod(cluster: Cluster) -> None:
    (web,) = cluster.select("app=web")
    answer = cluster.ask("deployment/web", "whoami")
    assert_is(answer, web, "app")
    assert answer["ips"] == [one["ip"] for one in web["status"]["podIPs"]]
    assert answer["phase"] == "Running"
    assert len(answer["uid"]) == 36 and answer["uid"].count("-") == 4


def test_a_jobs_pod_is_answered_in_its_short_life(cluster: Cluster) -> None:
    cluster.wait("condition=Complete", "job/once")
    (once,) = cluster.select("app=once")
    assert_is(json.loads(cluster.logs("job/once")), once, "app")


@pytest.mark.parametrize(
    ("name", "quality"),
    [("guaranteed", "Guaranteed"), ("burstable", "Burstable"), ("besteffort", "BestEffort")],
)
def test_a_pod_of_each_quality_of_service(cluster: Cluster, name: str, quality: str) -> None:
    answer = cluster.ask(name, "whoami")
    assert_is(answer, cluster.get("pod", name), "app")
    assert answer["qos_class"] == quality


def test_the_cpu_limit_of_a_guaranteed_pod(cluster: Cluster) -> None:
    assert cluster.ask("guaranteed", "cpu")["quota_cores"] == pytest.approx(0.5)
    assert cluster.ask("besteffort", "cpu")["quota_cores"] is None


def test_a_pod_with_an_account_of_its_own(cluster: Cluster) -> None:
    answer = cluster.ask("with-account", "whoami")
    assert_is(answer, cluster.get("pod", "with-account"), "app")
    assert answer["service_account"] == "reader"


def test_a_pod_on_the_hosts_network_has_the_nodes_address(cluster: Cluster) -> None:
    pod = cluster.get("pod", "on-the-host")
    answer = cluster.ask("on-the-host", "whoami")
    assert_is(answer, pod, "app")
    assert answer["host_network"] is True
    assert answer["ips"] == [one["ip"] for one in pod["status"]["podIPs"]]
    assert pod["status"]["hostIP"] in answer["ips"]


def test_two_containers_of_a_pod_are_distinguished(cluster: Cluster) -> None:
    pod = cluster.get("pod", "pair")
    for name in ("first", "second"):
        assert_is(cluster.ask("pair", "whoami", container=name), pod, name)


def test_init_containers_are_answered_while_they_run(cluster: Cluster) -> None:
    pod = cluster.get("pod", "starting")
    for name in ("prepare", "migrate"):
        assert_is(json.loads(cluster.logs("starting", "--container", name)), pod, name)


def test_the_new_container_after_a_restart(cluster: Cluster) -> None:
    before = _logged(cluster, "restarting")
    # The container's end ends this command too, at times before it can say how it ended.
    cluster.attempt("exec", "--namespace=netutil-e2e", "restarting", "--", "sh", "-c", "kill 1")
    cluster.wait("jsonpath={.status.containerStatuses[0].restartCount}=1", "pod/restarting")
    cluster.wait("condition=Ready", "pod/restarting")
    again = _logged(cluster, "restarting")
    pod = cluster.get("pod", "restarting")
    assert_is(again, pod, "app")
    assert again["container_id"] != before["container_id"]
    assert again["uid"] == before["uid"]


def test_a_changed_annotation_arrives_within_the_refresh(cluster: Cluster) -> None:
    cluster.ask("changing", "whoami")
    cluster.run("annotate", "--namespace=netutil-e2e", "pod/changing", "example.com/colour=green")
    cluster.run("label", "--namespace=netutil-e2e", "pod/changing", "tier=front")
    start = time.monotonic()
    answer = _eventually(
        lambda: cluster.ask("changing", "whoami"),
        lambda answer: "example.com/colour" in answer["annotations"] and "tier" in answer["labels"],
        REFRESH_SECONDS + 5.0,  # the kubelet hears of it within a second; kubectl's own time
    )
    print(f"a changed annotation came after {time.monotonic() - start:.1f} s")
    assert_is(answer, cluster.get("pod", "changing"), "app")
    assert answer["annotations"]["example.com/colour"] == "green"


def test_everything_at_once_has_no_part_missing(cluster: Cluster) -> None:
    (web,) = cluster.select("app=web")
    answer = cluster.ask("deployment/web", "all")
    assert answer["errors"] == []
    assert_is(answer["pod"], web, "app")
    assert answer["environment"]["envs"]["HOSTNAME"] == web["metadata"]["name"]


def test_the_network_is_the_pods_own_without_multus(cluster: Cluster) -> None:
    (web,) = cluster.select("app=web")
    (network,) = cluster.ask("deployment/web", "network")["status"]
    assert network["ips"] == [one["ip"] for one in web["status"]["podIPs"]]


def test_the_client_reports_a_missing_mount(cluster: Cluster) -> None:
    cluster.run(
        *("run", "unmounted", "--namespace=netutil-e2e", f"--image={cluster.image}"),
        *("--restart=Never", "--command", "--", "netutil", "whoami", "--output", "json"),
    )
    cluster.wait("jsonpath={.status.phase}=Failed", "pod/unmounted")
    assert "SOCKET_DIRECTORY_MISSING" in cluster.logs("unmounted")


def _logged(cluster: Cluster, pod: str) -> dict[str, Any]:
    """Return the first answer that a container printed."""
    deadline = time.monotonic() + 60.0
    while not (text := cluster.logs(pod)).endswith("}\n"):
        assert time.monotonic() < deadline, text
    answer: dict[str, Any] = json.loads(text)
    return answer


def _eventually(
    ask: Callable[[], dict[str, Any]], right: Callable[[dict[str, Any]], bool], seconds: float
) -> dict[str, Any]:
    """Ask until the answer is right. kubectl takes a good part of a second each time."""
    deadline = time.monotonic() + seconds
    while not right(answer := ask()):
        assert time.monotonic() < deadline, answer
    return answer
