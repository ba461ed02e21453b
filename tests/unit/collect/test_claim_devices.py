"""Collecting the claims of a container: what is read, and what is an error instead."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from netutil.agent.collect.claim_devices import ClaimDevices
from netutil.agent.collect.claim_sources import ClaimSources
from netutil.agent.collect.pci_cache import PciCache
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.collect.results import GivenDevices
from netutil.agent.errors import Reason, Unavailable
from netutil.agent.facts.claims import MAX_CLAIM_DEVICES, NO_CLAIMS
from netutil.agent.facts.device_metadata import DeviceMetadataFiles
from netutil.agent.kubelet.podresources.model import (
    ClaimResource,
    ContainerResources,
    DynamicResource,
)
from netutil.agent.messages import encode
from netutil.agent.parsers.claims import ClaimDevice, ClaimRequest, ClaimSource
from netutil.agent.parsers.device_metadata import MAX_DEVICES
from netutil.agent.pods.claims_api import ClaimAnswer, ClaimsApi
from netutil.agent.pods.index import Match
from netutil.agent.pods.sources.claims_model import Consumer

from tests.support.device_metadata import DRIVER, both, device, vf
from tests.support.nodes.dra_tree import DraTree, settle
from tests.support.nodes.sriov_node import VF, build_sriov_node
from tests.unit.pods.test_claims import MADE, POD, changed, pod_of
from tests.unit.pods.test_newer_kubelets import NOW

RESERVED = (Consumer("pods", "web", "u"),)


class NoReads(ReadPool):
    """Fails for each read."""

    async def run(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("nothing is to be read")


class Node:
    def __init__(self, path: Path) -> None:
        self.tree = DraTree(path / "kubelet")
        self.files = DeviceMetadataFiles(str(self.tree.plugins))
        self.pci = PciCache(build_sriov_node(path / "node"))
        self.devices = ClaimDevices(ClaimSources(self.files), ReadPool(threads=2), self.pci)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def match(container: str = "app", pod: Any = None, **more: Any) -> Match:
    return Match(pod or pod_of(POD), container, "container", NOW, **more)


async def test_a_pod_without_claims_causes_no_read(node: Node) -> None:
    plain = pod_of({"metadata": {"name": "a", "uid": "b"}, "spec": {"containers": [{"name": "c"}]}})
    devices = ClaimDevices(ClaimSources(node.files), NoReads(), node.pci)
    assert await devices.read("key", match("c", plain), "") is NO_CLAIMS
    assert await devices.read("key", match("other"), "") is NO_CLAIMS
    assert devices.watched(match("c", plain)) is None
    assert devices.watched(None) is None
    assert await devices.signatures(()) == {}


async def test_a_device_has_its_function_of_the_host(node: Node) -> None:
    node.tree.write(both(vf(VF), claim=MADE), claim=MADE)
    (request,) = (await node.devices.read("key", match(), "")).requests
    (found,) = request.devices
    assert found.pci is not None and found.pci.driver == "iavf"
    assert (request.source, request.driver) == (ClaimSource.NODE, DRIVER)


async def test_a_function_that_the_host_lacks_is_absent(node: Node) -> None:
    node.tree.write(both(vf("0000:99:00.0"), claim=MADE), claim=MADE)
    found = await node.devices.read("key", match(), "")
    assert found.requests[0].devices[0].pci is None and found.pci_error is None


async def test_an_unreadable_function_is_an_error(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.tree.write(both(vf(VF), claim=MADE), claim=MADE)

    def look(_: str) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(node.pci, "look", look)
    found = await node.devices.read("key", match(), "")
    assert found.pci_error is not None
    assert found.pci_error.reason is Reason.FILE_NOT_READABLE
    assert found.requests[0].devices[0].pci_address == VF


async def test_a_claim_that_is_not_made_yet_has_no_devices(node: Node) -> None:
    (request,) = (await node.devices.read("key", match("init"), "")).requests
    assert (request.pod_claim, request.claim_name, request.error) == ("spare", "", None)
    assert request.source is ClaimSource.NONE
    assert node.devices.watched(match("init")) is None


async def test_an_extended_resource_has_its_request(node: Node) -> None:
    claim, request = "web-extended-resources-abcde", "container-0-request-0"
    body = both(device(), claim=claim, request=request, pod_claim=None)
    node.tree.write(body, claim=claim, request=request)
    (found,) = (await node.devices.read("key", match("plain"), "")).requests
    assert (found.extended_resource, found.pod_claim) == ("example.com/nic", "")
    assert len(found.devices) == 1


async def test_a_container_without_a_name_is_an_error(node: Node) -> None:
    found = await node.devices.read("key", match("", container_id="c" * 64), "")
    assert found.error is not None
    assert found.error.reason is Reason.CONTAINER_NOT_REPORTED
    odd = changed("spec", "nodeName", value=7)
    assert await node.devices.read("key", match("other", odd), "") is NO_CLAIMS


async def test_an_odd_pod_is_an_error(node: Node) -> None:
    odd = changed("status", "resourceClaimStatuses", value=7)
    found = await node.devices.read("key", match("app", odd), "")
    assert found.error is not None
    assert found.error.reason is Reason.RESOURCE_CLAIMS_MALFORMED
    assert node.devices.watched(match("app", odd)) is None


async def test_a_name_that_is_none_hides_no_other_claim(node: Node) -> None:
    named = [{"name": "nic", "resourceClaimName": MADE}, {"name": "gpu", "resourceClaimName": ".."}]
    node.tree.write(both(vf(VF), claim=MADE, request="vf"), claim=MADE)
    odd = changed("spec", "resourceClaims", value=named)
    gpu, nic = (await node.devices.read("key", match("train", odd), "")).requests
    assert gpu.error is not None
    assert gpu.error.reason is Reason.RESOURCE_CLAIMS_MALFORMED
    assert len(nic.devices) == 1


async def test_a_name_that_is_none_hides_no_other_watcher(node: Node) -> None:
    claims = [{"name": "nic", "resourceClaimName": "../../etc"}]
    odd = changed("spec", "resourceClaims", value=claims)
    node.tree.write(both(vf(VF), claim=MADE), claim=MADE)
    bad, good = node.devices.watched(match("app", odd)), node.devices.watched(match())
    assert bad is not None and good is not None
    seen = await node.devices.signatures([bad, good])
    assert seen[bad] == () and seen[good] != ()


async def test_off_is_an_error_for_claims_alone(node: Node) -> None:
    devices = ClaimDevices(ClaimSources(), NoReads(), node.pci)
    found = await devices.read("key", match(), "")
    assert found.error is not None
    assert found.error.reason is Reason.RESOURCE_CLAIMS_OFF
    assert await devices.read("key", match("other"), "") is NO_CLAIMS
    assert devices.watched(match()) is None


async def test_devices_beyond_the_limit_are_an_error(node: Node) -> None:
    drivers = [f"d{number}.example.com" for number in range(MAX_CLAIM_DEVICES // MAX_DEVICES + 1)]
    for driver in drivers:
        body = both(*[device(driver=driver)] * MAX_DEVICES, claim=MADE)
        node.tree.write_now(body, claim=MADE, driver=driver)
    settle(node.tree.path(claim=MADE, driver=drivers[-1]))
    found = await node.devices.read("key", match(), "")
    assert found.device_count == MAX_CLAIM_DEVICES
    errors = [one.error.reason for one in found.requests if one.error is not None]
    assert errors == [Reason.TOO_MANY_CLAIM_DEVICES]
    assert found.first_error is not None


async def test_the_same_files_are_an_equal_answer(node: Node) -> None:
    node.tree.write(both(vf(VF), claim=MADE), claim=MADE)
    first = await node.devices.read("key", match(), "")
    assert await node.devices.read("key", match(), "") == first
    node.tree.write(both(vf(VF), claim=MADE, generation=2), claim=MADE)
    assert await node.devices.read("key", match(), "") != first


class Down(ClaimsApi):
    """Has no list, and a new error for each answer, as a feed that fails again and again."""

    def __init__(self) -> None:
        self.why = "The API server does not answer."

    def answer(self, namespace: str, name: str) -> ClaimAnswer:
        raise Unavailable(Reason.POD_LIST_UNAVAILABLE, self.why, read="there")


async def test_an_error_that_stays_is_encoded_once(node: Node) -> None:
    node.tree.write(both(vf(VF), claim=MADE), claim=MADE)
    down = Down()
    devices = ClaimDevices(ClaimSources(node.files, down), ReadPool(threads=2), node.pci)
    resources = ContainerResources((), (), (), (), NOW)

    async def encoded() -> object:
        found = await devices.read("key", match(), "")
        assert found.error is not None and found.error.message == down.why
        return encode.resources(resources, GivenDevices(claims=found))

    first = await encoded()
    assert await encoded() is first
    down.why = "The API server refuses."
    second = await encoded()
    assert second is not first
    assert await encoded() is second


async def test_a_refused_claim_is_encoded_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.tree.write(both(vf(VF), claim=MADE), claim=MADE)
    uid = "0b1c2d3e-0000-4000-8000-000000000001"

    def answer(self: ClaimsApi, namespace: str, name: str) -> ClaimAnswer:
        return ClaimAnswer((), "", None, None, NOW, uid, (Consumer("pods", "web", "earlier"),))

    monkeypatch.setattr(ClaimsApi, "answer", answer)
    api = ClaimsApi.__new__(ClaimsApi)
    devices = ClaimDevices(ClaimSources(node.files, api), ReadPool(threads=2), node.pci)
    first = await devices.read("key", match(), "")
    (request,) = first.requests
    assert request.error is not None and request.devices == ()
    assert request.error.reason is Reason.RESOURCE_CLAIM_NOT_RESERVED
    assert (request.claim_uid, request.request) == (uid, "vf")
    assert await devices.read("key", match(), "") == first


async def test_a_device_that_was_not_prepared_is_an_error(node: Node) -> None:
    node.tree.write(both(vf(VF), claim=MADE), claim=MADE)
    other = ClaimResource((), DRIVER, "node-1", "another")
    dynamic = [DynamicResource(MADE, "shop", (other,))]
    (request,) = (await node.devices.read("key", match(), "", dynamic)).requests
    assert request.error is not None and request.devices == ()
    assert request.error.reason is Reason.DEVICE_METADATA_CONTRADICTS


async def test_devices_of_the_api_server_count_as_well(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.tree.write(both(vf(VF), claim=MADE), claim=MADE)
    api = ClaimsApi.__new__(ClaimsApi)
    devices = tuple(ClaimDevice("p", f"d{number}") for number in range(MAX_CLAIM_DEVICES))
    uid = "0b1c2d3e-0000-4000-8000-000000000001"
    reported = ClaimRequest(
        "",
        MADE,
        "shop",
        claim_uid=uid,
        request="vf",
        driver="other.example.com",
        source=ClaimSource.API_SERVER,
        devices=devices,
    )
    answered = [replace(reported, devices=devices[1:]), reported]

    def answer(self: ClaimsApi, namespace: str, name: str) -> ClaimAnswer:
        return ClaimAnswer((answered.pop(0),), "", None, None, NOW, uid, RESERVED)

    monkeypatch.setattr(ClaimsApi, "answer", answer)
    collected = ClaimDevices(ClaimSources(node.files, api), ReadPool(threads=2), node.pci)
    # One of the file and 255 of the API server, of which none is the file's.
    first = await collected.read("key", match(), "")
    assert (first.device_count, first.error) == (MAX_CLAIM_DEVICES, None)
    second = await collected.read("key", match(), "")
    assert second.error is not None and second.device_count == 1
    assert second.error.reason is Reason.TOO_MANY_CLAIM_DEVICES
