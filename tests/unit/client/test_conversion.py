from __future__ import annotations

import dataclasses
from datetime import UTC
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.struct_pb2 import Value
from netutil.client import (
    CPU,
    DNS,
    All,
    AttributeType,
    CgroupLevel,
    ClaimDevice,
    ClaimSource,
    CpusetPartition,
    DeviceAttribute,
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
from netutil.client.models import core, devices, node, observation, processes
from netutil.client.rpc.convert import attribute, plain, result
from netutil.v1alpha import netutil_pb2, node_pb2

from tests.support.answers import core as answers
from tests.support.answers import devices as device_answers

PCI_BUS_ID, NUMA_NODE = device_answers.PCI_BUS_ID, "resource.kubernetes.io/numaNode"
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
    "ListProcessesResponse": "ProcessesPart",
}
"""The results that do not have the name of their message."""
MESSAGES = [
    message
    for file in (netutil_pb2.DESCRIPTOR, node_pb2.DESCRIPTOR)
    for message in file.message_types_by_name.values()
    if not message.name.endswith("Request") or message.name == "ClaimRequest"
]
OTHER_FIELDS = {"DeviceAttribute": {"type", "value"}}
"""By result: the fields that are not those of the message."""


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.name)
def test_no_field_of_the_api_is_dropped(message: Descriptor) -> None:
    name = NAMES.get(message.name, message.name)
    modules = (core, devices, observation, node, processes)
    (kind,) = {getattr(one, name) for one in modules if hasattr(one, name)}
    fields = {one.metadata.get(core.MESSAGE_FIELD, one.name) for one in dataclasses.fields(kind)}
    assert fields == OTHER_FIELDS.get(name, set(message.fields_by_name))


def test_every_type_of_attribute_has_its_python_value() -> None:
    (request,) = result(Resources, device_answers.resources()).claims or ()
    assert request.devices is not None
    (device,) = request.devices
    assert list(device.attributes) == sorted(device.attributes)
    assert device.attributes == {
        "resource.kubernetes.io/pciBusID": DeviceAttribute(AttributeType.STRING, "0000:3b:02.5"),
        "numaNode": DeviceAttribute(AttributeType.INT, 0),
        "rdma": DeviceAttribute(AttributeType.BOOL, False),
        "firmware": DeviceAttribute(AttributeType.VERSION, "1.2.3"),
        "resource.kubernetes.io/numaNode": DeviceAttribute(AttributeType.INTS, (0, 1)),
        "flags": DeviceAttribute(AttributeType.BOOLS, (True, False)),
        "ports": DeviceAttribute(AttributeType.STRINGS, ("a", "b")),
        "versions": DeviceAttribute(AttributeType.VERSIONS, ("1.0.0",)),
    }
    types = {
        field.removesuffix("s") for field in netutil_pb2.DeviceAttribute.DESCRIPTOR.fields_by_name
    }
    assert types == {
        f"{one.value.removesuffix('s')}_value"
        for one in AttributeType
        if one.value != "unspecified"
    }


def test_an_attribute_of_an_unknown_type_has_no_value() -> None:
    newer = netutil_pb2.DeviceAttribute.FromString(b"\x7a\x01x")  # field 15, a string
    assert attribute(newer) == DeviceAttribute(AttributeType.UNSPECIFIED, None)


def test_devices_of_a_claim_that_are_not_known_are_none() -> None:
    unread = device_answers.claim_request(error=device_answers.part_error("claims"))
    unsaid = device_answers.claim_request(source=netutil_pb2.CLAIM_SOURCE_UNSPECIFIED)
    empty = device_answers.claim_request()
    response = netutil_pb2.ResourceResponse(claims=[unread, unsaid, empty])
    found = result(Resources, response).claims or ()
    assert [one.devices for one in found] == [None, (), ()]
    assert [one.is_known for one in found] == [False, False, True]
    newer = device_answers.claim_request(device_answers.claim_device(), source=99)
    (found_newer,) = result(Resources, netutil_pb2.ResourceResponse(claims=[newer])).claims or ()
    assert (found_newer.source, found_newer.is_known) == (ClaimSource.UNSPECIFIED, True)


def test_claims_that_are_not_known_are_none() -> None:
    response = netutil_pb2.ResourceResponse()
    assert result(Resources, response).claims == ()
    response.claims_error.CopyFrom(device_answers.part_error("claims"))
    assert result(Resources, response).claims is None


@pytest.mark.parametrize(
    ("attributes", "address", "nodes"),
    [
        ({}, "", ()),
        ({"pciBusID": {"string_value": "0000:3b:02.5"}}, "", ()),
        ({PCI_BUS_ID: {"string_value": "0000:3B:02.5"}}, "0000:3b:02.5", ()),
        ({PCI_BUS_ID: {"string_value": "0:3b:02.5"}}, "0000:3b:02.5", ()),
        ({PCI_BUS_ID: {"string_value": "10000:3b:02.5"}}, "10000:3b:02.5", ()),
        ({PCI_BUS_ID: {"string_value": "3B:02.5"}}, "3b:02.5", ()),
        ({PCI_BUS_ID: {"int_value": 7}, NUMA_NODE: {"int_value": 1}}, "7", (1,)),
        ({PCI_BUS_ID: {}, NUMA_NODE: {"int_values": [1, 0, -1]}}, "", (1, 0)),
        ({NUMA_NODE: {"string_value": "1"}}, "", ()),
    ],
)
def test_standard_attributes_say_address_and_numa_node(
    attributes: dict[str, Any], address: str, nodes: tuple[int, ...]
) -> None:
    values = {name: netutil_pb2.DeviceAttribute(**one) for name, one in attributes.items()}
    device = result(ClaimDevice, netutil_pb2.ClaimDevice(attributes=values))
    assert (device.pci_bus_id, device.numa_nodes) == (address, nodes)
    nearer = netutil_pb2.ClaimDevice(attributes=values, pci=netutil_pb2.PCIInfo(numa_node=3))
    assert result(ClaimDevice, nearer).numa_nodes == (3,)


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
