"""A real agent reports what a pod requests, what was granted, and what is unknown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from netutil.agent.parsers.userspace_cni import CONFIGURATION_DATA
from netutil.client import NodeClient
from netutil.client.models.node import DescribedPod
from netutil.client.rpc import requests

from tests.support.fakes.podresources import pod as allocated
from tests.support.lab import Lab, LabContainer
from tests.support.lab.observing import needs_lab
from tests.support.nodes.agent_node import NETWORK_STATUS, netutil
from tests.support.nodes.dpdk_node import podresources

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("service")]

MEBIBYTE = 2**20
ONE = {"cpu": "1", "memory": "1Gi"}
MORE = {**ONE, "cpu": "1500m"}
TOGETHER = {"cpu": "4", "memory": "2Gi", "hugepages-2Mi": "64Mi"}
NONE: dict[str, Any] = {
    f"{whose}{name}_cores": None for whose in ("", "granted_") for name in ("request", "limit")
}


@dataclass
class Node:
    lab: Lab
    app: LabContainer

    def describe(self, name: str = "web") -> DescribedPod:
        with NodeClient(self.lab.admin_socket, timeout_seconds=20) as client:
            return client.call(requests.described_pod("shop", name))

    def check(self) -> Any:
        with NodeClient(self.lab.admin_socket, timeout_seconds=20) as client:
            found = client.call(requests.diagnosis())
        (check,) = (one for one in found.checks if one.name == "pod fields")
        return check


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[[Any], None]], Node]]:
    """A node whose pod list has its pod as `change` leaves it; the kubelet gave it CPUs 2 and 3."""
    with Lab() as lab, podresources(lab.directory / "kubelet.sock") as kubelet:
        kubelet.pods = [allocated("web", namespace="shop")]
        app = lab.pod("web", namespace="shop", qos="guaranteed").container("app", cpus="0")

        def made(change: Callable[[Any], None]) -> Node:
            whole = lab.pod_list()
            change(whole["items"][0])
            path = lab.directory / "changed.json"
            path.write_text(json.dumps(whole), encoding="utf-8")
            lab.agent(f"--pod-resources={kubelet.path}", pod_source=f"file:{path}")
            return Node(lab, app)

        yield made


def test_a_container_that_was_resized_keeps_its_exclusive_cpus(make: Any) -> None:
    def resize(item: Any) -> None:
        item["spec"]["containers"][0]["resources"] = {"requests": MORE, "limits": MORE}
        item["status"]["containerStatuses"][0] |= {
            "allocatedResources": ONE,
            "resources": {"requests": ONE, "limits": ONE},
        }

    node = make(resize)
    found = netutil(node.app, "cpu", "--topology")
    assert found["exclusive_cpus"] == "2-3"
    assert found["container_amounts"] == {
        "request_cores": 1.5,
        "limit_cores": 1.5,
        "granted_request_cores": 1.0,
        "granted_limit_cores": 1.0,
    }
    assert (found["pod_amounts"], found["spec_error"]) == (None, None)
    assert netutil(node.app, "devices")["exclusive_cpus"] == "2-3"


def test_resources_of_a_whole_pod_are_returned(make: Any) -> None:
    def ask(item: Any) -> None:
        item["spec"]["resources"] = {"limits": TOGETHER}
        item["status"] |= {"allocatedResources": {"cpu": "3"}, "resources": {"limits": TOGETHER}}

    node = make(ask)
    found = netutil(node.app, "hugepages")
    assert found["containers"] == []
    assert found["pod"] == [
        {
            "page_size_bytes": 2 * MEBIBYTE,
            "request_bytes": 64 * MEBIBYTE,
            "limit_bytes": 64 * MEBIBYTE,
            "granted_request_bytes": None,
            "granted_limit_bytes": 64 * MEBIBYTE,
        }
    ]
    cpu = netutil(node.app, "cpu")
    assert cpu["container_amounts"] is None
    assert cpu["pod_amounts"] == NONE | {
        "limit_cores": 4.0,
        "granted_request_cores": 3.0,
        "granted_limit_cores": 4.0,
    }
    described = node.describe()
    assert [(one.name, one.request, one.limit) for one in described.resources] == [
        ("cpu", "", "4"),
        ("hugepages-2Mi", "", "64Mi"),
        ("memory", "", "2Gi"),
    ]
    (cpus, *_) = described.resources
    assert (cpus.granted_request, cpus.granted_limit) == ("3", "4")
    (container,) = described.containers
    assert container.hugepages is not None and container.hugepages.pod
    assert described.not_understood == ()


def test_an_amount_that_is_none_is_an_error_beside_the_rest(make: Any) -> None:
    def ask(item: Any) -> None:
        item["spec"]["resources"] = {"limits": {"cpu": "many", "hugepages-2Mi": "many"}}

    node = make(ask)
    cpu = netutil(node.app, "cpu")
    assert cpu["effective_cpus"] == "0"
    assert cpu["spec_error"]["reason"] == "QUANTITY_MALFORMED"
    assert cpu["spec_error"]["message"] == "'many' is no amount of CPUs."
    assert cpu["spec_error"]["read"] == "resources of pod shop/web: cpu"
    pages = netutil(node.app, "hugepages")
    assert pages["spec_error"]["reason"] == "QUANTITY_MALFORMED"
    assert pages["pod"] is None


@pytest.mark.parametrize(
    "resources", [{"limits": ["x"], "requests": 7}, "x"], ids=["limits", "resources"]
)
def test_an_unreadable_spec_is_not_an_empty_spec(make: Any, resources: object) -> None:
    def spoil(item: Any) -> None:
        item["spec"]["containers"][0]["resources"] = resources

    node = make(spoil)
    for answer in (netutil(node.app, "cpu"), netutil(node.app, "hugepages")):
        assert answer["spec_error"]["reason"] == "QUANTITY_MALFORMED"
        assert "spec.containers[0].resources" in answer["spec_error"]["message"]
    refused = node.app.run([sys.executable, "-m", "netutil.client", "dpdk"])
    assert refused.returncode == 1
    assert b"of container app of pod shop/web are not known" in refused.stderr


def test_a_pod_with_an_odd_field_is_answered_with_its_name(make: Any) -> None:
    def spoil(item: Any) -> None:
        item["spec"]["nodeName"] = item["status"]["qosClass"] = None
        item["status"]["containerStatuses"][0]["state"]["running"]["startedAt"] = None

    node = make(spoil)
    pod = netutil(node.app, "whoami")
    assert (pod["name"], pod["container_name"]) == ("web", "app")
    assert (pod["node_name"], pod["qos_class"]) == ("", "")
    assert pod["not_understood"] == [
        "spec.nodeName",
        "status.qosClass",
        "status.containerStatuses[0].state.running.startedAt",
    ]
    described = node.describe()
    assert described.not_understood == tuple(pod["not_understood"])
    (container,) = described.containers
    assert (container.container.state, container.started_at) == ("running", None)
    check = node.check()
    assert check.outcome == "warning"
    assert check.found == "3 fields of 1 pod are unknown, the first shop/web spec.nodeName"


def test_a_network_status_that_is_no_text_hides_networks(make: Any) -> None:
    def spoil(item: Any) -> None:
        item["metadata"]["annotations"] = {NETWORK_STATUS: [{"name": "cbr0"}]}

    node = make(spoil)
    refused = node.app.run([sys.executable, "-m", "netutil.client", "network"])
    assert refused.returncode == 1
    assert b"something else than text as annotation" in refused.stderr
    (error,) = (one for one in node.describe().errors if one.part == "network_status")
    assert error.reason == "NETWORK_STATUS_MALFORMED"
    assert "something else than text as annotation k8s.v1.cni.cncf.io/network-status" in (
        error.message
    )
    assert node.describe().pod.networks_error == error.message


def test_a_userspace_annotation_that_is_no_text_may_hide_one(make: Any) -> None:
    def spoil(item: Any) -> None:
        networks = json.dumps([{"name": "cbr0", "interface": "eth0"}])
        item["metadata"]["annotations"] = {
            "k8s.v1.cni.cncf.io/network-status": networks,
            CONFIGURATION_DATA: [{"ifName": "net1"}],
        }

    node = make(spoil)
    assert [one["interface"] for one in netutil(node.app, "network")["status"]] == ["eth0"]
    for command in ("network", "interfaces"):
        refused = node.app.run([sys.executable, "-m", "netutil.client", command, "net1"])
        assert refused.returncode == 1
        said = f"something else than text as annotation {CONFIGURATION_DATA}"
        assert said.encode() in refused.stderr
    pod = node.describe().pod
    assert pod.networks == ("eth0",)
    assert f"annotation {CONFIGURATION_DATA}" in pod.networks_error
