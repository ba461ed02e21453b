"""Ask the netutil agent of this node about the calling process and its pod.

    from netutil.client import Client, NotFound

    with Client() as agent:
        print(agent.cpu().cpuset, agent.pod().name)

`AsyncClient` is the same for asyncio, `NodeClient` and `AsyncNodeClient` ask the
operator socket about the whole node. Make a client after a fork, never before:
the agent identifies a caller by the connection.

Importing this package loads nothing else; a name below loads what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netutil.client.asynchronous import AsyncClient, AsyncNodeClient
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
    """Load an exported name at its first use (PEP 562)."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    modules = [_CLIENTS[name]] if name in _CLIENTS else ["netutil.client.errors"]
    modules.append("netutil.client.results")
    for module in map(import_module, modules):
        if hasattr(module, name):
            globals()[name] = getattr(module, name)
            return globals()[name]
    raise AssertionError(name)
