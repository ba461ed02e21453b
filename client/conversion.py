"""From the messages of the API to the values of `results`. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from netutil.client import results
from netutil.v1alpha import netutil_pb2, node_pb2

_LARGEST_EXACT_INTEGER = 2**53
_SOURCES = {
    netutil_pb2.NETWORK_SOURCE_NETWORK_STATUS: results.NetworkSource.NETWORK_STATUS,
    netutil_pb2.NETWORK_SOURCE_NETWORKS_STATUS: results.NetworkSource.NETWORKS_STATUS,
    netutil_pb2.NETWORK_SOURCE_POD_STATUS: results.NetworkSource.POD_STATUS,
}


def cpu(response: netutil_pb2.CPUResponse) -> results.CPU:
    """The answer to GetCPUInfo."""
    return results.CPU(
        cpuset=response.cpuset,
        effective_cpus=response.effective_cpus,
        affinity=_present(response, "affinity"),
        quota_cores=_present(response, "quota_cores"),
        quota_microseconds=_present(response, "quota_microseconds"),
        period_microseconds=_present(response, "period_microseconds"),
        shares=_present(response, "shares"),
        weight=_present(response, "weight"),
        cgroup_version=response.cgroup_version,
    )


def environment(response: netutil_pb2.EnvResponse) -> results.Environment:
    """The answer to GetEnv, ordered by name."""
    return results.Environment(
        envs=dict(sorted(response.envs.items())),
        replaced_entries=response.replaced_entries,
        skipped_entries=response.skipped_entries,
    )


def network_status(response: netutil_pb2.NetworkStatusResponse) -> results.NetworkStatus:
    """The answer to GetNetworkStatus. A source that this client does not know is UNSPECIFIED."""
    return results.NetworkStatus(
        status=tuple(_network(network) for network in response.status),
        source=_SOURCES.get(response.source, results.NetworkSource.UNSPECIFIED),
        observed_at=_time(response, "observed_at"),
        host_network=response.host_network,
    )


def _network(network: netutil_pb2.NetworkStatus) -> results.Network:
    return results.Network(
        name=network.name,
        interface=network.interface,
        mac=network.mac,
        ips=tuple(network.ips),
        default=network.default,
        mtu=_present(network, "mtu"),
        gateway=tuple(network.gateway),
        dns=_dns(network.dns) if network.HasField("dns") else None,
        device_info=_device(network.device_info) if network.HasField("device_info") else None,
        extensions=_extensions(network.extensions),
    )


def _dns(dns: netutil_pb2.DNS) -> results.DNS:
    return results.DNS(
        nameservers=tuple(dns.nameservers),
        domain=dns.domain,
        search=tuple(dns.search),
        options=tuple(dns.options),
    )


def _device(device: netutil_pb2.DeviceInfo) -> results.DeviceInfo:
    return results.DeviceInfo(
        type=device.type,
        version=device.version,
        pci=_pci(device.pci) if device.HasField("pci") else None,
        vdpa=_vdpa(device.vdpa) if device.HasField("vdpa") else None,
        vhost_user=_vhost_user(device.vhost_user) if device.HasField("vhost_user") else None,
        memif=_memif(device.memif) if device.HasField("memif") else None,
        extensions=_extensions(device.extensions),
    )


def _pci(device: netutil_pb2.PCIDevice) -> results.PCIDevice:
    return results.PCIDevice(
        pci_address=device.pci_address,
        vhost_net=device.vhost_net,
        rdma_device=device.rdma_device,
        pf_pci_address=device.pf_pci_address,
        representor_device=device.representor_device,
        extensions=_extensions(device.extensions),
    )


def _vdpa(device: netutil_pb2.VDPADevice) -> results.VDPADevice:
    return results.VDPADevice(
        parent_device=device.parent_device,
        driver=device.driver,
        path=device.path,
        pci_address=device.pci_address,
        pf_pci_address=device.pf_pci_address,
        representor_device=device.representor_device,
        extensions=_extensions(device.extensions),
    )


def _vhost_user(device: netutil_pb2.VhostUserDevice) -> results.VhostUserDevice:
    return results.VhostUserDevice(
        mode=device.mode, path=device.path, extensions=_extensions(device.extensions)
    )


def _memif(device: netutil_pb2.MemifDevice) -> results.MemifDevice:
    return results.MemifDevice(
        role=device.role,
        path=device.path,
        mode=device.mode,
        extensions=_extensions(device.extensions),
    )


def pod(response: netutil_pb2.PodResponse) -> results.Pod:
    """The answer to GetPod."""
    return results.Pod(
        namespace=response.namespace,
        name=response.name,
        uid=response.uid,
        container_name=response.container_name,
        container_id=response.container_id,
        node_name=response.node_name,
        service_account=response.service_account,
        qos_class=response.qos_class,
        ips=tuple(response.ips),
        labels=dict(sorted(response.labels.items())),
        annotations=dict(sorted(response.annotations.items())),
        host_network=response.host_network,
        phase=response.phase,
        observed_at=_time(response, "observed_at"),
    )


def node_pods(response: node_pb2.ListPodsResponse) -> results.NodePods:
    """The answer to ListPods."""
    return results.NodePods(
        pods=tuple(_node_pod(pod) for pod in response.pods),
        observed_at=_time(response, "observed_at"),
    )


def _node_pod(pod: node_pb2.NodePod) -> results.NodePod:
    return results.NodePod(
        namespace=pod.namespace,
        name=pod.name,
        uid=pod.uid,
        qos_class=pod.qos_class,
        phase=pod.phase,
        containers=tuple(_node_container(container) for container in pod.containers),
        networks=tuple(pod.networks),
        connections=pod.connections,
        calls=pod.calls,
        last_error=pod.last_error,
        last_error_at=_time(pod, "last_error_at"),
        networks_error=pod.networks_error,
    )


def _node_container(container: node_pb2.NodeContainer) -> results.NodeContainer:
    return results.NodeContainer(
        name=container.name,
        id=container.id,
        kind=container.kind,
        state=container.state,
        effective_cpus=container.effective_cpus,
    )


def _present(message: Message, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


def _time(message: Message, field: Literal["observed_at", "last_error_at"]) -> datetime | None:
    timestamp: Timestamp | None = _present(message, field)
    return None if timestamp is None else timestamp.ToDatetime(tzinfo=UTC)


def _extensions(extensions: Mapping[str, Value]) -> Mapping[str, Any]:
    return {key: plain(value) for key, value in sorted(extensions.items())}


def plain(value: Value) -> Any:
    """The JSON value in a google.protobuf.Value. Whole numbers are int; no number is NaN."""
    match value.WhichOneof("kind"):
        case "bool_value":
            return value.bool_value
        case "string_value":
            return value.string_value
        case "number_value":
            return _number(value.number_value)
        case "list_value":
            return [plain(item) for item in value.list_value.values]
        case "struct_value":
            return {key: plain(item) for key, item in sorted(value.struct_value.fields.items())}
        case _:
            return None


def _number(number: float) -> int | float | None:
    if not math.isfinite(number):
        return None
    if number.is_integer() and abs(number) <= _LARGEST_EXACT_INTEGER:
        return int(number)
    return number
