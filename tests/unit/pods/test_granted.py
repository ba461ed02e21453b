"""Requests of a spec, grants of the kubelet, and the source that decides on exclusive CPUs."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from netutil.agent.kubelet.podsapi.model import decode_pod
from netutil.agent.pods.model import Pod, convert_pod_list, decode_pod_list
from netutil.podsapi.v1alpha1 import pod_pb2

ONE = {"cpu": "1", "memory": "1Gi"}
RESIZED: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "shop", "uid": "u"},
    "spec": {
        "containers": [
            {
                "name": "app",
                "resources": {
                    "requests": {**ONE, "cpu": "1500m"},
                    "limits": {**ONE, "cpu": "1500m"},
                },
            }
        ]
    },
    "status": {
        "qosClass": "Guaranteed",
        "containerStatuses": [
            {
                "name": "app",
                "allocatedResources": ONE,
                "resources": {"requests": ONE, "limits": ONE},
            }
        ],
    },
}


def read(item: object) -> Pod:
    document = {"items": [item]}
    (pod,) = decode_pod_list(json.dumps(document).encode())
    assert convert_pod_list(document) == (pod,)
    return pod


def changed(**status: Any) -> Pod:
    item = copy.deepcopy(RESIZED)
    item["status"]["containerStatuses"][0] = {"name": "app", **status}
    return read(item)


def test_a_container_that_is_resized_keeps_the_cpus_that_it_has() -> None:
    pod = read(RESIZED)
    assert pod.spec.sharing_cpus == ("app",)
    assert pod.may_own_cpus("app")
    granted = pod.granted("app")
    assert granted is not None
    assert (granted.cpu_request, granted.cpu_limit) == ("1", "1")


@pytest.mark.parametrize(
    "status",
    [
        {"allocatedResources": ONE},
        {"resources": {"requests": ONE}},
        {"allocatedResources": {}},
        {"resources": {}},
        {"allocatedResources": {"cpu": "1500m"}},
        {"resources": 5},
        {"allocatedResources": "odd"},
    ],
    ids=str,
)
def test_the_resources_in_the_status_outweigh_the_spec(status: dict[str, Any]) -> None:
    assert changed(**status).may_own_cpus("app")


def test_the_spec_decides_where_it_cannot_be_changed() -> None:
    assert changed().granted("app") is None
    assert not changed().may_own_cpus("app")
    assert changed(allocatedResources=None, resources=None).granted("app") is None


def test_the_admitted_is_the_request_and_the_actual_the_limit() -> None:
    huge = "hugepages-2Mi"
    pod = changed(
        allocatedResources={"cpu": "1", huge: "4Mi", "vendor.example/nic": "1"},
        resources={"requests": {"cpu": "2"}, "limits": {"cpu": "3", huge: "4Mi"}},
    )
    granted = pod.granted("app")
    assert granted is not None
    assert (granted.cpu_request, granted.cpu_limit) == ("1", "3")
    assert (granted.requests, granted.limits) == ({huge: "4Mi"}, {huge: "4Mi"})
    assert pod.granted("other") is None


def test_pod_level_resources_come_from_a_trusted_kubelet() -> None:
    """It lists no shared CPUs (kubernetes/kubernetes#97415), and may give a pod exclusive ones."""
    item = copy.deepcopy(RESIZED)
    item["status"] = {"qosClass": "Burstable"}
    assert not read(item).may_own_cpus("app")
    item["spec"]["resources"] = {"limits": ONE}
    assert read(item).may_own_cpus("app")


@pytest.mark.parametrize(
    ("resources", "own"),
    [
        ({"requests": ONE, "limits": ONE}, True),
        ({"limits": ONE}, True),
        ({"requests": {"cpu": "1000m"}, "limits": ONE}, True),
        ({"requests": {"cpu": "500m"}, "limits": ONE}, False),
        ({"limits": {"cpu": "1"}}, False),
        ({"requests": ONE}, False),
        ({"limits": {"cpu": "1500m", "memory": "1Gi"}}, False),
        ({}, False),
        (None, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("qos", [{}, {"qosClass": None}, {"qosClass": 5}], ids=str)
def test_a_class_that_is_not_known_is_that_of_the_spec(
    qos: dict[str, Any], resources: object, own: bool
) -> None:
    """As in Kubernetes (GetPodQOS); the pod's class stays unknown."""
    item = copy.deepcopy(RESIZED)
    item["spec"]["containers"][0]["resources"] = resources
    item["status"] = qos
    assert read(item).may_own_cpus("app") is own
    assert read(item).status.qos_class == ""


def test_one_container_without_limits_makes_no_guaranteed_pod() -> None:
    item = copy.deepcopy(RESIZED)
    item["status"] = {}
    item["spec"]["containers"] = [{"name": "app", "resources": {"limits": ONE}}, {"name": "side"}]
    assert not read(item).may_own_cpus("app")


def test_a_key_of_ours_in_the_list_grants_nothing() -> None:
    forged = copy.deepcopy(RESIZED)
    forged["status"]["containerStatuses"][0] |= {"-granted": {"cpu_request": "9"}}
    forged["spec"]["containers"][0]["resources"]["-cpu-request"] = "9"
    assert read(forged) == read(RESIZED)


def test_a_pod_in_protobuf_has_the_same_content() -> None:
    def amounts(amount: str) -> dict[str, pod_pb2.Quantity]:
        return {
            "cpu": pod_pb2.Quantity(string=amount),
            "memory": pod_pb2.Quantity(string="1Gi"),
        }

    def both(amount: str) -> pod_pb2.ResourceRequirements:
        return pod_pb2.ResourceRequirements(requests=amounts(amount), limits=amounts(amount))

    pod = pod_pb2.Pod(
        metadata=pod_pb2.ObjectMeta(name="web", namespace="shop", uid="u"),
        spec=pod_pb2.PodSpec(
            resources=both("4"),
            containers=[pod_pb2.Container(name="app", resources=both("1500m"))],
            initContainers=[
                pod_pb2.Container(name="proxy", resources=both("1"), restartPolicy="Always")
            ],
        ),
        status=pod_pb2.PodStatus(
            qosClass="Guaranteed",
            allocatedResources=amounts("3"),
            resources=both("3"),
            containerStatuses=[
                pod_pb2.ContainerStatus(
                    name="app", allocatedResources=amounts("1"), resources=both("1")
                )
            ],
        ),
    )

    def plain(amount: str) -> dict[str, Any]:
        return {"requests": {**ONE, "cpu": amount}, "limits": {**ONE, "cpu": amount}}

    item = copy.deepcopy(RESIZED)
    item["spec"] |= {
        "resources": plain("4"),
        "initContainers": [{"name": "proxy", "resources": plain("1"), "restartPolicy": "Always"}],
    }
    item["status"] |= {"allocatedResources": {**ONE, "cpu": "3"}, "resources": plain("3")}
    assert decode_pod(pod.SerializeToString()) == read(item)
    assert read(item).spec.kind_of("proxy") == "sidecar"
