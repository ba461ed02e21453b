from __future__ import annotations

import dataclasses
from datetime import UTC

import pytest
from google.protobuf.struct_pb2 import Value
from netutil.client import CPU, DNS, NetworkSource, PCIDevice, conversion
from netutil.v1alpha import netutil_pb2, node_pb2

from tests.client import answers

EXTENSIONS = {
    "example.com/flag": True,
    "example.com/list": [1, 0.5, {"none": None}],
    "example.com/text": "x",
}


def test_every_cpu_fact_arrives() -> None:
    assert conversion.cpu(answers.cpu()) == CPU(
        cpuset="0-3,8",
        effective_cpus="0-3",
        affinity="0-1",
        quota_cores=1.5,
        quota_microseconds=150000,
        period_microseconds=100000,
        shares=None,
        weight=100,
        cgroup_version=2,
    )


def test_what_the_agent_left_out_is_none() -> None:
    cpu = conversion.cpu(netutil_pb2.CPUResponse())
    assert (cpu.affinity, cpu.quota_cores, cpu.shares, cpu.weight) == (None, None, None, None)
    assert conversion.pod(netutil_pb2.PodResponse()).observed_at is None
    empty = netutil_pb2.NetworkStatusResponse(status=[netutil_pb2.NetworkStatus()])
    (network,) = conversion.network_status(empty).status
    assert (network.mtu, network.dns, network.device_info) == (None, None, None)


def test_a_time_is_aware_and_exact_to_the_microsecond() -> None:
    observed_at = conversion.pod(answers.pod()).observed_at
    assert observed_at == answers.OBSERVED_AT
    assert observed_at is not None and observed_at.tzinfo is UTC


def test_a_network_keeps_dns_device_and_extensions() -> None:
    network = conversion.network_status(answers.network_status()).status[1]
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
        conversion.network_status(netutil_pb2.NetworkStatusResponse(status=status))
        .status[0]
        .device_info
    )
    assert info is not None and info.pci is None
    assert info.vdpa is not None and info.vdpa.path == "/dev/vhost-vdpa-0"
    assert info.vhost_user is not None and info.vhost_user.mode == "server"
    assert info.memif is not None and (info.memif.role, info.memif.mode) == ("master", "ip")


@pytest.mark.parametrize("message", ["NetworkStatus", "DeviceInfo", "PCIDevice", "VDPADevice"])
def test_no_field_of_the_api_is_dropped(message: str) -> None:
    from netutil.client import results

    kind = "Network" if message == "NetworkStatus" else message
    fields = {field.name for field in dataclasses.fields(getattr(results, kind))}
    assert fields == set(getattr(netutil_pb2, message).DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (netutil_pb2.CPUResponse, "CPU"),
        (netutil_pb2.EnvResponse, "Environment"),
        (netutil_pb2.NetworkStatusResponse, "NetworkStatus"),
        (netutil_pb2.DNS, "DNS"),
        (netutil_pb2.VhostUserDevice, "VhostUserDevice"),
        (netutil_pb2.MemifDevice, "MemifDevice"),
        (netutil_pb2.PodResponse, "Pod"),
        (node_pb2.NodePod, "NodePod"),
        (node_pb2.NodeContainer, "NodeContainer"),
        (node_pb2.ListPodsResponse, "NodePods"),
    ],
)
def test_a_result_has_the_fields_of_its_message(message: object, kind: str) -> None:
    from netutil.client import results

    fields = {field.name for field in dataclasses.fields(getattr(results, kind))}
    # Answered only to who asks for the topology; this client does not.
    not_asked_for = {"cpus", "exclusive_cpus", "resources_error"}
    assert fields == set(message.DESCRIPTOR.fields_by_name) - not_asked_for  # type: ignore[attr-defined]


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
    assert conversion.network_status(response).source is source


@pytest.mark.parametrize(
    ("number", "plain"),
    [(1.0, 1), (-0.5, -0.5), (2.0**53, 2**53), (1e300, 1e300), (float("nan"), None)],
)
def test_a_number_is_what_json_would_have(number: float, plain: float | None) -> None:
    result = conversion.plain(Value(number_value=number))
    assert result == plain and type(result) is type(plain)


def test_the_pods_of_a_node_arrive_whole() -> None:
    node = conversion.node_pods(answers.node_pods())
    web, broken = node.pods
    assert [container.name for container in web.containers] == ["app", "side", "setup"]
    assert web.last_error_at == node.observed_at == answers.OBSERVED_AT
    assert broken.networks_error == "no JSON at 7" and broken.last_error_at is None
