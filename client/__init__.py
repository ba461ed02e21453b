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

from netutil.client.devices import (
    Address,
    AfXdpDevices,
    All,
    AllocatedDevice,
    ClaimResource,
    ContainerHugepages,
    DefaultRoute,
    Device,
    DeviceSource,
    DeviceType,
    DeviceTypeSource,
    Drift,
    DynamicResource,
    HugepagePool,
    Hugepages,
    HugepageUsage,
    Interface,
    Interfaces,
    Link,
    LinkCounters,
    MemoryBlock,
    NumaHugepages,
    PCIInfo,
    Resources,
)
from netutil.client.errors import (
    DeadlineExceeded,
    Denied,
    Inconsistent,
    InvalidRequest,
    LimitReached,
    NetUtilError,
    NotFound,
    NotIdentified,
    Unavailable,
    Unreachable,
)
from netutil.client.held import Current
from netutil.client.observations import Observation
from netutil.client.results import (
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
    NodeContainer,
    NodeCPU,
    NodePod,
    NodePods,
    PartError,
    PCIDevice,
    Pod,
    VDPADevice,
    VhostUserDevice,
)

if TYPE_CHECKING:
    from netutil.client.async_cached import AsyncCached
    from netutil.client.asynchronous import AsyncClient, AsyncNodeClient
    from netutil.client.cached import Cached
    from netutil.client.sync import Client, NodeClient

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
    "Cached",
    "CgroupLevel",
    "ClaimResource",
    "Client",
    "ContainerHugepages",
    "CpusetPartition",
    "Current",
    "DeadlineExceeded",
    "DefaultRoute",
    "Denied",
    "Device",
    "DeviceInfo",
    "DeviceSource",
    "DeviceType",
    "DeviceTypeSource",
    "Drift",
    "DynamicResource",
    "Environment",
    "HugepagePool",
    "HugepageUsage",
    "Hugepages",
    "Inconsistent",
    "Interface",
    "Interfaces",
    "InvalidRequest",
    "LimitReached",
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
    "NotFound",
    "NotIdentified",
    "NumaHugepages",
    "Observation",
    "PCIDevice",
    "PCIInfo",
    "PartError",
    "Pod",
    "Resources",
    "Unavailable",
    "Unreachable",
    "VDPADevice",
    "VhostUserDevice",
]

_CLIENTS = {
    "Client": "netutil.client.sync",
    "NodeClient": "netutil.client.sync",
    "Cached": "netutil.client.cached",
    "AsyncCached": "netutil.client.async_cached",
    "AsyncClient": "netutil.client.asynchronous",
    "AsyncNodeClient": "netutil.client.asynchronous",
}


def __getattr__(name: str) -> object:
    """Load a client at its first use (PEP 562)."""
    if name not in _CLIENTS:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_CLIENTS[name]), name)
