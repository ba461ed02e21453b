"""A file of the node that is there and cannot be read takes away what it says, and nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from netutil.agent.collect.live_networks import PciDevices, only
from netutil.agent.collect.pci_cache import PciCache
from netutil.agent.errors import AgentError, NotFound, Reason, Unavailable
from netutil.agent.facts.interfaces import DeviceType, Interface
from netutil.agent.facts.links import Link
from netutil.client import NodeClient
from netutil.client.cli.exit_codes import Exit
from netutil.client.rpc import requests

from tests.support.lab.confined import CONFINED
from tests.support.lab.observing import needs_lab
from tests.support.nodes.agent_node import netutil
from tests.support.nodes.dpdk_node import DpdkNode, dpdk_node
from tests.support.nodes.sriov_node import PF, VFIO_VF, build_sriov_node

VENDOR = f"sys/bus/pci/devices/{VFIO_VF}/vendor"
POOL = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"


def spoil(path: Path) -> None:
    """Make a file that even root cannot read: read(2) of a directory is EISDIR."""
    path = path.resolve()
    path.unlink()
    path.mkdir()


def test_a_device_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    root = build_sriov_node(tmp_path)
    spoil(tmp_path / VENDOR)
    devices = PciDevices(PciCache(root))
    assert devices.look(PF) is not None and devices.error is None
    with pytest.raises(IsADirectoryError):
        devices.look(VFIO_VF)
    assert devices.error is not None
    assert devices.error.reason is Reason.FILE_NOT_READABLE
    assert VFIO_VF in devices.error.message and VFIO_VF in devices.error.read
    assert devices.look("0000:99:00.0") is None


def interface(name: str) -> Interface:
    return Interface(name=name, device_type=DeviceType.HOST, link=Link(1, name))


@pytest.mark.parametrize("unknown", [0, 1])
def test_an_interface_that_may_be_hidden_is_not_called_missing(unknown: int) -> None:
    hidden: list[AgentError | None] = [None, None]
    hidden[unknown] = Unavailable(Reason.READ_TIMED_OUT, "It took too long.")
    assert only("eth0", (interface("eth0"),), *hidden)
    with pytest.raises(Unavailable):
        only("net1", (interface("eth0"),), *hidden)
    with pytest.raises(NotFound):
        only("net1", (interface("eth0"),), None, None)
    with pytest.raises(NotFound, match="node's own network, whose links are not listed"):
        only("net1", (interface(""),), None, host_network=True)


@pytest.fixture(scope="module")
def node() -> Iterator[DpdkNode]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with dpdk_node() as node:
        for name in (VENDOR, POOL):
            spoil(node.lab.directory / "node" / name)
        yield node


def named(answer: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one for one in answer["interfaces"]}


@pytest.mark.root
@needs_lab
@pytest.mark.xdist_group("unreadable")
def test_a_pod_gets_its_links_and_networks_beside_the_device(node: DpdkNode) -> None:
    answer = netutil(node.app, "interfaces")
    assert answer["pci_error"]["reason"] == "FILE_NOT_READABLE"
    found = named(answer)
    assert (found["eth0"]["link"] is None) is CONFINED
    assert found["net1"]["pci"] is None and found["net1"]["drift"] == []
    assert found["net1"]["device_source"] == "device-info"
    refused = node.app.run([sys.executable, "-m", "netutil.client", "dpdk"])
    assert refused.returncode == Exit.UNAVAILABLE and refused.stdout == b""


@pytest.mark.root
@needs_lab
@pytest.mark.xdist_group("unreadable")
def test_a_part_that_cannot_be_read_takes_no_other_away(node: DpdkNode) -> None:
    together = netutil(node.app, "all")
    assert [(one["part"], one["reason"]) for one in together["errors"]] == [
        ("hugepages", "FILE_NOT_READABLE")
    ]
    assert together["interfaces"]["interfaces"] and together["cpu"]["cpuset"]


@pytest.mark.root
@needs_lab
@pytest.mark.xdist_group("unreadable")
def test_an_operator_gets_the_node_beside_the_device(node: DpdkNode) -> None:
    with NodeClient(node.lab.admin_socket, timeout_seconds=20) as client:
        described = client.call(requests.described_node())
    assert [(one.part, one.reason) for one in described.errors] == [
        ("network_devices", "FILE_NOT_READABLE")
    ]
    assert described.cpus
