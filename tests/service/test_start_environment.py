"""The devices that a container was started with, asked by processes that lost the variables."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from netutil.podresources.v1 import podresources_pb2 as v1

from tests.facts.sriov_node import SECOND_VF, VF, VFIO_VF
from tests.lab import Lab
from tests.lab.observing import needs_lab
from tests.service.conftest import NETWORK_STATUS, ask, netutil
from tests.service.dpdk_node import VARIABLE, DpdkNode, dpdk_node

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("dpdk")]

UUID = "02bddbbf-bbb0-4d79-886b-91bad3fbb510"
AS_ANOTHER = """
import grpc, json, os
from google.protobuf import json_format
from netutil.v1alpha import netutil_pb2 as api, netutil_pb2_grpc
os.setresgid(1000, 1000, 1000)
os.setresuid(1000, 1000, 1000)
stub = netutil_pb2_grpc.NetUtilStub(grpc.insecure_channel("unix:/etc/netutil/net.sock"))
answer = stub.GetAll(api.AllRequest(), timeout=20)
print(json.dumps(json_format.MessageToDict(answer, preserving_proto_field_name=True)))
"""
"""The interpreter may be where only root comes."""
SU = {"PATH": "/usr/bin:/bin", "HOME": "/root"}
"""What `su -` leaves of an environment."""


@pytest.fixture(scope="module")
def node() -> Iterator[DpdkNode]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with dpdk_node() as node:
        yield node


def allocated(answer: Any) -> list[tuple[str, str, bool]]:
    return [
        (
            one["allocated"]["variable"],
            one["allocated"]["pci_address"],
            one["allocated"]["from_start"],
        )
        for one in answer["interfaces"]
        if one["allocated"]
    ]


def test_a_login_shell_is_told_the_devices_of_the_containers_start(node: DpdkNode) -> None:
    assert allocated(netutil(node.app, "interfaces")) == [(VARIABLE, VFIO_VF, False)]
    answer = netutil(node.app, "interfaces", env=SU)
    assert allocated(answer) == [(VARIABLE, VFIO_VF, True)]
    assert answer["start_error"] is None
    everything = netutil(node.app, "all", env=SU)
    assert allocated(everything["interfaces"]) == [(VARIABLE, VFIO_VF, True)]
    assert VARIABLE not in everything["env"]["envs"]


def test_its_line_is_the_one_of_the_container(node: DpdkNode) -> None:
    command = [sys.executable, "-m", "netutil.client", "dpdk"]
    own, shells = node.app.run(command), node.app.run(command, env=SU)
    assert own.returncode == shells.returncode == 0, shells.stderr
    assert shells.stdout == own.stdout


def test_another_user_is_told_that_the_start_is_not_for_it(node: DpdkNode) -> None:
    answer = ask(node.app, "-c", AS_ANOTHER, env=SU)
    assert all("allocated" not in one for one in answer["interfaces"]["interfaces"])
    assert answer["interfaces"]["start_error"]["reason"] == "ENVIRONMENT_NOT_READABLE"
    # PodResources name it all the same, and are the container's own.
    (function,) = answer["resources"]["pci"]
    assert (function["address"], function["driver"]) == (VFIO_VF, "vfio-pci")
    assert function["iommu_group"] == 32


def test_devices_that_the_node_lacks_are_told_as_such(node: DpdkNode) -> None:
    (pod,) = node.kubelet.pods
    pod.containers[0].devices.append(
        v1.ContainerDevices(resource_name="intel.com/gone", device_ids=["0000:ff:00.0", "tun"])
    )
    try:
        with_gone = netutil(node.app, "devices", "--timeout", "40")
        while not with_gone["absent_pci"]:
            with_gone = netutil(node.app, "devices", "--timeout", "40")
        assert with_gone["absent_pci"] == ["0000:ff:00.0"] and with_gone["pci_error"] is None
    finally:
        del pod.containers[0].devices[-1]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def started(lab: Lab) -> None:
    lab.agent("--pod-resources=/nonexistent/kubelet.sock")


def test_in_a_shared_pid_namespace_each_container_has_its_own_start(lab: Lab) -> None:
    pod = lab.pod("shared", share_process_namespace=True)
    one = pod.container("one", env={**SU, "PCIDEVICE_A": VF})
    two = pod.container("two", env={**SU, "PCIDEVICE_B": SECOND_VF, "QAT0": VFIO_VF})
    lab.write_pod_list()
    started(lab)
    assert allocated(netutil(one, "interfaces", env=SU)) == [("PCIDEVICE_A", VF, True)]
    assert allocated(netutil(two, "interfaces", env=SU)) == [
        ("PCIDEVICE_B", SECOND_VF, True),
        ("QAT0", VFIO_VF, True),
    ]


def test_a_process_that_is_number_one_of_its_own_namespace_is_not_the_first(lab: Lab) -> None:
    app = lab.pod("web").container("app", env={**SU, "PCIDEVICE_A": VF})
    lab.write_pod_list()
    started(lab)
    script = 'exec unshare --pid --fork "$0" -m netutil.client interfaces -o json'
    done = app.run(["sh", "-c", script, sys.executable], env=SU)
    assert done.returncode == 0, done.stderr
    assert allocated(json.loads(done.stdout)) == [("PCIDEVICE_A", VF, True)]


def test_a_crypto_function_is_not_paired_with_a_network(lab: Lab) -> None:
    default = {"name": "cbr0", "interface": "eth0", "default": True}
    networks = [default, {"name": "shop/fast", "interface": "net1"}]
    pod = lab.pod("web", annotations={NETWORK_STATUS: json.dumps(networks)})
    app = pod.container("app", env={**SU, "QAT0": VFIO_VF})
    lab.write_pod_list()
    started(lab)
    *_, last = netutil(app, "interfaces")["interfaces"]
    assert (last["name"], last["network"], last["allocated"]["variable"]) == ("", None, "QAT0")


def test_variables_of_the_qat_plugin_that_hold_no_address_are_told_with_their_problem(
    lab: Lab,
) -> None:
    env = {**SU, "PCIDEVICE_A": "zz", "QAT0": "0000:b0:00.0x", "QAT1": "zz", "QAT2": VFIO_VF}
    app = lab.pod("web").container("app", env=env)
    lab.write_pod_list()
    started(lab)
    told = [one["allocated"] for one in netutil(app, "interfaces")["interfaces"]]
    assert [(one["variable"], one["name"], one["problem"]) for one in filter(None, told)] == [
        ("PCIDEVICE_A", "zz", "is no PCI address"),
        ("QAT0", "0000:b0:00.0x", "is no PCI address"),
        ("QAT1", "zz", "is no PCI address"),
        ("QAT2", VFIO_VF, ""),
    ]


def test_a_token_is_in_no_log_and_no_metric(lab: Lab) -> None:
    info = {VF: {"extra": {"VFIO_TOKEN": UUID}}}
    env = {**SU, "PCIDEVICE_A": VF, "PCIDEVICE_A_INFO": json.dumps(info)}
    app = lab.pod("web").container("app", env=env)
    lab.write_pod_list()
    agent = lab.agent("--pod-resources=/nonexistent/kubelet.sock", "--log-level=debug")
    assert UUID in json.dumps(netutil(app, "interfaces", env=SU))
    assert UUID in json.dumps(netutil(app, "all", env=SU))
    refused = ask(app, "-c", AS_ANOTHER, env=SU)["interfaces"]
    assert refused["start_error"]["reason"] == "ENVIRONMENT_NOT_READABLE"
    assert UUID not in json.dumps(refused)
    assert UUID not in agent.stderr_text()
    with urllib.request.urlopen(f"{agent.metrics_url}/metrics", timeout=10) as metrics:
        assert UUID not in metrics.read().decode()
