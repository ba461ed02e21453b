"""The answers about devices, interfaces and huge pages, and all answers in one.

As in `netutil.client.models.core`: frozen, typed, without protobuf, with the field names
of netutil.proto, which says where each fact comes from. Sizes are in bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from netutil.client.models.core import (
    CPU,
    MESSAGE_FIELD,
    UNKNOWN_WITH,
    CgroupLevel,
    Environment,
    Network,
    NetworkSource,
    NetworkStatus,
    PartError,
    Pod,
)

_ADDRESS = re.compile(r"([0-9a-f]{1,8}):([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])")
_PCI_BUS_ID = "resource.kubernetes.io/pciBusID"
_NUMA_NODE = "resource.kubernetes.io/numaNode"
"""Standard attributes (deviceattribute of k8s.io/dynamic-resource-allocation)."""
_NO_FAULT = ("", "Healthy")
_READINESS = ("Ready", "NetworkReady", "RDMALinkReady")
"""Conditions of network drivers that say whether a device works (KEP-4817)."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device that a device plugin allocated; `numa_nodes` is empty if it does not say.

    `health` is "Healthy", "Unhealthy" or "Unknown", empty if the kubelet does not say.
    """

    id: str = field(metadata={MESSAGE_FIELD: "ID"})
    resource_name: str = field(metadata={MESSAGE_FIELD: "resourceName"})
    numa_nodes: tuple[int, ...]
    health: str = ""
    health_message: str = ""

    @property
    def is_suspect(self) -> bool:
        """Whether the kubelet reports anything but "Healthy"."""
        return self.health not in _NO_FAULT


@dataclass(frozen=True, slots=True)
class MemoryBlock:
    """Memory that is reserved on NUMA nodes; `type` is "memory" or "hugepages-<size>"."""

    type: str
    size_bytes: int
    numa_nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ClaimResource:
    """One device of a resource claim."""

    cdi_devices: tuple[str, ...]
    driver_name: str
    pool_name: str
    device_name: str


@dataclass(frozen=True, slots=True)
class DynamicResource:
    """A resource claim of the container (dynamic resource allocation)."""

    claim_name: str
    claim_namespace: str
    claim_resources: tuple[ClaimResource, ...]


@dataclass(frozen=True, slots=True)
class PCIInfo:
    """A PCI device as the host shows it."""

    address: str
    driver: str
    vendor_id: str
    device_id: str
    numa_node: int | None
    pf_address: str
    vf_index: int | None
    iommu_group: int | None
    max_vfs: int | None
    class_code: str = ""


class ClaimSource(StrEnum):
    """The source of a request's devices. `UNSPECIFIED`: no source has them."""

    NODE = "node"
    API_SERVER = "apiserver"
    UNSPECIFIED = "unspecified"


class AttributeType(StrEnum):
    """The type of an attribute, by its name in the Kubernetes API (DeviceAttribute)."""

    INT = "int"
    BOOL = "bool"
    STRING = "string"
    VERSION = "version"
    INTS = "ints"
    BOOLS = "bools"
    STRINGS = "strings"
    VERSIONS = "versions"
    UNSPECIFIED = "unspecified"


@dataclass(frozen=True, slots=True)
class DeviceAttribute:
    """An attribute of a device, with its type.

    `value` is an int, bool or str, or a tuple of these for a list. A version is a str. None: a
    type that this client does not know, `UNSPECIFIED`.
    """

    type: AttributeType
    value: int | bool | str | tuple[int | bool | str, ...] | None


@dataclass(frozen=True, slots=True)
class ClaimNetworkData:
    """What a network driver reports of a device; `ips` have a prefix length."""

    interface_name: str
    ips: tuple[str, ...]
    hardware_address: str


@dataclass(frozen=True, slots=True)
class DeviceCondition:
    """A condition of a device ("NetworkReady"); `status` is "True", "False" or "Unknown"."""

    type: str
    status: str
    reason: str
    message: str
    last_transition_time: datetime | None


@dataclass(frozen=True, slots=True)
class ClaimDevice:
    """A device of a resource claim.

    `pci` is the PCI function that the attribute resource.kubernetes.io/pciBusID names, None if
    there is no such attribute or the node has no such function. `health` is as that of `Device`.
    """

    pool: str
    device: str
    attributes: Mapping[str, DeviceAttribute]
    network_data: ClaimNetworkData | None
    share_id: str
    conditions: tuple[DeviceCondition, ...]
    pci: PCIInfo | None
    health: str
    health_message: str

    @property
    def pci_bus_id(self) -> str:
        """The attribute resource.kubernetes.io/pciBusID as sysfs spells it, "" without a value.

        A driver writes the attribute: a value that is no PCI address is returned in lower case.
        """
        found = self.attributes.get(_PCI_BUS_ID)
        if found is None or found.value is None:
            return ""
        text = str(found.value).lower()
        address = _ADDRESS.fullmatch(text)
        return text if address is None else f"{int(address[1], 16):04x}:{address[2]}"

    @property
    def is_suspect(self) -> bool:
        """Whether the kubelet reports anything but "Healthy"."""
        return self.health not in _NO_FAULT

    @property
    def not_ready(self) -> tuple[DeviceCondition, ...]:
        """The conditions Ready, NetworkReady and RDMALinkReady that the driver reports as False."""
        return tuple(
            one for one in self.conditions if one.type in _READINESS and one.status == "False"
        )

    @property
    def numa_nodes(self) -> tuple[int, ...]:
        """The NUMA node of `pci`, else the attribute resource.kubernetes.io/numaNode, else ()."""
        if self.pci is not None and self.pci.numa_node is not None:
            return (self.pci.numa_node,)
        found = self.attributes.get(_NUMA_NODE)
        if found is None or found.type not in (AttributeType.INT, AttributeType.INTS):
            return ()
        values = found.value if isinstance(found.value, tuple) else (found.value,)
        return tuple(one for one in values if isinstance(one, int) and one >= 0)


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """A request of a resource claim, and the devices that one driver allocated for it.

    `devices` is None if `error` says why they are not known. Without a source `devices` is empty,
    and nothing is known of them either: `is_known` is False in both cases.
    """

    pod_claim: str
    claim_name: str
    claim_namespace: str
    claim_uid: str
    request: str
    driver: str
    source: ClaimSource
    generation: int
    devices: tuple[ClaimDevice, ...] | None = field(metadata={UNKNOWN_WITH: "error"})
    error: PartError | None
    extended_resource: str

    @property
    def is_known(self) -> bool:
        """Whether a source has the devices, all of them. A newer source is `UNSPECIFIED` too."""
        has_source = self.source is not ClaimSource.UNSPECIFIED or bool(self.devices)
        return self.error is None and has_source


@dataclass(frozen=True, slots=True)
class InterfaceClaim:
    """The device of a resource claim that is an interface, or that has none."""

    pod_claim: str
    claim_name: str
    request: str
    driver: str
    source: ClaimSource
    device: ClaimDevice | None


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources that the kubelet's managers allocated to the container.

    `pci` are the PCI functions among `devices` as the host shows them, `absent_pci` the addresses
    that it does not have; `pci_error` says why neither is known. `claims` are the requests of the
    claims that the container refers to, None if `claims_error` says why they are not known.
    """

    devices: tuple[Device, ...]
    exclusive_cpu_ids: tuple[int, ...]
    exclusive_cpus: str
    memory: tuple[MemoryBlock, ...]
    dynamic_resources: tuple[DynamicResource, ...]
    observed_at: datetime | None
    pci: tuple[PCIInfo, ...] = ()
    absent_pci: tuple[str, ...] = ()
    pci_error: PartError | None = None
    claims: tuple[ClaimRequest, ...] | None = field(
        default=(), metadata={UNKNOWN_WITH: "claims_error"}
    )
    claims_error: PartError | None = None


class DeviceType(StrEnum):
    """The kind of device behind an interface."""

    HOST = "host"
    SR_IOV = "sr-iov"
    VDPA = "vdpa"
    VHOST_USER = "vhost-user"
    MEMIF = "memif"
    UNKNOWN = "unknown"
    UNSPECIFIED = "unspecified"


class DeviceTypeSource(StrEnum):
    """The source of a device type. `DEVICE_ID` is an inference."""

    DEVICE_INFO = "device-info"
    SYSFS = "sysfs"
    LINK = "link"
    DEVICE_ID = "device-id"
    UNSPECIFIED = "unspecified"


class DeviceSource(StrEnum):
    """The source of the association of a device with an interface."""

    DEVICE_INFO = "device-info"
    LINK = "link"
    ENVIRONMENT = "environment"
    ELIMINATION = "elimination"
    RESOURCE_NAME = "resource-name"
    ORDER = "order"
    CLAIM = "claim"
    UNSPECIFIED = "unspecified"

    @property
    def is_inferred(self) -> bool:
        """Whether the device was inferred by elimination: no source names it."""
        return self is DeviceSource.ELIMINATION

    @property
    def is_guessed(self) -> bool:
        """Whether it could be another device as well."""
        return self in (DeviceSource.RESOURCE_NAME, DeviceSource.ORDER)


@dataclass(frozen=True, slots=True)
class Drift:
    """What was reported and what the kernel shows instead; `found` is empty for nothing."""

    field: str
    reported: str
    found: str


@dataclass(frozen=True, slots=True)
class AllocatedDevice:
    """A device that PCIDEVICE_<RESOURCE>, QAT<n> or AFXDP_DEVICES of the container names.

    `info` is its entry in PCIDEVICE_<RESOURCE>_INFO, as plain JSON values. `from_start`: only the
    environment that the container was started with names it, not the process's own.
    """

    variable: str
    position: int
    pci_address: str
    info: Mapping[str, Any] | None
    name: str
    problem: str
    from_start: bool = False


@dataclass(frozen=True, slots=True)
class AfXdpDevices:
    """The links that the AF_XDP device plugin gave to the container, by AFXDP_DEVICES.

    `name` of each is the link's.
    """

    devices: tuple[AllocatedDevice, ...]


@dataclass(frozen=True, slots=True)
class Address:
    """An address of a link, with its prefix length."""

    address: str
    scope: str
    peer: str


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """A default route over a link; `ip_version` is 4 or 6.

    `table` is 254 for the main table, 0 from an agent without that field. Only packets that match
    a rule use another table.
    """

    gateway: str
    ip_version: int
    metric: int
    source: str
    table: int = 0


@dataclass(frozen=True, slots=True)
class LinkCounters:
    """Traffic of a link since its creation."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


@dataclass(frozen=True, slots=True)
class Link:
    """A link of the pod's network namespace, as it is now. `mtu` is in bytes."""

    index: int
    kind: str
    mac: str
    mtu: int
    operational_state: str
    up: bool
    addresses: tuple[Address, ...]
    default_routes: tuple[DefaultRoute, ...]
    counters: LinkCounters | None
    vlan_id: int | None
    parent_index: int | None
    parent: str
    parent_namespace_id: int | None
    master: str
    parent_device_bus: str
    parent_device: str
    num_vfs: int | None


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface as reported, as it is now, and the device behind it; None: there is none.

    `device_source` says whether the device is a fact, an inference or a guess, `device_reason`
    from what it is inferred or guessed, or why the interface has none.
    """

    name: str
    device_type: DeviceType
    network: Network | None
    link: Link | None
    pci: PCIInfo | None
    allocated: AllocatedDevice | None
    drift: tuple[Drift, ...]
    device_source: DeviceSource = DeviceSource.UNSPECIFIED
    device_reason: str = ""
    device_type_source: DeviceTypeSource = DeviceTypeSource.UNSPECIFIED
    claim: InterfaceClaim | None = None


@dataclass(frozen=True, slots=True)
class Interfaces:
    """The interfaces of the pod. Each error says which part is not known.

    `start_error`: the environment that the container was started with is not known. `af_xdp` is
    None beside an `allocated_error`, from an agent that is older than this client, and on the
    operator socket, for which no environment is read.
    """

    interfaces: tuple[Interface, ...]
    source: NetworkSource
    observed_at: datetime | None
    host_network: bool
    network_error: PartError | None
    allocated_error: PartError | None
    link_error: PartError | None
    start_error: PartError | None = None
    device_info_error: PartError | None = None
    pci_error: PartError | None = None
    af_xdp: AfXdpDevices | None = None
    claims_error: PartError | None = None


@dataclass(frozen=True, slots=True)
class ContainerHugepages:
    """Huge pages that a container requests in the pod's spec, and the granted amounts if reported.

    `kind` is "container", "init", or "sidecar" for an init container that goes on running.
    """

    container_name: str
    page_size_bytes: int
    request_bytes: int
    limit_bytes: int
    granted_request_bytes: int | None = None
    granted_limit_bytes: int | None = None
    kind: str = ""


@dataclass(frozen=True, slots=True)
class PodHugepages:
    """Huge pages that a pod's spec requests for all its containers together."""

    page_size_bytes: int
    request_bytes: int
    limit_bytes: int
    granted_request_bytes: int | None
    granted_limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class HugepageUsage:
    """Huge pages of the container's cgroup; `failures` is the number of failures at its own limit.

    `limit_bytes` is the smallest limit from the container's cgroup up to the node's root, and
    `limit_level` is the level of the cgroup that sets it; None is no limit.
    """

    page_size_bytes: int
    limit_bytes: int | None
    usage_bytes: int
    failures: int
    limit_level: CgroupLevel | None = None
    container_limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class NumaHugepages:
    """A NUMA node's part of a pool."""

    numa_node: int
    total_bytes: int
    free_bytes: int
    surplus_bytes: int


@dataclass(frozen=True, slots=True)
class HugepagePool:
    """The node's huge pages of one size."""

    page_size_bytes: int
    total_bytes: int
    free_bytes: int
    reserved_bytes: int
    surplus_bytes: int
    numa_nodes: tuple[NumaHugepages, ...]


@dataclass(frozen=True, slots=True)
class Hugepages:
    """Huge pages: requested, granted and used by the pod, and those of the node.

    `containers` and `pod` are None where the pod's spec is not known: `spec_error` says why.
    Values beside the error are kept.
    """

    containers: tuple[ContainerHugepages, ...] | None = field(metadata={UNKNOWN_WITH: "spec_error"})
    usage: tuple[HugepageUsage, ...]
    pools: tuple[HugepagePool, ...]
    spec_error: PartError | None
    pod: tuple[PodHugepages, ...] | None = field(default=(), metadata={UNKNOWN_WITH: "spec_error"})


@dataclass(frozen=True, slots=True)
class All:
    """Every answer about one process, of one moment. `errors` has one entry per missing part."""

    pod: Pod | None
    cpu: CPU | None
    environment: Environment | None
    network_status: NetworkStatus | None
    interfaces: Interfaces | None
    hugepages: Hugepages | None
    resources: Resources | None
    errors: tuple[PartError, ...]
