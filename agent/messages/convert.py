"""Converts facts to messages of the API. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from google.protobuf import json_format, struct_pb2, timestamp_pb2
from netutil.agent.facts.cgroup_levels import CgroupLevel
from netutil.agent.facts.cpu import CpuFacts
from netutil.agent.facts.cpu_partition import CpusetPartition
from netutil.agent.facts.network import Networks, Source
from netutil.agent.messages.status import part_error
from netutil.agent.parsers.cpulist import parse_cpu_list
from netutil.agent.parsers.environment import Environment
from netutil.agent.parsers.network_status import Device, DeviceInfo, NetworkStatus
from netutil.agent.pods.index import Match
from netutil.v1alpha import netutil_pb2 as api

SOURCES = {
    Source.NETWORK_STATUS: api.NETWORK_SOURCE_NETWORK_STATUS,
    Source.NETWORKS_STATUS: api.NETWORK_SOURCE_NETWORKS_STATUS,
    Source.POD_STATUS: api.NETWORK_SOURCE_POD_STATUS,
}

_MAX_SETS = 256
LEVELS = {
    CgroupLevel.CONTAINER: api.CGROUP_LEVEL_CONTAINER,
    CgroupLevel.POD: api.CGROUP_LEVEL_POD,
    CgroupLevel.QOS_CLASS: api.CGROUP_LEVEL_QOS_CLASS,
    CgroupLevel.KUBEPODS: api.CGROUP_LEVEL_KUBEPODS,
    CgroupLevel.ABOVE: api.CGROUP_LEVEL_ABOVE,
}


def cpu(
    facts: CpuFacts, affinity: str | None, partition: CpusetPartition | None = None
) -> api.CPUResponse:
    """Return the answer to GetCPUInfo; `partition` is None where it was not asked for."""
    bandwidth = facts.bandwidth
    limit, own = bandwidth.limit, bandwidth.own_limit
    return api.CPUResponse(
        cpuset=facts.cpuset,
        effective_cpus=facts.effective_cpus,
        affinity=affinity,
        quota_cores=limit.cores if limit else None,
        quota_microseconds=limit.quota_microseconds if limit else None,
        period_microseconds=limit.period_microseconds
        if limit
        else bandwidth.own_period_microseconds,
        shares=bandwidth.shares,
        weight=bandwidth.weight,
        cgroup_version=facts.cgroup_version,
        cpuset_ids=_numbers(facts.cpuset),
        effective_cpu_ids=_numbers(facts.effective_cpus),
        affinity_ids=_numbers(affinity or ""),
        quota_level=LEVELS[bandwidth.level] if bandwidth.level else None,
        container_quota_cores=own.cores if own else None,
        container_quota_microseconds=own.quota_microseconds if own else None,
        container_period_microseconds=bandwidth.own_period_microseconds,
        quota_unknown=not bandwidth.is_known,
        cpuset_partition=_partition(partition) if partition is not None else None,
    )


@lru_cache(maxsize=_MAX_SETS)
def _numbers(cpus: str) -> tuple[int, ...]:
    """Return the numbers of a CPU list. A node has few different ones, each asked for often."""
    return parse_cpu_list(cpus, read="the container's CPU sets")


def _partition(found: CpusetPartition) -> api.CpusetPartition:
    return api.CpusetPartition(
        state=found.state,
        invalid_reason=found.invalid_reason,
        level=LEVELS[found.level] if found.level else None,
        exclusive_cpus=found.exclusive_cpus,
        requested_exclusive_cpus=found.requested_cpus,
        cpu_exclusive=found.cpu_exclusive,
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
    error = networks.device_info_error
    return api.NetworkStatusResponse(
        status=[network_status(status) for status in networks.status],
        source=SOURCES[networks.source],
        observed_at=timestamp(match.observed_at),
        host_network=match.pod.spec.host_network,
        device_info_error=part_error("device_info", error) if error else None,
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


@lru_cache(maxsize=64)
def timestamp(when: datetime) -> timestamp_pb2.Timestamp:
    """Return a protobuf timestamp, which is not to be changed.

    Many answers have the time of the one pod list.
    """
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
