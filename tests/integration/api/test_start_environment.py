"""The devices that a container was started with, asked by processes that lost the variables."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import json_format
from netutil.client import All, FailedPrecondition
from netutil.client.dpdk.eal import command_line
from netutil.client.rpc.convert import result
from netutil.podresources.v1 import podresources_pb2 as v1
from netutil.v1alpha import netutil_pb2 as api

from tests.support.lab import Lab, LabContainer
from tests.support.lab.observing import needs_lab
from tests.support.nodes.agent_node import NETWORK_STATUS, ask, netutil
from tests.support.nodes.dpdk_node import VARIABLE, DpdkNode, dpdk_node
from tests.support.nodes.measures import metrics_text
from tests.support.nodes.sriov_node import SECOND_VF, VF, VFIO_VF

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


def test_a_login_shell_gets_the_devices_of_the_containers_start(node: DpdkNode) -> None:
    assert allocated(netutil(node.app, "interfaces")) == [(VARIABLE, VFIO_VF, False)]
    answer = netutil(node.app, "interfaces", env=SU)
    assert allocated(answer) == [(VARIABLE, VFIO_VF, True)]
    assert answer["start_error"] is None
    everything = netutil(node.app, "all", env=SU)
    assert allocated(everything["interfaces"]) == [(VARIABLE, VFIO_VF, True)]
    assert VARIABLE not in everything["environment"]["envs"]


def test_its_line_is_the_one_of_the_container(node: DpdkNode) -> None:
    command = [sys.executable, "-m", "netutil.client", "dpdk"]
    own, shells = node.app.run(command), node.app.run(command, env=SU)
    assert own.returncode == shells.returncode == 0, shells.stderr
    assert shells.stdout == own.stdout


def test_another_user_is_refused_the_start(node: DpdkNode) -> None:
    answer = ask(node.app, "-c", AS_ANOTHER, env=SU)
    assert all("allocated" not in one for one in answer["interfaces"]["interfaces"])
    assert answer["interfaces"]["start_error"]["reason"] == "ENVIRONMENT_NOT_READABLE"
    # PodResources name it all the same, and are the container's own.
    (function,) = answer["resources"]["pci"]
    assert (function["address"], function["driver"]) == (VFIO_VF, "vfio-pci")
    assert function["iommu_group"] == 32


def test_devices_that_the_node_lacks_are_marked(node: DpdkNode) -> None:
    (pod,) = node.kubelet.pods
    pod.containers[0].devices.append(
        v1.ContainerDevices(resource_name="intel.com/absent", device_ids=["0000:ff:00.0", "tun"])
    )
    try:
        answer = netutil(node.app, "devices", "--timeout", "40")
        while not answer["absent_pci"]:
            answer = netutil(node.app, "devices", "--timeout", "40")
        assert answer["absent_pci"] == ["0000:ff:00.0"] and answer["pci_error"] is None
    finally:
        del pod.containers[0].devices[-1]


def started(lab: Lab) -> None:
    lab.agent("--pod-resources=/nonexistent/kubelet.sock")


def test_each_container_of_a_shared_pid_namespace_has_its_start(lab: Lab) -> None:
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


def test_pid_1_of_a_nested_namespace_is_not_the_first_process(lab: Lab) -> None:
    app = lab.pod("web").container("app", env={**SU, "PCIDEVICE_A": VF})
    lab.write_pod_list()
    started(lab)
    script = 'exec unshare --pid --fork "$0" -m netutil.client interfaces -o json'
    done = app.run(["sh", "-c", script, sys.executable], env=SU)
    assert done.returncode == 0, done.stderr
    assert allocated(json.loads(done.stdout)) == [("PCIDEVICE_A", VF, True)]


def af_xdp(answer: Any) -> list[tuple[str, bool]]:
    return [(one["name"], one["from_start"]) for one in answer["af_xdp"]["devices"]]


LINKS = {**SU, "AFXDP_DEVICES": "ens1f0 ens1f1"}
DEFAULT = {"name": "cbr0", "interface": "eth0", "default": True}
MEMIF = {"type": "memif", "version": "1.1.0", "memif": {"role": "slave", "path": "/run/m.sock"}}


def test_a_login_shell_gets_the_af_xdp_devices_of_the_start(lab: Lab) -> None:
    app = lab.pod("web").container("app", env=LINKS)
    lab.write_pod_list()
    started(lab)
    assert af_xdp(netutil(app, "interfaces")) == [("ens1f0", False), ("ens1f1", False)]
    assert af_xdp(netutil(app, "interfaces", env=SU)) == [("ens1f0", True), ("ens1f1", True)]
    changed = {**SU, "AFXDP_DEVICES": "ens1f1"}
    everything = netutil(app, "all", env=changed)["interfaces"]
    assert af_xdp(everything) == [("ens1f1", False), ("ens1f0", True)]
    refused = ask(app, "-c", AS_ANOTHER, env=SU)["interfaces"]
    assert refused["start_error"]["reason"] == "ENVIRONMENT_NOT_READABLE"
    assert refused["af_xdp"] == {}


def test_a_container_without_af_xdp_devices_has_an_empty_list(lab: Lab) -> None:
    app = lab.pod("web").container("app", env=SU)
    lab.write_pod_list()
    started(lab)
    assert netutil(app, "interfaces")["af_xdp"] == {"devices": []}


def test_an_interface_has_only_its_own_af_xdp_device(lab: Lab) -> None:
    pod = lab.pod("web", annotations={NETWORK_STATUS: json.dumps([DEFAULT])})
    app = pod.container("app", env={**SU, "AFXDP_DEVICES": "eth0 ens1f1"})
    lab.write_pod_list()
    started(lab)
    assert af_xdp(netutil(app, "interfaces", "eth0", env=SU)) == [("eth0", True)]


def test_too_many_af_xdp_devices_are_an_error(lab: Lab) -> None:
    names = " ".join(f"eth{number}" for number in range(257))
    app = lab.pod("web").container("app", env={**SU, "AFXDP_DEVICES": names})
    lab.write_pod_list()
    started(lab)
    for env in (SU, {**SU, "AFXDP_DEVICES": names}):
        answer = netutil(app, "interfaces", env=env)
        assert answer["af_xdp"] is None
        error = answer["allocated_error"]
        assert (error["reason"], error["read"]) == ("TOO_MANY_DEVICES", "AFXDP_DEVICES")


def upf(lab: Lab) -> LabContainer:
    """A container with huge pages, a memif network, and an AF_XDP device in one variable."""
    networks = [DEFAULT, {"name": "telco/n6", "interface": "net2", "device-info": MEMIF}]
    pod = lab.pod("upf", annotations={NETWORK_STATUS: json.dumps(networks)})
    app = pod.container("app", env={**SU, "AFXDP_DEVICES": "eth0"})
    pages = {"hugepages-2Mi": "64Mi", "memory": "1Gi"}
    app.resources = {"requests": pages, "limits": pages}
    lab.write_pod_list()
    started(lab)
    return app


def test_a_login_shells_lost_af_xdp_devices_are_on_its_line(lab: Lab) -> None:
    app = upf(lab)
    script = 'exec "$0" -m netutil.client dpdk --explain --pid $$'
    done = app.run(["sh", "-c", script, sys.executable], env=SU)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert any(line.startswith("--vdev=net_memif0,") for line in lines)
    (shown,) = (line for line in lines if line.startswith("--vdev=net_af_xdp0,iface=eth0,"))
    assert shown.endswith("(AFXDP_DEVICES of the container's start)")


def test_a_caller_without_access_to_the_start_has_no_line(lab: Lab) -> None:
    answer = ask(upf(lab), "-c", AS_ANOTHER, env=SU)
    facts = result(All, json_format.ParseDict(answer, api.AllResponse()))
    with pytest.raises(FailedPrecondition) as caught:
        command_line(facts)
    assert caught.value.reason == "DEVICES_NOT_KNOWN"


def test_a_crypto_function_is_not_paired_with_a_network(lab: Lab) -> None:
    default = {"name": "cbr0", "interface": "eth0", "default": True}
    networks = [default, {"name": "shop/fast", "interface": "net1"}]
    pod = lab.pod("web", annotations={NETWORK_STATUS: json.dumps(networks)})
    app = pod.container("app", env={**SU, "QAT0": VFIO_VF})
    lab.write_pod_list()
    started(lab)
    *_, last = netutil(app, "interfaces")["interfaces"]
    assert (last["name"], last["network"], last["allocated"]["variable"]) == ("", None, "QAT0")


def test_qat_variables_without_an_address_have_a_problem(lab: Lab) -> None:
    env = {**SU, "PCIDEVICE_A": "zz", "QAT0": "0000:b0:00.0x", "QAT1": "zz", "QAT2": VFIO_VF}
    app = lab.pod("web").container("app", env=env)
    lab.write_pod_list()
    started(lab)
    devices = [one["allocated"] for one in netutil(app, "interfaces")["interfaces"]]
    assert [(one["variable"], one["name"], one["problem"]) for one in filter(None, devices)] == [
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
    assert UUID not in metrics_text(agent)
