"""The command and the Python client in a pod that has its devices by ResourceClaims."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.device_metadata import DRIVER, vf
from tests.support.lab.observing import needs_lab
from tests.support.nodes.agent_node import links_are_refused, netutil
from tests.support.nodes.dra_node import NIC, VF, VFIO_VF, DraNode, dra_node

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("service")]


@pytest.fixture
def node() -> Iterator[DraNode]:
    with dra_node() as node:
        yield node


def printed(node: DraNode, container: str, *argv: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "netutil.client", *argv]
    done = node.containers[container].run(command)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def refusal(node: DraNode, container: str) -> Any:
    code, out, err = printed(node, container, "dpdk", "-o", "json")
    assert (code != 0, out) == (True, "")
    return json.loads(err)["error"]


def test_the_command_shows_claims_of_its_own_container(node: DraNode) -> None:
    node.write_nic()
    node.write_gpu()
    (nic,) = netutil(node.containers["app"], "devices")["claims"]
    assert (nic["pod_claim"], nic["claim_name"], nic["source"]) == ("nic", NIC, "node")
    (device,) = nic["devices"]
    address = {"type": "string", "value": VF}
    assert device["attributes"]["resource.kubernetes.io/pciBusID"] == address
    assert device["pci"]["driver"] == "iavf"
    _, out, _ = printed(node, "whole", "devices")
    assert f"nic (shop/{NIC})" in out and "gpu (shop/" in out and f"{VF} iavf" in out
    assert netutil(node.containers["plain"], "devices")["claims"] == []
    if not links_are_refused(node.containers["app"]):
        _, out, _ = printed(node, "app", "interfaces")
        assert f"of request vf of claim nic, driver {DRIVER})" in out


def test_a_claimed_function_is_given_to_dpdk(node: DraNode) -> None:
    node.write_nic(vf(VFIO_VF))
    # Devices come before memory: the pod lacks nothing but huge pages.
    assert refusal(node, "app")["reason"] == "NO_HUGEPAGES"


@pytest.mark.parametrize("container", ["app", "whole"])
def test_unknown_claims_are_no_absent_device(node: DraNode, container: str) -> None:
    error = refusal(node, container)
    assert error["reason"] == "DEVICES_NOT_KNOWN"
    why = "claim nic only devices are given that a variable or a network names"
    assert why in error["message"]


def test_a_function_of_the_kernel_is_not_given_to_dpdk(node: DraNode) -> None:
    node.write_nic(vf(VF))
    error = refusal(node, "app")
    assert error["reason"] == "NO_DPDK_DEVICE" and "bound to iavf" in error["message"]


def test_metadata_that_cannot_be_read_makes_no_line(node: DraNode) -> None:
    node.tree.write(b"[]", claim=NIC)
    assert refusal(node, "app")["reason"] == "DEVICE_METADATA_MALFORMED"


def test_claims_that_are_off_are_their_own_error() -> None:
    with dra_node("--resource-claims=off") as node:
        assert refusal(node, "app")["reason"] == "RESOURCE_CLAIMS_OFF"
        assert refusal(node, "plain")["reason"] == "NO_DPDK_DEVICE"
