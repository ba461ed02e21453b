"""From facts to the messages of the API. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from google.protobuf import json_format, struct_pb2, timestamp_pb2
from netutil.agent.facts.cpu import CpuFacts
from netutil.agent.facts.network import Networks, Source
from netutil.agent.parsers.environment import Environment
from netutil.agent.parsers.network_status import Device, DeviceInfo, NetworkStatus
from netutil.agent.pods.index import Match
from netutil.v1alpha import netutil_pb2 as api

SOURCES = {
    Source.NETWORK_STATUS: api.NETWORK_SOURCE_NETWORK_STATUS,
    Source.NETWORKS_STATUS: api.NETWORK_SOURCE_NETWORKS_STATUS,
    Source.POD_STATUS: api.NETWORK_SOURCE_POD_STATUS,
}


def cpu(facts: CpuFacts, affinity: str | None) -> api.CPUResponse:
    """Return the answer to GetCPUInfo."""
    bandwidth = facts.bandwidth
    return api.CPUResponse(
        cpuset=facts.cpuset,
        effective_cpus=facts.effective_cpus,
        affinity=affinity,
        quota_cores=bandwidth.quota_cores,
        quota_microseconds=bandwidth.quota_microseconds,
        period_microseconds=bandwidth.period_microseconds,
        shares=bandwidth.shares,
        weight=bandwidth.weight,
        cgroup_version=facts.cgroup_version,
    )


def environment(found: Environment, variables: Mapping[str, str]) -> api.EnvResponse:
    """Return the answer to GetEnv, with the variables that were asked for."""
    return api.EnvResponse(
        envs=variables,
        replaced_entries=found.replaced_entries,
        skipped_entries=found.skipped_entries,
    )


def network(networks: Networks, match: Match) -> api.NetworkStatusResponse:
    """Return the answer to GetNetworkStatus."""
    return api.NetworkStatusResponse(
        status=[network_status(status) for status in networks.status],
        source=SOURCES[networks.source],
        observed_at=timestamp(match.observed_at),
        host_network=match.pod.spec.host_network,
    )


def pod(match: Match, container_id: str) -> api.PodResponse:
    """Return the answer to GetPod."""
    metadata, spec, status = match.pod.metadata, match.pod.spec, match.pod.status
    return api.PodResponse(
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        container_name=match.container_name,
        container_id=container_id,
        node_name=spec.node_name,
        service_account=spec.service_account_name,
        qos_class=status.qos_class,
        ips=match.pod.ips,
        labels=metadata.labels or {},
        annotations=metadata.annotations or {},
        host_network=spec.host_network,
        phase=status.phase,
        observed_at=timestamp(match.observed_at),
        not_understood=match.pod.not_understood,
    )


def timestamp(when: datetime) -> timestamp_pb2.Timestamp:
    """Return a protobuf timestamp."""
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(when)
    return stamp


def network_status(status: NetworkStatus) -> api.NetworkStatus:
    """Return one network attachment."""
    dns = status.dns
    return api.NetworkStatus(
        name=status.name,
        interface=status.interface,
        mac=status.mac,
        ips=status.ips,
        default=status.default,
        mtu=status.mtu,
        gateway=status.gateway,
        dns=api.DNS(
            nameservers=dns.nameservers,
            domain=dns.domain,
            search=dns.search,
            options=dns.options,
            extensions=_values(dns.extensions),
        )
        if dns
        else None,
        device_info=_device_info(status.device_info) if status.device_info else None,
        extensions=_values(status.extensions),
        device_info_annotation=status.device_info_annotation,
    )


def _device_info(info: DeviceInfo) -> api.DeviceInfo:
    devices = info.devices
    return api.DeviceInfo(
        type=info.type,
        version=info.version,
        pci=api.PCIDevice(**_fields(devices["pci"])) if "pci" in devices else None,
        vdpa=api.VDPADevice(**_fields(devices["vdpa"])) if "vdpa" in devices else None,
        vhost_user=api.VhostUserDevice(**_fields(devices["vhost-user"]))
        if "vhost-user" in devices
        else None,
        memif=api.MemifDevice(**_fields(devices["memif"])) if "memif" in devices else None,
        extensions=_values(info.extensions),
    )


def _fields(device: Device) -> dict[str, Any]:
    fields: dict[str, Any] = {
        name.replace("-", "_"): value for name, value in device.fields.items()
    }
    fields["extensions"] = _values(device.extensions)
    return fields


def _values(extensions: Mapping[str, Any]) -> dict[str, struct_pb2.Value]:
    return {
        key: json_format.ParseDict(value, struct_pb2.Value()) for key, value in extensions.items()
    }
