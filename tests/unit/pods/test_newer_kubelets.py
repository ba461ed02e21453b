"""The parser understands the lists of kubelets of Kubernetes 1.34 to 1.37, field by field."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from netutil.agent.collect.amounts import container_cpus, pod_cpus
from netutil.agent.collect.device_health import device_health, with_health
from netutil.agent.facts.claims import Claims
from netutil.agent.kubelet.podresources.model import (
    Asked,
    ClaimResource,
    DynamicResource,
    decode_pod,
)
from netutil.agent.parsers.claims import ClaimDevice, ClaimRequest
from netutil.agent.pods.claims import ClaimReference, claims_of, is_reserved_for
from netutil.agent.pods.index import Match, index
from netutil.agent.pods.model import Pod, decode_pod_list
from netutil.agent.pods.sources.claims_model import Consumer
from netutil.podresources.v1 import podresources_pb2 as v1

from tests.unit.pods.newer_kubelets import POD, pod_of_group

NOW = datetime(2026, 11, 25, 10, 1, tzinfo=UTC)
ECC = "ECC error count exceeded threshold"
CDI = "k8s.gpu.example.com/gpu=claim-5b0f-gpu-0"


@pytest.fixture(scope="module")
def pod() -> Pod:
    (found,) = decode_pod_list(json.dumps({"kind": "PodList", "items": [POD]}).encode())
    return found


def match(pod: Pod, digit: str) -> Match:
    found = index([pod], NOW).find(pod.metadata.uid, digit * 64)
    assert found is not None
    return found


def test_nothing_of_the_pod_is_unknown(pod: Pod) -> None:
    assert pod.not_understood == ()


@pytest.mark.parametrize(
    ("digit", "name", "kind"),
    [("a", "proxy", "init"), ("b", "app", "container"), ("c", "debug", "ephemeral")],
)
def test_each_container_is_found(pod: Pod, digit: str, name: str, kind: str) -> None:
    found = match(pod, digit)
    assert (found.container_name, found.container_kind) == (name, kind)


def test_a_sidecar_is_one(pod: Pod) -> None:
    assert pod.spec.kind_of("proxy") == "sidecar"


def test_a_resize_shows_both_amounts(pod: Pod) -> None:
    cpus = container_cpus(pod, "app")
    assert cpus is not None
    assert (cpus.request_cores, cpus.granted_request_cores) == (3, 2)
    assert (cpus.limit_cores, cpus.granted_limit_cores) == (3, 2)


def test_resources_of_the_whole_pod_are_read(pod: Pod) -> None:
    cpus = pod_cpus(pod)
    assert cpus is not None and (cpus.limit_cores, cpus.granted_limit_cores) == (4, 4)


def test_claims_and_extended_resources_are_the_containers(pod: Pod) -> None:
    assert claims_of(pod, "app") == (
        ClaimReference(
            "", "train-0-extended-resources-8zglq", "container-0-request-0", "example.com/nic"
        ),
        ClaimReference("gpu", "train-0-gpu-x7k2p", "accelerator", is_from_template=True),
    )
    assert claims_of(pod, "proxy") == (ClaimReference("nic", "shared-nic", ""),)
    assert claims_of(pod, "debug") == ()


def test_a_pod_of_a_group_uses_the_claim_of_the_group() -> None:
    body = json.dumps({"kind": "PodList", "items": [pod_of_group()]}).encode()
    (found,) = decode_pod_list(body)
    assert found.not_understood == ()
    assert ClaimReference("rail", "train-fabric-5x2kq", "") in claims_of(found, "app")
    group = Consumer("podgroups", "train", "group-uid", "scheduling.k8s.io")
    assert is_reserved_for(found, [group])


def test_the_health_of_a_plugins_device_is_read(pod: Pod) -> None:
    found = device_health(match(pod, "b"))
    assert found.by_device == {("example.com/fpga", "fpga-0"): ("Healthy", "")}
    assert device_health(match(pod, "a")).by_device == {}


def claims(driver: str = "gpu.example.com", name: str = "gpu-0") -> Claims:
    device = ClaimDevice("node-1", name)
    request = ClaimRequest("gpu", "train-0-gpu-x7k2p", "shop", driver=driver, devices=(device,))
    return Claims((request,))


DYNAMIC = DynamicResource(
    "train-0-gpu-x7k2p",
    "shop",
    (ClaimResource((CDI, "gpu.example.com/metadata=x"), "gpu.example.com", "node-1", "gpu-0"),),
)


@pytest.mark.parametrize(
    ("dynamic", "found", "health"),
    [
        ([DYNAMIC], claims(), "Unhealthy"),
        ([], claims(), None),
        ([DYNAMIC], claims(name="gpu-1"), None),
        ([DYNAMIC], claims(driver="other.example.com"), None),
    ],
    ids=["by CDI", "no PodResources", "another device", "another driver"],
)
def test_the_health_of_a_claims_device_is_its_own(
    pod: Pod, dynamic: list[DynamicResource], found: Claims, health: str | None
) -> None:
    (request,) = with_health(found, match(pod, "b"), dynamic).requests
    (device,) = request.devices
    assert (device.health, device.health_message) == (health, ECC if health else None)


def test_a_device_without_cdi_is_found_by_its_names(pod: Pod) -> None:
    text = json.dumps(POD).replace(CDI, "gpu.example.com/node-1/gpu-0")
    (named,) = decode_pod_list(f'{{"kind": "PodList", "items": [{text}]}}'.encode())
    (request,) = with_health(claims(), match(named, "b"), []).requests
    assert request.devices[0].health == "Unhealthy"


def test_health_without_a_device_is_of_none(pod: Pod) -> None:
    text = json.dumps(POD).replace(CDI, "")
    (named,) = decode_pod_list(f'{{"kind": "PodList", "items": [{text}]}}'.encode())
    (request,) = with_health(claims(), match(named, "b"), []).requests
    assert request.devices[0].health is None


def test_get_returns_the_devices_of_claims() -> None:
    """GetPodResourcesResponse, as kubelets of 1.34 answer with KubeletPodResourcesGet."""
    resource = v1.ClaimResource(
        cdi_devices=[v1.CDIDevice(name=CDI)],
        driver_name="gpu.example.com",
        pool_name="node-1",
        device_name="gpu-0",
    )
    claim = v1.DynamicResource(
        claim_name="train-0-gpu-x7k2p", claim_namespace="shop", claim_resources=[resource]
    )
    container = v1.ContainerResources(name="app", dynamic_resources=[claim])
    answer = v1.GetPodResourcesResponse(
        pod_resources=v1.PodResources(name="train-0", namespace="shop", containers=[container])
    )
    body = answer.SerializeToString()
    entry = decode_pod(body, ("shop", "train-0"), Asked(0.0, NOW))
    (found,) = entry.containers["app"].dynamic_resources
    assert (found.claim_name, found.claim_resources[0].cdi_devices) == (
        "train-0-gpu-x7k2p",
        (CDI,),
    )
