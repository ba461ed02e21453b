"""A pod list keeps only huge pages and CPUs of containers and their resources."""

from __future__ import annotations

import json
from typing import Any

import pytest
from netutil.agent.pods.model import Pod, convert_pod_list, decode_pod_list

BOTH = {"cpu": "2", "memory": "1Gi", "hugepages-1Gi": "2Gi", "vendor.example/nic": "1"}


def pod_of(spec: object) -> Pod:
    document = {"kind": "PodList", "items": [{"metadata": {"name": "a", "uid": "u"}, "spec": spec}]}
    (pod,) = decode_pod_list(json.dumps(document).encode())
    assert convert_pod_list(document) == (pod,)
    return pod


def container(name: str, **resources: Any) -> dict[str, Any]:
    return {"name": name, "image": "web", "resources": resources}


def test_huge_pages_are_kept_per_container_init_containers_first() -> None:
    spec = {
        "containers": [
            container("app", requests=BOTH, limits=BOTH),
            container("side", limits={"hugepages-2Mi": 4096}),
        ],
        "initContainers": [container("setup", requests={"hugepages-2Mi": "2Mi"})],
    }
    assert pod_of(spec).spec.hugepages == (
        ("setup", {"hugepages-2Mi": "2Mi"}, {}),
        ("app", {"hugepages-1Gi": "2Gi"}, {"hugepages-1Gi": "2Gi"}),
        ("side", {}, {"hugepages-2Mi": 4096}),
    )


def test_a_container_without_huge_pages_and_cpus_costs_no_memory() -> None:
    plain = container("app", requests={"memory": "1Gi"}, limits={"memory": "1Gi"})
    spec = pod_of({"containers": [plain], "initContainers": [plain]}).spec
    assert (spec.containers, spec.init_containers, spec.hugepages) == (None, None, ())


def test_a_container_with_cpus_keeps_no_dictionary() -> None:
    plain = container("app", requests={"cpu": "2"}, limits={"memory": "1Gi", "cpu": 2})
    (found,) = pod_of({"containers": [plain]}).spec.asking
    assert found.resources is not None
    assert (found.resources.requests, found.resources.limits) == (None, None)
    assert (found.resources.cpu_request, found.resources.cpu_limit) == ("2", 2)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"containers": None, "initContainers": None},
        {"containers": [{"name": "app"}]},
        {"containers": [{"name": "app", "resources": None}]},
        {"containers": [container("app", requests=None, limits=None)]},
        {"containers": [container("app", limits={"cpu": None, "memory": ["odd"]})]},
        {"containers": [{}]},
    ],
)
def test_an_unset_amount_requests_nothing(spec: object) -> None:
    assert pod_of(spec).spec.hugepages == ()


def test_the_kubernetes_client_reads_the_same_amounts() -> None:
    from kubernetes import client

    item = {
        "metadata": {"name": "a", "uid": "u"},
        "spec": {"containers": [container("app", requests=BOTH, limits=BOTH)]},
    }
    text = json.dumps({"kind": "PodList", "items": [item]})
    theirs = client.ApiClient().deserialize(text, "V1PodList", "application/json").items[0]
    (other,) = theirs.spec.containers
    ((name, requests, limits),) = pod_of(item["spec"]).spec.hugepages
    assert name == other.name
    for ours, whole in ((requests, other.resources.requests), (limits, other.resources.limits)):
        assert ours == {key: one for key, one in whole.items() if key.startswith("hugepages-")}
