"""Answers with every field set, as an agent on a two-socket node gave them."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from netutil.v1alpha import netutil_pb2, node_pb2

OBSERVED_AT = datetime(2026, 1, 31, 12, 0, 0, 250000, tzinfo=UTC)
POD_UID = "3f2b6a9e-7c1d-4e0a-9b7e-2f5d8c6b1a00"
HOSTILE = "\x1b[31mred\x1b[0m\nsecond\tline\x07\x9b2J\x7f\u202edrow\\n"


def observed_at() -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(OBSERVED_AT)
    return timestamp


def cpu() -> netutil_pb2.CPUResponse:
    return netutil_pb2.CPUResponse(
        cpuset="0-3,8",
        effective_cpus="0-3",
        affinity="0-1",
        quota_cores=1.5,
        quota_microseconds=150000,
        period_microseconds=100000,
        weight=100,
        cgroup_version=2,
        cpus=[node_cpu(number) for number in (0, 1, 2, 3, 8)],
        exclusive_cpus="2-3",
        cpuset_ids=[0, 1, 2, 3, 8],
        effective_cpu_ids=[0, 1, 2, 3],
        affinity_ids=[0, 1],
        exclusive_cpu_ids=[2, 3],
        quota_level=netutil_pb2.CGROUP_LEVEL_POD,
        container_quota_cores=2.0,
        container_quota_microseconds=200000,
        container_period_microseconds=100000,
        cpuset_partition=netutil_pb2.CpusetPartition(
            state="isolated",
            level=netutil_pb2.CGROUP_LEVEL_CONTAINER,
            exclusive_cpus="2-3",
            requested_exclusive_cpus="2-3",
        ),
    )


def node_cpu(number: int) -> netutil_pb2.CPU:
    if number == 8:
        return netutil_pb2.CPU(id=8, exclusive=False)
    return netutil_pb2.CPU(
        id=number,
        core=number // 2,
        socket=0,
        numa_node=0,
        siblings=[number // 2 * 2, number // 2 * 2 + 1],
        online=True,
        isolated=number > 1,
        nohz_full=number > 1,
        exclusive=number in (2, 3),
    )


def environment() -> netutil_pb2.EnvResponse:
    envs = {"PATH": "/usr/bin:/bin", "EMPTY": "", "OPTIONS": "a=b=c", "HOSTILE": HOSTILE}
    return netutil_pb2.EnvResponse(envs=envs, replaced_entries=1, skipped_entries=2)


def extensions() -> dict[str, Value]:
    nested = Struct(fields={"none": Value(null_value=NULL_VALUE)})
    items = [Value(number_value=1), Value(number_value=0.5), Value(struct_value=nested)]
    return {
        "example.com/list": Value(list_value=ListValue(values=items)),
        "example.com/flag": Value(bool_value=True),
        "example.com/text": Value(string_value="x"),
    }


def network_status() -> netutil_pb2.NetworkStatusResponse:
    default = netutil_pb2.NetworkStatus(
        name="cbr0", interface="eth0", mac="0a:58:0a:f4:00:05", ips=["10.244.0.5"], default=True
    )
    device = netutil_pb2.DeviceInfo(
        type="pci",
        version="1.1.0",
        pci=netutil_pb2.PCIDevice(
            pci_address="0000:03:02.3", pf_pci_address="0000:03:00.0", extensions=extensions()
        ),
    )
    second = netutil_pb2.NetworkStatus(
        name="default/sriov",
        interface="net1",
        mac="c2:11:22:33:44:66",
        ips=["192.0.2.10/24", "2001:db8::10"],
        mtu=9000,
        gateway=["192.0.2.1"],
        dns=netutil_pb2.DNS(
            nameservers=["192.0.2.53"], domain="example", search=["a.example"], options=["ndots:2"]
        ),
        device_info=device,
        extensions=extensions(),
    )
    return netutil_pb2.NetworkStatusResponse(
        status=[default, second],
        source=netutil_pb2.NETWORK_SOURCE_NETWORK_STATUS,
        observed_at=observed_at(),
    )


def pod() -> netutil_pb2.PodResponse:
    return netutil_pb2.PodResponse(
        namespace="default",
        name="web-0",
        uid=POD_UID,
        container_name="app",
        container_id="4" * 64,
        node_name="node-1",
        service_account="web",
        qos_class="Guaranteed",
        ips=["10.244.0.5"],
        labels={"app": "web", "tier": "front"},
        annotations={"note": "two\nlines"},
        phase="Running",
        observed_at=observed_at(),
    )


def node_pods() -> node_pb2.ListPodsResponse:
    app = node_pb2.NodeContainer(
        name="app", id="4" * 64, kind="container", state="running", effective_cpus="0-3"
    )
    side = node_pb2.NodeContainer(
        name="side", id="5" * 64, kind="container", state="running", effective_cpus="4"
    )
    setup = node_pb2.NodeContainer(name="setup", kind="init", state="terminated")
    web = node_pb2.NodePod(
        namespace="default",
        name="web-0",
        uid=POD_UID,
        qos_class="Guaranteed",
        phase="Running",
        containers=[app, side, setup],
        networks=["eth0", "net1"],
        connections=3,
        calls=42,
        refused=5,
        failed=2,
        not_found=7,
        labels={"app": "web", "tier": "front"},
        last_error="PID_OUTSIDE_POD",
        last_error_at=observed_at(),
    )
    broken = node_pb2.NodePod(
        namespace="kube-system",
        name="dns",
        uid="0" * 32,
        containers=[app],
        networks_error="no JSON at 7",
    )
    return node_pb2.ListPodsResponse(pods=[web, broken], observed_at=observed_at())
