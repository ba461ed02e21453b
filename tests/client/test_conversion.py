from __future__ import annotations

import dataclasses
from datetime import UTC

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.struct_pb2 import Value
from netutil.client import (
    CPU,
    DNS,
    All,
    CgroupLevel,
    CpusetPartition,
    DeviceType,
    Hugepages,
    Interfaces,
    NetworkSource,
    NetworkStatus,
    NodeCPU,
    NodePods,
    PCIDevice,
    Pod,
    Resources,
)
from netutil.client.models import core, devices, node, observation
from netutil.client.rpc.convert import plain, result
from netutil.v1alpha import netutil_pb2, node_pb2

from tests.client import answers, device_answers

EXTENSIONS = {
    "example.com/flag": True,
    "example.com/list": [1, 0.5, {"none": None}],
    "example.com/text": "x",
}


def test_every_cpu_fact_arrives() -> None:
    cpu = result(CPU, answers.cpu())
    assert dataclasses.replace(cpu, cpus=None) == CPU(
        cpuset="0-3,8",
        effective_cpus="0-3",
        affinity="0-1",
        quota_cores=1.5,
        quota_microseconds=150000,
        period_microseconds=100000,
        shares=None,
        weight=100,
        cgroup_version=2,
        exclusive_cpus="2-3",
        cpuset_ids=(0, 1, 2, 3, 8),
        effective_cpu_ids=(0, 1, 2, 3),
        affinity_ids=(0, 1),
        exclusive_cpu_ids=(2, 3),
        quota_level=CgroupLevel.POD,
        container_quota_cores=2.0,
        container_quota_microseconds=200000,
        container_period_microseconds=100000,
        quota_unknown=False,
        cpuset_partition=CpusetPartition(
            state="isolated",
            invalid_reason="",
            level=CgroupLevel.CONTAINER,
            exclusive_cpus="2-3",
            requested_exclusive_cpus="2-3",
            cpu_exclusive=None,
        ),
    )
    assert cpu.cpus is not None
    assert cpu.cpus[2] == NodeCPU(
        id=2,
        core=1,
        socket=0,
        numa_node=0,
        siblings=(2, 3),
        online=True,
        isolated=True,
        nohz_full=True,
        exclusive=True,
    )
    assert cpu.cpus[4] == NodeCPU(8, None, None, None, (), *(False,) * 4)


def test_a_field_that_the_agent_left_out_is_none() -> None:
    cpu = result(CPU, netutil_pb2.CPUResponse())
    assert (cpu.affinity, cpu.quota_cores, cpu.shares, cpu.weight) == (None, None, None, None)
    assert result(Pod, netutil_pb2.PodResponse()).observed_at is None
    empty = netutil_pb2.NetworkStatusResponse(status=[netutil_pb2.NetworkStatus()])
    (network,) = result(NetworkStatus, empty).status
    assert (network.mtu, network.dns, network.device_info) == (None, None, None)


def test_a_list_that_was_not_requested_is_none_and_not_empty() -> None:
    asked = netutil_pb2.CPUResponse(cpuset="0-3", exclusive_cpus="")
    cpu = result(CPU, asked)
    assert (cpu.exclusive_cpus, cpu.exclusive_cpu_ids) == ("", ())
    not_asked = result(CPU, netutil_pb2.CPUResponse(cpuset="0-3", cpuset_ids=[0, 1, 2, 3]))
    assert (not_asked.exclusive_cpus, not_asked.exclusive_cpu_ids) == (None, None)
    assert (not_asked.cpus, not_asked.cpuset_ids) == (None, (0, 1, 2, 3))
    assert (not_asked.affinity, not_asked.affinity_ids) == (None, None)


def test_huge_pages_of_a_spec_that_is_not_known_are_none() -> None:
    response = netutil_pb2.HugepagesResponse()
    assert result(Hugepages, response).containers == ()
    response.spec_error.CopyFrom(device_answers.part_error("containers"))
    assert result(Hugepages, response).containers is None


def test_a_time_is_aware_and_exact_to_the_microsecond() -> None:
    observed_at = result(Pod, answers.pod()).observed_at
    assert observed_at == answers.OBSERVED_AT
    assert observed_at is not None and observed_at.tzinfo is UTC


def test_a_network_keeps_dns_device_and_extensions() -> None:
    network = result(NetworkStatus, answers.network_status()).status[1]
    assert network.ips == ("192.0.2.10/24", "2001:db8::10")
    assert network.mtu == 9000
    assert network.dns == DNS(("192.0.2.53",), "example", ("a.example",), ("ndots:2",))
    assert network.extensions == EXTENSIONS
    assert network.device_info is not None
    assert network.device_info.pci == PCIDevice(
        pci_address="0000:03:02.3",
        vhost_net="",
        rdma_device="",
        pf_pci_address="0000:03:00.0",
        representor_device="",
        extensions=EXTENSIONS,
    )


def test_every_kind_of_device_is_carried() -> None:
    device = netutil_pb2.DeviceInfo(
        vdpa=netutil_pb2.VDPADevice(driver="vhost", path="/dev/vhost-vdpa-0"),
        vhost_user=netutil_pb2.VhostUserDevice(mode="server", path="/run/vhost.sock"),
        memif=netutil_pb2.MemifDevice(role="master", mode="ip"),
    )
    status = [netutil_pb2.NetworkStatus(device_info=device)]
    info = (
        result(NetworkStatus, netutil_pb2.NetworkStatusResponse(status=status))
        .status[0]
        .device_info
    )
    assert info is not None and info.pci is None
    assert info.vdpa is not None and info.vdpa.path == "/dev/vhost-vdpa-0"
    assert info.vhost_user is not None and info.vhost_user.mode == "server"
    assert info.memif is not None and (info.memif.role, info.memif.mode) == ("master", "ip")


NAMES = {
    "CPUResponse": "CPU",
    "CPU": "NodeCPU",
    "EnvResponse": "Environment",
    "NetworkStatusResponse": "NetworkStatus",
    "NetworkStatus": "Network",
    "PodResponse": "Pod",
    "ResourceResponse": "Resources",
    "InterfacesResponse": "Interfaces",
    "HugepagesResponse": "Hugepages",
    "AllResponse": "All",
    "ListPodsResponse": "NodePods",
    "WatchResponse": "Observation",
    "DescribePodResponse": "DescribedPod",
    "DescribeNodeResponse": "DescribedNode",
    "GetActivityResponse": "Activity",
    "TraceResponse": "Traced",
    "ExplainResponse": "Explanation",
    "DiagnoseResponse": "Diagnosis",
}
"""The results that do not have the name of their message."""
MESSAGES = [
    message
    for file in (netutil_pb2.DESCRIPTOR, node_pb2.DESCRIPTOR)
    for message in file.message_types_by_name.values()
    if not message.name.endswith("Request")
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_no_field_of_the_api_is_dropped(message: Descriptor) -> None:
    name = NAMES.get(message.name, message.name)
    modules = (core, devices, observation, node)
    (kind,) = {getattr(one, name) for one in modules if hasattr(one, name)}
    fields = {one.metadata.get(core.MESSAGE_FIELD, one.name) for one in dataclasses.fields(kind)}
    assert fields == set(message.fields_by_name)


@pytest.mark.parametrize("name", sorted(netutil_pb2.DeviceType.keys()))
def test_every_type_of_device_has_its_word(name: str) -> None:
    interface = netutil_pb2.Interface(device_type=netutil_pb2.DeviceType.Value(name))
    response = netutil_pb2.InterfacesResponse(interfaces=[interface])
    word = name.removeprefix("DEVICE_TYPE_").lower().replace("_", "-")
    assert result(Interfaces, response).interfaces[0].device_type == DeviceType(word)


def test_all_answers_arrive_in_one() -> None:
    everything = result(All, device_answers.everything())
    assert everything.pod == result(Pod, answers.pod())
    assert everything.cpu == result(CPU, answers.cpu())
    assert everything.resources == result(Resources, device_answers.resources())
    assert everything.errors == ()
    assert everything.interfaces is not None
    veth, function = everything.interfaces.interfaces
    assert veth.link is not None and veth.link.counters is not None
    assert (veth.link.addresses[0].address, veth.link.vlan_id) == ("10.244.0.5/24", None)
    assert (veth.pci, veth.allocated, function.link) == (None, None, None)
    assert function.allocated is not None
    assert function.allocated.info == {"generic": {"deviceID": "0000:3b:02.1"}}
    assert everything.resources is not None
    assert everything.resources.devices[0].numa_nodes == (0,)


def test_a_part_that_failed_is_none_beside_its_error() -> None:
    response = netutil_pb2.AllResponse(errors=[device_answers.part_error("resources")])
    everything = result(All, response)
    assert (everything.resources, everything.pod) == (None, None)
    assert everything.errors[0].part == "resources"
    assert everything.errors[0].reason == "POD_RESOURCES_UNAVAILABLE"


@pytest.mark.parametrize(
    ("number", "source"),
    [
        (1, NetworkSource.NETWORK_STATUS),
        (2, NetworkSource.NETWORKS_STATUS),
        (3, NetworkSource.POD_STATUS),
        (0, NetworkSource.UNSPECIFIED),
        (99, NetworkSource.UNSPECIFIED),
    ],
)
def test_a_source_of_a_newer_agent_is_no_failure(number: int, source: NetworkSource) -> None:
    response = netutil_pb2.NetworkStatusResponse.FromString(bytes([0x10, number]))
    assert result(NetworkStatus, response).source is source


@pytest.mark.parametrize(
    ("number", "expected"),
    [(1.0, 1), (-0.5, -0.5), (2.0**53, 2**53), (1e300, 1e300), (float("nan"), None)],
)
def test_a_number_is_what_json_would_have(number: float, expected: float | None) -> None:
    found = plain(Value(number_value=number))
    assert found == expected and type(found) is type(expected)


def test_the_pods_of_a_node_arrive_whole() -> None:
    node = result(NodePods, answers.node_pods())
    web, broken = node.pods
    assert [container.name for container in web.containers] == ["app", "side", "setup"]
    assert web.last_error_at == node.observed_at == answers.OBSERVED_AT
    assert web.networks == ("eth0", "net1")
    assert (broken.networks, broken.networks_error) == (None, "no JSON at 7")
    assert broken.last_error_at is None
