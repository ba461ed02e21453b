"""Devices of ResourceClaims, asked for by the containers that refer to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from netutil.v1alpha import node_pb2, node_pb2_grpc

from tests.support.device_metadata import DRIVER, V1ALPHA1, V1BETA1, both, device, vf
from tests.support.lab.observing import needs_lab
from tests.support.nodes.agent_node import links_are_refused
from tests.support.nodes.dra_node import (
    GPU,
    GPU_DRIVER,
    MAC,
    NETWORK,
    NIC,
    UID,
    VF,
    VFIO_VF,
    DraNode,
    dra_node,
    health,
)
from tests.support.nodes.json_calls import call
from tests.support.nodes.watching import watching

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("service")]


@pytest.fixture
def node() -> Iterator[DraNode]:
    with dra_node() as node:
        yield node


def resources(node: DraNode, container: str, **fields: object) -> Any:
    return call(node.containers[container], "GetResource", "ResourceRequest", **fields)


def claims(node: DraNode, container: str) -> list[Any]:
    answer = resources(node, container)
    assert "claims_error" not in answer, answer
    found: list[Any] = answer.get("claims", [])
    return found


def interfaces(node: DraNode, container: str, **fields: object) -> Any:
    return call(node.containers[container], "GetInterfaces", "InterfacesRequest", **fields)


def named(answer: Any, name: str) -> Any:
    return next(one for one in answer["interfaces"] if one.get("name", "") == name)


def test_a_container_gets_its_own_claims_only(node: DraNode) -> None:
    node.write_nic()
    node.write_gpu()
    (nic,) = claims(node, "app")
    assert nic["pod_claim"] == "nic" and nic["claim_name"] == NIC
    assert (nic["claim_namespace"], nic["request"], nic["driver"]) == ("shop", "vf", DRIVER)
    assert (nic["source"], nic["generation"]) == ("CLAIM_SOURCE_NODE", "1")
    assert nic["claim_uid"].startswith("0b1c2d3e")
    (found,) = nic["devices"]
    assert found["attributes"]["resource.kubernetes.io/pciBusID"] == {"string_value": VF}
    assert found["network_data"] == {
        "interface_name": "net1",
        "ips": ["192.0.2.5/24"],
        "hardware_address": MAC,
    }
    assert found["pci"]["address"] == VF and found["pci"]["driver"] == "iavf"
    assert [one["pod_claim"] for one in claims(node, "whole")] == ["gpu", "nic"]
    assert claims(node, "plain") == []
    assert not any("claim" in one for one in interfaces(node, "plain")["interfaces"])


def test_a_claim_is_shared_by_two_pods(node: DraNode) -> None:
    node.write_gpu()
    ours, theirs = claims(node, "whole")[0], claims(node, "train")[0]
    assert (ours["pod_claim"], theirs["pod_claim"]) == ("gpu", "accelerator")
    assert ours["devices"] == theirs["devices"]
    (gpu,) = theirs["devices"]
    assert gpu["attributes"] == {"model": {"string_value": "A"}, "memory": {"int_value": "80"}}


@pytest.mark.parametrize(
    "versions",
    [
        (V1BETA1,),
        (V1ALPHA1,),
        (V1BETA1, V1ALPHA1),
        ("metadata.resource.k8s.io/v9", V1ALPHA1),
    ],
)
def test_each_version_of_the_library_is_read(node: DraNode, versions: tuple[str, ...]) -> None:
    body = both(vf(VF), versions=versions, claim=NIC)
    node.tree.write(body, claim=NIC)
    assert [len(one["devices"]) for one in claims(node, "app")] == [1]


def test_a_driver_that_is_removed_takes_its_devices_along(node: DraNode) -> None:
    assert [one.get("devices") for one in claims(node, "app")] == [None]
    node.write_nic()
    assert len(claims(node, "app")[0]["devices"]) == 1
    node.tree.remove_driver()
    (left,) = claims(node, "app")
    assert "driver" not in left and "source" not in left and "error" not in left
    assert (left["pod_claim"], left["request"]) == ("nic", "vf")


def test_two_drivers_of_one_request_are_two_entries(node: DraNode) -> None:
    node.write_nic()
    body = both(device("gpu-0", driver=GPU_DRIVER), claim=NIC)
    node.tree.write(body, claim=NIC, driver=GPU_DRIVER)
    found = claims(node, "app")
    assert [(one["request"], one["driver"]) for one in found] == [
        ("vf", GPU_DRIVER),
        ("vf", DRIVER),
    ]


def test_files_of_two_uids_are_no_answer(node: DraNode) -> None:
    node.write_nic()
    uid = "0b1c2d3e-0000-4000-8000-00000000ffff"
    body = both(device("gpu-0", driver=GPU_DRIVER), claim=NIC, uid=uid)
    node.tree.write(body, claim=NIC, driver=GPU_DRIVER)
    found = [one for one in claims(node, "whole") if one["pod_claim"] == "nic"]
    assert len(found) == 2
    for one in found:
        assert one["error"]["reason"] == "DEVICE_METADATA_CONTRADICTS"
        assert "devices" not in one


def test_a_file_of_an_earlier_claim_hides_no_later_one(node: DraNode) -> None:
    node.write_nic()
    uid = "0b1c2d3e-0000-4000-8000-00000000ffff"
    body = both(device("gpu-0", driver=GPU_DRIVER), claim=NIC, uid=uid)
    node.tree.write(body, claim=NIC, driver=GPU_DRIVER)
    gpu, nic = claims(node, "app")
    assert gpu["error"]["reason"] == "DEVICE_METADATA_CONTRADICTS" and "devices" not in gpu
    assert f"is of UID {uid}, and the kubelet prepared {UID}" in gpu["error"]["message"]
    assert len(nic["devices"]) == 1 and "error" not in nic
    answer = interfaces(node, "app")
    assert answer["claims_error"]["reason"] == "DEVICE_METADATA_CONTRADICTS"


def test_a_file_of_another_pods_claim_is_no_answer(node: DraNode) -> None:
    node.tree.write(both(vf(VF), claim=NIC, pod_claim="other"), claim=NIC)
    (found,) = claims(node, "app")
    assert found["error"]["reason"] == "DEVICE_METADATA_CONTRADICTS"


def test_a_malformed_file_hides_no_other_claim(node: DraNode) -> None:
    node.tree.write(b"[]", claim=NIC)
    node.write_gpu()
    gpu, nic = claims(node, "whole")
    assert nic["error"]["reason"] == "DEVICE_METADATA_MALFORMED"
    assert (nic["driver"], nic["request"]) == (DRIVER, "vf")
    assert len(gpu["devices"]) == 1
    answer = interfaces(node, "whole")
    assert answer["claims_error"]["reason"] == "DEVICE_METADATA_MALFORMED"


def test_health_is_that_of_the_pods_status(node: DraNode) -> None:
    node.write_nic()
    node.containers["app"].status = {"allocatedResourcesStatus": health("link is down")}
    node.lab.write_pod_list()
    node.agent.stop()
    node.lab.agent(
        f"--pod-resources={node.kubelet.path}", f"--kubelet-root={node.tree.kubelet_root}"
    )
    answer = resources(node, "app")
    assert [(one["ID"], one.get("health")) for one in answer["devices"]] == [
        ("fpga-0", "Healthy"),
        ("fpga-1", None),
    ]
    (found,) = answer["claims"][0]["devices"]
    assert (found["health"], found["health_message"]) == ("Unhealthy", "link is down")


def test_an_interface_is_the_device_of_its_name(node: DraNode) -> None:
    node.write_nic()
    if links_are_refused(node.containers["app"]):
        return
    found = named(interfaces(node, "app"), "net1")
    assert found["device_source"] == "DEVICE_SOURCE_CLAIM"
    assert (found["claim"]["pod_claim"], found["claim"]["driver"]) == ("nic", DRIVER)
    assert found["claim"]["device"]["device"] == VF.replace(":", "-").replace(".", "-")
    assert found["pci"]["address"] == VF
    assert "drift" not in found
    assert "claim" not in named(interfaces(node, "app"), "eth0")


def test_a_reported_device_that_the_kernel_lacks_is_drift(node: DraNode) -> None:
    node.write_nic(vf(VF, network={**NETWORK, "ips": ["192.0.2.9/24"], "hardwareAddress": "02::"}))
    if links_are_refused(node.containers["app"]):
        return
    found = named(interfaces(node, "app"), "net1")
    assert [one["field"] for one in found["drift"]] == ["claim-hardware-address", "claim-ips"]


def test_a_function_of_dpdk_is_an_entry_without_a_link(node: DraNode) -> None:
    node.write_nic(vf(VFIO_VF))
    found = next(one for one in interfaces(node, "app")["interfaces"] if "claim" in one)
    assert "link" not in found and found["pci"]["driver"] == "vfio-pci"
    assert found["device_type"] == "DEVICE_TYPE_SR_IOV"


def test_a_new_generation_is_a_new_answer(node: DraNode) -> None:
    node.write_nic(vf(VF))
    assert claims(node, "app")[0]["generation"] == "1"
    interfaces(node, "app")
    node.write_nic(generation=2)
    (found,) = claims(node, "app")
    assert found["generation"] == "2" and "network_data" in found["devices"][0]
    if not links_are_refused(node.containers["app"]):
        assert "claim" in named(interfaces(node, "app"), "net1")


def test_a_new_generation_is_a_change_for_a_watcher(node: DraNode) -> None:
    node.write_nic(vf(VF))
    with watching(node.containers["app"]) as watcher:
        first = watcher.next()
        assert first["snapshot"]["resources"]["claims"][0]["generation"] == "1"
        node.write_nic(generation=2)
        changed = watcher.until(
            lambda line: line["snapshot"]["resources"]["claims"][0]["generation"] == "2"
        )
        assert "resources" in changed["changed"]
    with watching(node.containers["plain"]) as watcher:
        watcher.next()
        watcher.settle()
        node.write_nic(generation=3)
        assert watcher.quiet(5)


def test_operators_see_the_claims_of_a_pod(node: DraNode) -> None:
    node.write_nic()
    node.write_gpu()
    address = f"unix:{node.lab.admin_socket}"
    with grpc.insecure_channel(address, [("grpc.default_authority", "localhost")]) as channel:
        stub = node_pb2_grpc.NodeStub(channel)
        answer = stub.DescribePod(node_pb2.DescribePodRequest(namespace="shop", name="web"))
        explained = stub.Explain(node_pb2.ExplainRequest(pid=str(node.containers["app"].pid)))
        checked = {one.name: one for one in stub.Diagnose(node_pb2.DiagnoseRequest()).checks}
    found = {
        one.container.name: [claim.pod_claim for claim in one.resources.claims]
        for one in answer.containers
    }
    assert found == {"app": ["nic"], "whole": ["gpu", "nic"], "plain": []}
    said = [line for step in explained.steps for line in step.found]
    assert f"refers to claims nic = {NIC} (request vf)" in said
    assert DRIVER in checked["ResourceClaims"].found


def test_off_is_an_error_for_pods_with_claims() -> None:
    with dra_node("--resource-claims=off") as node:
        node.write_nic()
        answer = resources(node, "app")
        assert "claims" not in answer
        assert answer["claims_error"]["reason"] == "RESOURCE_CLAIMS_OFF"
        assert interfaces(node, "app")["claims_error"]["reason"] == "RESOURCE_CLAIMS_OFF"
        assert "claims_error" not in resources(node, "plain")
        assert "claims_error" not in interfaces(node, "plain")


def test_a_missing_mount_is_an_error_for_pods_with_claims(node: DraNode) -> None:
    node.tree.plugins.rmdir()
    assert resources(node, "app")["claims_error"]["reason"] == "FILE_NOT_READABLE"
    assert "claims_error" not in resources(node, "plain")


def test_all_has_the_claims_in_both_parts(node: DraNode) -> None:
    node.write_nic()
    node.write_gpu()
    answer = call(node.containers["whole"], "GetAll", "AllRequest")
    assert {one["claim_name"] for one in answer["resources"]["claims"]} == {GPU, NIC}
    assert any("claim" in one for one in answer["interfaces"]["interfaces"])
