"""Ask the netutil agent of this node about the calling process and its pod.

    from netutil.client import Client, NotFound

    with Client() as agent:
        print(agent.cpu().cpuset, agent.pod().name)

`AsyncClient` is the same for asyncio, `NodeClient` and `AsyncNodeClient` ask the
operator socket about the whole node. Make a client after a fork, never before:
the agent identifies a caller by the connection.

Importing this package loads neither gRPC nor protobuf; the first use of a client does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

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
from netutil.client.results import (
    CPU,
    DNS,
    DeviceInfo,
    Environment,
    MemifDevice,
    Network,
    NetworkSource,
    NetworkStatus,
    NodeContainer,
    NodePod,
    NodePods,
    PCIDevice,
    Pod,
    VDPADevice,
    VhostUserDevice,
)

if TYPE_CHECKING:
    from netutil.client.asynchronous import AsyncClient, AsyncNodeClient
    from netutil.client.sync import Client, NodeClient

__all__ = [
    "CPU",
    "DNS",
    "AsyncClient",
    "AsyncNodeClient",
    "Client",
    "DeadlineExceeded",
    "Denied",
    "DeviceInfo",
    "Environment",
    "Inconsistent",
    "InvalidRequest",
    "LimitReached",
    "MemifDevice",
    "NetUtilError",
    "Network",
    "NetworkSource",
    "NetworkStatus",
    "NodeClient",
    "NodeContainer",
    "NodePod",
    "NodePods",
    "NotFound",
    "NotIdentified",
    "PCIDevice",
    "Pod",
    "Unavailable",
    "Unreachable",
    "VDPADevice",
    "VhostUserDevice",
]

_CLIENTS = {
    "Client": "netutil.client.sync",
    "NodeClient": "netutil.client.sync",
    "AsyncClient": "netutil.client.asynchronous",
    "AsyncNodeClient": "netutil.client.asynchronous",
}


def __getattr__(name: str) -> object:
    """Load a client at its first use (PEP 562)."""
    if name not in _CLIENTS:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_CLIENTS[name]), name)
