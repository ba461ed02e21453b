"""Ask the netutil agent of this node about the calling process and its pod.

    from netutil.client import Client, NotFound

    with Client() as agent:
        print(agent.cpu().cpuset, agent.pod().name)
        for interface in agent.interfaces().interfaces:
            print(interface.name, interface.device_type)

`Cached` holds all of it, kept up to date, so that reading it again costs nothing;
`AsyncCached` is that for asyncio, as `AsyncClient` is of `Client`. `NodeClient` and
`AsyncNodeClient` ask the operator socket about the whole node. Make a client after a
fork, never before: the agent identifies a caller by the connection.

Importing this package loads neither gRPC nor protobuf; the first use of a client does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from netutil.client.cache.base import Reading
from netutil.client.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NetUtilError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unreachable,
)
from netutil.client.models.core import (
    CPU,
    DNS,
    CgroupLevel,
    CpusetPartition,
    DeviceInfo,
    Environment,
    MemifDevice,
    Network,
    NetworkSource,
    NetworkStatus,
    NodeCPU,
    PartError,
    PCIDevice,
    Pod,
    VDPADevice,
    VhostUserDevice,
)
from netutil.client.models.devices import (
    Address,
    AfXdpDevices,
    All,
    AllocatedDevice,
    AttributeType,
    ClaimDevice,
    ClaimNetworkData,
    ClaimRequest,
    ClaimResource,
    ClaimSource,
    ContainerHugepages,
    DefaultRoute,
    Device,
    DeviceAttribute,
    DeviceCondition,
    DeviceSource,
    DeviceType,
    DeviceTypeSource,
    Drift,
    DynamicResource,
    HugepagePool,
    Hugepages,
    HugepageUsage,
    Interface,
    InterfaceClaim,
    Interfaces,
    Link,
    LinkCounters,
    MemoryBlock,
    NumaHugepages,
    PCIInfo,
    Resources,
)
from netutil.client.models.node import NodeContainer, NodePod, NodePods
from netutil.client.models.observation import Observation
from netutil.client.models.processes import (
    ExclusiveContainer,
    ExclusiveCPUs,
    NodeProcess,
    NodeThread,
    PodProcesses,
    ProcessReading,
    ReadProcess,
)

if TYPE_CHECKING:
    from netutil.client.cache.aio import AsyncCached
    from netutil.client.cache.sync import Cached
    from netutil.client.rpc.aio import AsyncClient, AsyncNodeClient
    from netutil.client.rpc.sync import Client, NodeClient

__all__ = [
    "CPU",
    "DNS",
    "Address",
    "AfXdpDevices",
    "All",
    "AllocatedDevice",
    "AsyncCached",
    "AsyncClient",
    "AsyncNodeClient",
    "AttributeType",
    "Cached",
    "CgroupLevel",
    "ClaimDevice",
    "ClaimNetworkData",
    "ClaimRequest",
    "ClaimResource",
    "ClaimSource",
    "Client",
    "ContainerHugepages",
    "CpusetPartition",
    "DeadlineExceeded",
    "DefaultRoute",
    "Device",
    "DeviceAttribute",
    "DeviceCondition",
    "DeviceInfo",
    "DeviceSource",
    "DeviceType",
    "DeviceTypeSource",
    "Drift",
    "DynamicResource",
    "Environment",
    "ExclusiveCPUs",
    "ExclusiveContainer",
    "FailedPrecondition",
    "HugepagePool",
    "HugepageUsage",
    "Hugepages",
    "Interface",
    "InterfaceClaim",
    "Interfaces",
    "InvalidArgument",
    "Link",
    "LinkCounters",
    "MemifDevice",
    "MemoryBlock",
    "NetUtilError",
    "Network",
    "NetworkSource",
    "NetworkStatus",
    "NodeCPU",
    "NodeClient",
    "NodeContainer",
    "NodePod",
    "NodePods",
    "NodeProcess",
    "NodeThread",
    "NotFound",
    "NumaHugepages",
    "Observation",
    "PCIDevice",
    "PCIInfo",
    "PartError",
    "PermissionDenied",
    "Pod",
    "PodProcesses",
    "ProcessReading",
    "ReadProcess",
    "Reading",
    "ResourceExhausted",
    "Resources",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
    "VDPADevice",
    "VhostUserDevice",
]

_CLIENTS = {
    "Client": "netutil.client.rpc.sync",
    "NodeClient": "netutil.client.rpc.sync",
    "Cached": "netutil.client.cache.sync",
    "AsyncCached": "netutil.client.cache.aio",
    "AsyncClient": "netutil.client.rpc.aio",
    "AsyncNodeClient": "netutil.client.rpc.aio",
}


def __getattr__(name: str) -> object:
    """Load a client at its first use (PEP 562)."""
    if name not in _CLIENTS:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_CLIENTS[name]), name)
