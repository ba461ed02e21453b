"""Devices of ResourceClaims from the node and the API server: the real agent, files, a server."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from netutil.v1alpha import node_pb2, node_pb2_grpc

from tests.support.device_metadata import DRIVER, both, device, vf
from tests.support.fakes.apiserver import refusing
from tests.support.lab.observing import needs_lab
from tests.support.nodes.agent_node import links_are_refused, netutil
from tests.support.nodes.claims_server import (
    ClaimsServer,
    claims_server,
    condition,
    device_name,
    status_of,
)
from tests.support.nodes.dra_node import NETWORK, NIC, VF, VFIO_VF, DraNode, dra_node
from tests.support.nodes.json_calls import call
from tests.support.nodes.watching import watching

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("service")]
DEVICE, OTHER = device_name(VF), device_name(VFIO_VF)
OTHER_UID = "0b1c2d3e-0000-4000-8000-00000000ffff"
ATTRIBUTE = "resource.kubernetes.io/pciBusID"
NET1 = {"interfaceName": "net1", "ips": ["192.0.2.5/24"], "hardwareAddress": "02:00:00:00:00:05"}
DPDK = """
import json
from netutil.client import Client
from netutil.client.dpdk.devices import device_arguments
with Client() as client:
    facts = client.all()
found = device_arguments(facts.interfaces, facts.resources, (), {})
print(json.dumps([[one.words for one in found.arguments], found.warnings]))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ClaimsServer]:
    with claims_server(tmp_path) as made:
        made.publish(VF, VFIO_VF)
        yield made


@pytest.fixture
def node(server: ClaimsServer) -> Iterator[DraNode]:
    with dra_node(*server.flags) as made:
        yield made


def answer(node: DraNode, container: str = "app") -> Any:
    return call(node.containers[container], "GetResource", "ResourceRequest")


def eventually(node: DraNode, enough: Callable[[Any], bool], container: str = "app") -> Any:
    """The first answer that is enough: the agent learns of a change a moment later."""
    deadline = time.monotonic() + 30
    while True:
        found = answer(node, container)
        assert "code" not in found, (node.agent._process.poll(), node.agent.stderr_text())
        if enough(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def settled(node: DraNode) -> Any:
    """An answer after both lists."""
    return eventually(node, lambda found: "claims_error" not in found)


def reason(found: Any) -> str:
    return str(found.get("claims_error", {}).get("reason", ""))


def errors(found: Any) -> list[str]:
    """The reasons of the requests that are not known, and of all of them."""
    of_requests = [one["error"]["reason"] for one in found.get("claims", ()) if "error" in one]
    return of_requests + [reason(found)] * ("claims_error" in found)


def one_device(request: Any) -> Any:
    (device,) = request["devices"]
    return device


def test_the_api_server_has_the_devices_without_files(node: DraNode, server: ClaimsServer) -> None:
    server.put(NIC, DEVICE, devices=[status_of(DEVICE, networkData=NET1)])
    # The ResourceSlices come after the claims.
    found = eventually(node, lambda found: "devices" in found["claims"][0] and not reason(found))
    (nic,) = found["claims"]
    assert (nic["source"], nic["driver"]) == ("CLAIM_SOURCE_API_SERVER", DRIVER)
    assert (nic["pod_claim"], nic["request"]) == ("nic", "vf") and "generation" not in nic
    device = one_device(nic)
    assert device["attributes"][ATTRIBUTE] == {"string_value": VF}
    assert device["pci"]["driver"] == "iavf"
    assert device["network_data"]["interface_name"] == "net1"
    assert "claims" not in answer(node, "plain")
    if not links_are_refused(node.containers["app"]):
        interfaces = call(node.containers["app"], "GetInterfaces", "InterfacesRequest")
        net1 = next(one for one in interfaces["interfaces"] if one.get("name") == "net1")
        assert net1["claim"]["source"] == "CLAIM_SOURCE_API_SERVER"


def test_a_claim_without_status_has_the_devices_of_its_file(
    node: DraNode, server: ClaimsServer
) -> None:
    node.write_nic()
    server.put(NIC)
    found = eventually(node, lambda found: not errors(found))
    (nic,) = found["claims"]
    assert nic["source"] == "CLAIM_SOURCE_NODE" and "conditions" not in one_device(nic)


def test_a_claim_that_is_not_reserved_is_no_answer(node: DraNode, server: ClaimsServer) -> None:
    node.write_nic()
    node.write_gpu()
    earlier = {"resource": "pods", "name": "web", "uid": OTHER_UID}
    server.put(NIC, DEVICE, reservedFor=[earlier])
    found = eventually(node, lambda found: "is reserved for 1 other," in str(found["claims"]))
    (nic,) = found["claims"]
    assert nic["error"]["reason"] == "RESOURCE_CLAIM_NOT_RESERVED" and "devices" not in nic
    assert node.web.uid in nic["error"]["message"]
    server.put(NIC, DEVICE)
    assert one_device(eventually(node, lambda found: not errors(found))["claims"][0])
    # A claim that is given back is not held any more, and its file may stay for a while.
    server.put(NIC, reservedFor=[], allocation=None)
    (nic,) = eventually(node, lambda found: errors(found) != [])["claims"]
    assert nic["error"]["reason"] == "RESOURCE_CLAIM_NOT_RESERVED" and "devices" not in nic
    assert errors(answer(node, "train")) == ["RESOURCE_CLAIM_NOT_RESERVED"]
    assert "claims" not in answer(node, "plain")


def test_a_reservation_that_ends_is_a_change_for_a_watcher(
    node: DraNode, server: ClaimsServer
) -> None:
    node.write_nic()
    server.put(NIC, DEVICE)
    eventually(node, lambda found: not errors(found))
    with watching(node.containers["app"]) as watcher:
        watcher.next()
        watcher.settle()
        server.put(NIC, DEVICE, reservedFor=[])
        changed = watcher.until(lambda line: errors(line["snapshot"]["resources"]) != [])
        assert "resources" in changed["changed"]


def test_additions_of_the_api_server_are_beside_the_file(
    node: DraNode, server: ClaimsServer
) -> None:
    node.write_nic(vf(VF, network=NETWORK))
    ready, other = condition("True"), {**NET1, "interfaceName": "net9"}
    server.put(NIC, DEVICE, devices=[status_of(DEVICE, networkData=other, conditions=[ready])])
    found = eventually(node, lambda found: "conditions" in one_device(found["claims"][0]))
    (nic,) = found["claims"]
    assert (nic["source"], nic["generation"]) == ("CLAIM_SOURCE_NODE", "1")
    device = one_device(nic)
    assert device["network_data"]["interface_name"] == "net1"
    assert device["conditions"][0] == {
        "type": "NetworkReady",
        "status": "True",
        "reason": "LinkUp",
        "last_transition_time": "2026-11-30T08:00:01Z",
    }


def test_the_api_server_adds_what_a_file_lacks(node: DraNode, server: ClaimsServer) -> None:
    """A network driver's first generation names the device alone."""
    node.write_nic(device(DEVICE))
    server.put(NIC, DEVICE, devices=[status_of(DEVICE, networkData=NET1)])
    found = eventually(node, lambda found: "attributes" in one_device(found["claims"][0]))
    (nic,) = found["claims"]
    assert (nic["source"], nic["generation"]) == ("CLAIM_SOURCE_NODE", "1")
    known = one_device(nic)
    assert known["attributes"][ATTRIBUTE] == {"string_value": VF}
    assert known["pci"]["driver"] == "iavf"
    assert known["network_data"]["interface_name"] == "net1"


def test_a_file_of_another_uid_is_no_answer(node: DraNode, server: ClaimsServer) -> None:
    node.write_nic()
    server.put(NIC, DEVICE, uid=OTHER_UID)
    found = eventually(node, lambda found: "error" in found["claims"][0])
    (nic,) = found["claims"]
    assert nic["error"]["reason"] == "DEVICE_METADATA_CONTRADICTS"
    assert OTHER_UID in nic["error"]["message"] and "devices" not in nic


def test_a_container_sees_its_own_requests_alone(node: DraNode, server: ClaimsServer) -> None:
    results = [
        {"request": request, "driver": DRIVER, "pool": "node-1", "device": device}
        for request, device in (("vf", DEVICE), ("other", OTHER))
    ]
    server.put(NIC, DEVICE, allocation={"devices": {"results": results}})
    whole = eventually(node, lambda found: len(found["claims"]) == 3, "whole")
    assert [one["request"] for one in whole["claims"] if one["pod_claim"] == "nic"] == [
        "other",
        "vf",
    ]
    assert [one["request"] for one in answer(node)["claims"]] == ["vf"]


def test_a_network_that_is_not_ready_is_shown(node: DraNode, server: ClaimsServer) -> None:
    node.write_nic(vf(VFIO_VF))
    down = condition("False")
    server.put(NIC, OTHER, devices=[status_of(OTHER, conditions=[down])])
    eventually(node, lambda found: "conditions" in one_device(found["claims"][0]))
    (nic,) = netutil(node.containers["app"], "devices")["claims"]
    (shown,) = nic["devices"][0]["conditions"]
    assert (shown["type"], shown["status"], shown["reason"]) == (
        "NetworkReady",
        "False",
        "LinkDown",
    )
    done = node.containers["app"].run([sys.executable, "-m", "netutil.client", "devices"])
    assert b"CONDITIONS" in done.stdout and b"LinkDown" in done.stdout
    done = node.containers["app"].run([sys.executable, "-c", DPDK])
    assert done.returncode == 0, done.stderr
    words, warnings = json.loads(done.stdout)
    assert ["-a", VFIO_VF] in words
    assert any(
        "its driver reports that it is not NetworkReady: LinkDown" in one for one in warnings
    )


def test_a_condition_is_a_change_for_a_watcher(node: DraNode, server: ClaimsServer) -> None:
    node.write_nic()
    server.put(NIC, DEVICE, devices=[status_of(DEVICE, conditions=[condition("False")])])
    eventually(node, lambda found: "conditions" in one_device(found["claims"][0]))
    with watching(node.containers["app"]) as watcher:
        watcher.next()
        watcher.settle()
        server.put(NIC, DEVICE, devices=[status_of(DEVICE, conditions=[condition("True")])])

        def is_ready(line: Any) -> bool:
            device = one_device(line["snapshot"]["resources"]["claims"][0])
            return bool(device["conditions"][0]["status"] == "True")

        changed = watcher.until(is_ready)
        assert "resources" in changed["changed"]


def test_a_lost_api_server_takes_nothing_away(node: DraNode, server: ClaimsServer) -> None:
    node.write_nic()
    server.put(NIC, DEVICE, devices=[status_of(DEVICE, conditions=[condition("False")])])
    eventually(node, lambda found: "conditions" in one_device(found["claims"][0]))
    server.stop()
    found = eventually(node, lambda found: reason(found) != "")
    assert reason(found) == "RESOURCE_CLAIMS_UNAVAILABLE"
    (nic,) = found["claims"]
    assert "error" not in nic and one_device(nic)["conditions"][0]["status"] == "False"
    assert "claims_error" not in answer(node, "plain")
    # A file of a claim that the lost server knew otherwise is as good as without the server.
    body = both(vf(VF), claim=NIC, pod_claim="nic", uid=OTHER_UID)
    node.tree.write(body, claim=NIC, request="vf")
    # The kubelet says nothing of this container's claims.
    _, nic = answer(node, "whole")["claims"]
    assert nic["pod_claim"] == "nic"
    assert "error" not in nic and "conditions" not in one_device(nic)


def test_a_refused_right_is_reported_beside_the_files(server: ClaimsServer) -> None:
    text = 'resourceclaims.resource.k8s.io is forbidden: User "agent" cannot list'
    server.claims.lists += [refusing(403, "Forbidden", text)] * 100
    with dra_node(*server.flags) as node:
        node.write_nic()
        found = eventually(node, lambda found: "forbidden" in str(found.get("claims_error")))
        assert reason(found) == "RESOURCE_CLAIMS_UNAVAILABLE"
        assert one_device(found["claims"][0])["pci"]["driver"] == "iavf"
        check = checked(node)["ResourceClaims at the API server"]
        assert check.outcome == "warning" and "forbidden" in check.found
        assert "manifests/resource-claims" in check.remedy


def test_an_unreadable_claim_is_reported(node: DraNode, server: ClaimsServer) -> None:
    node.write_nic()
    server.put(NIC, DEVICE, devices="none")
    found = eventually(node, lambda found: reason(found) == "RESOURCE_CLAIMS_MALFORMED")
    assert one_device(found["claims"][0])["pci"]["driver"] == "iavf"


def test_a_missing_mount_leaves_the_api_server(node: DraNode, server: ClaimsServer) -> None:
    node.tree.plugins.rmdir()
    server.put(NIC, DEVICE)
    found = eventually(
        node,
        lambda found: (
            "devices" in found.get("claims", [{}])[0] and reason(found) == "FILE_NOT_READABLE"
        ),
    )
    assert found["claims"][0]["source"] == "CLAIM_SOURCE_API_SERVER"


def test_doctor_says_that_claims_are_followed(node: DraNode, server: ClaimsServer) -> None:
    server.put(NIC, DEVICE)
    eventually(node, lambda found: bool(found["claims"][0].get("devices")))
    address = f"unix:{node.lab.admin_socket}"
    with grpc.insecure_channel(address, [("grpc.default_authority", "localhost")]) as channel:
        stub = node_pb2_grpc.NodeStub(channel)
        pod = stub.DescribePod(node_pb2.DescribePodRequest(namespace="shop", name="web"))
    read = f"API server, devices of {DRIVER}, claim {NIC}, request vf"
    assert read in {source.read for one in pod.containers for source in one.sources}
    check = checked(node)["ResourceClaims at the API server"]
    assert check.outcome == "ok", check.found
    assert check.found.startswith("1 claim of this node from ") and "confirmed" in check.found


def checked(node: DraNode) -> dict[str, Any]:
    address = f"unix:{node.lab.admin_socket}"
    with grpc.insecure_channel(address, [("grpc.default_authority", "localhost")]) as channel:
        checks = node_pb2_grpc.NodeStub(channel).Diagnose(node_pb2.DiagnoseRequest()).checks
    return {one.name: one for one in checks}
