"""The answers, as plain values: frozen, typed, without protobuf.

The fields have the names of netutil.proto and node.proto in snake case, which say where
each fact comes from; `netutil -o json` prints the same names. What the agent can leave
out is None. Times are aware and in UTC. `extensions` holds plain JSON values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from netutil.client.errors import KINDS, NetUtilError

KNOWN_WITH = "known_with"
"""Metadata of a list: it is None unless the message has this field. An empty list is a fact."""
MESSAGE_FIELD = "message_field"
"""Metadata of a field whose name in the message is not snake case: that name."""
UNKNOWN_WITH = "unknown_with"
"""Metadata of a list: it is None if the message says this error instead.

A list that may be None and has neither is None where it is empty: it never is if it is known.
"""


@dataclass(frozen=True, slots=True)
class PartError:
    """Why one part of an answer is missing, with the fields of the error of a whole call."""

    part: str
    code: str
    reason: str
    message: str
    read: str
    advice: str


def as_exception(part: PartError) -> NetUtilError:
    """The error that a call for that part alone would have raised."""
    kind = KINDS.get(part.code, NetUtilError)
    return kind(part.message, part.code, reason=part.reason, read=part.read, advice=part.advice)


class CgroupLevel(StrEnum):
    """The level of a cgroup, from the container outwards."""

    CONTAINER = "container"
    POD = "pod"
    QOS_CLASS = "qos-class"
    KUBEPODS = "kubepods"
    ABOVE = "above"
    UNSPECIFIED = "unspecified"


@dataclass(frozen=True, slots=True)
class CpusetPartition:
    """The cpuset partition of the CPUs; see netutil.proto.

    `state` is "root", "isolated", "root invalid", "isolated invalid", "member", or "" where no
    cgroup has that file (cgroup v1). `cpu_exclusive` is cgroup v1's flag.
    """

    state: str
    invalid_reason: str
    level: CgroupLevel | None
    exclusive_cpus: str | None
    requested_exclusive_cpus: str | None
    cpu_exclusive: bool | None


@dataclass(frozen=True, slots=True)
class NodeCPU:
    """One CPU of the node. `core` is unique within its `socket`; both are None while offline.

    `exclusive` says whether the kubelet gave it to this container alone, None where
    that is not known.
    """

    id: int
    core: int | None
    socket: int | None
    numa_node: int | None
    siblings: tuple[int, ...]
    online: bool
    isolated: bool
    nohz_full: bool
    exclusive: bool | None


@dataclass(frozen=True, slots=True)
class CPUAmounts:
    """CPUs that a spec requests, and that the kubelet reports as granted; None: not set."""

    request_cores: float | None
    limit_cores: float | None
    granted_request_cores: float | None
    granted_limit_cores: float | None


@dataclass(frozen=True, slots=True)
class CPU:
    """The CPUs of the process's container. CPU sets are kernel lists: "0-3,8".

    `quota_cores` is the smallest limit from the container's cgroup up to the node's root, and
    `quota_level` is the level of the cgroup that sets it; None is no limit, unless `quota_unknown`.
    `cpus`, `exclusive_cpus`, `exclusive_cpu_ids` and `cpuset_partition` are None if the topology
    was not requested. If `exclusive_cpus` is None nevertheless, `resources_error` says why.
    An empty `exclusive_cpus` means that the kubelet gave no CPU to this container alone, and
    nothing about other containers. The sets as numbers are None where the set is.
    """

    cpuset: str
    effective_cpus: str
    affinity: str | None
    quota_cores: float | None
    quota_microseconds: int | None
    period_microseconds: int | None
    shares: int | None
    weight: int | None
    cgroup_version: int
    cpus: tuple[NodeCPU, ...] | None = None
    exclusive_cpus: str | None = None
    resources_error: PartError | None = None
    cpuset_ids: tuple[int, ...] | None = None
    effective_cpu_ids: tuple[int, ...] | None = None
    affinity_ids: tuple[int, ...] | None = None
    exclusive_cpu_ids: tuple[int, ...] | None = field(
        default=None, metadata={KNOWN_WITH: "exclusive_cpus"}
    )
    container_amounts: CPUAmounts | None = None
    pod_amounts: CPUAmounts | None = None
    spec_error: PartError | None = None
    quota_level: CgroupLevel | None = None
    container_quota_cores: float | None = None
    container_quota_microseconds: int | None = None
    container_period_microseconds: int | None = None
    quota_unknown: bool = False
    cpuset_partition: CpusetPartition | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment that the process was started with, and counts of inexact entries."""

    envs: Mapping[str, str]
    replaced_entries: int
    skipped_entries: int


class NetworkSource(StrEnum):
    """Where a network status comes from."""

    NETWORK_STATUS = "network-status"
    NETWORKS_STATUS = "networks-status"
    POD_STATUS = "pod-status"
    UNSPECIFIED = "unspecified"


@dataclass(frozen=True, slots=True)
class DNS:
    """Resolver settings of one network."""

    nameservers: tuple[str, ...]
    domain: str
    search: tuple[str, ...]
    options: tuple[str, ...]
    extensions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PCIDevice:
    """A PCI function behind an interface."""

    pci_address: str
    vhost_net: str
    rdma_device: str
    pf_pci_address: str
    representor_device: str
    extensions: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VDPADevice:
    """A vDPA device behind an interface; `driver` is "vhost" or "virtio"."""

    parent_device: str
    driver: str
    path: str
    pci_address: str
    pf_pci_address: str
    representor_device: str
    extensions: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VhostUserDevice:
    """A vhost-user socket; `mode` is "client" or "server"."""

    mode: str
    path: str
    extensions: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MemifDevice:
    """A memif socket; `role` is "master" or "slave"."""

    role: str
    path: str
    mode: str
    extensions: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """The device behind an interface; the field that `type` names is not None."""

    type: str
    version: str
    pci: PCIDevice | None
    vdpa: VDPADevice | None
    vhost_user: VhostUserDevice | None
    memif: MemifDevice | None
    extensions: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Network:
    """One network of the pod. `mtu` is in bytes; `ips` may carry a prefix length."""

    name: str
    interface: str
    mac: str
    ips: tuple[str, ...]
    default: bool
    mtu: int | None
    gateway: tuple[str, ...]
    dns: DNS | None
    device_info: DeviceInfo | None
    extensions: Mapping[str, Any]
    device_info_annotation: str = ""


@dataclass(frozen=True, slots=True)
class NetworkStatus:
    """The networks of the pod, as its CNI plugins reported them.

    `device_info_error` says why the device-info of the Userspace CNI plugin is not known, nor the
    networks that only that plugin names.
    """

    status: tuple[Network, ...]
    source: NetworkSource
    observed_at: datetime | None
    host_network: bool
    device_info_error: PartError | None = None


@dataclass(frozen=True, slots=True)
class Pod:
    """The pod and the container of the process.

    `not_understood` are the paths of fields that are unknown, and therefore empty or false here.
    """

    namespace: str
    name: str
    uid: str
    container_name: str
    container_id: str
    node_name: str
    service_account: str
    qos_class: str
    ips: tuple[str, ...]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    host_network: bool
    phase: str
    observed_at: datetime | None
    not_understood: tuple[str, ...] = ()
