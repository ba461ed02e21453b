"""Where the agent listens, and how a gRPC channel to it is set up.

The agent identifies a caller by its connection: the process that opened it. So
every client has a connection of its own, opened at its first call, and may not be
used by a process that was forked after that call.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of the agent's two sockets: what names its path, and advice for each failure.

    `if_refused` is for a socket file on which nothing accepts connections, `if_unimplemented` for
    a server that has no such method.
    """

    option: str
    variable: str
    default_path: str
    if_missing: str
    if_denied: str
    if_refused: str
    if_unimplemented: str

    def path(self, given: str | os.PathLike[str] | None) -> str:
        """Absolute path of the socket: as given, else from the environment, else the default."""
        chosen = os.fspath(given) if given is not None else os.environ.get(self.variable, "")
        return os.path.abspath(chosen or self.default_path)


PUBLIC: Final = Endpoint(
    option="--socket",
    variable="NETUTIL_SOCKET",
    default_path="/etc/netutil/net.sock",
    if_missing="mount the hostPath directory /run/netutil at /etc/netutil (the directory, not the "
    "socket in it), and see that the agent runs on this node",
    if_denied="if it is the agent's operator socket (admin.sock), which is for root only, name the "
    "pods' socket instead: --socket, NETUTIL_SOCKET, by default /etc/netutil/net.sock; if not, let "
    "the node's security policy (SELinux, AppArmor) allow the pod to connect to it",
    if_refused="if the agent on this node is restarting, this passes; if not, see that it runs "
    "there, that the pod mounts the directory and not the socket file in it, and that the pod has "
    "the node's own kernel (not a VM or sandbox as of Kata or gVisor)",
    if_unimplemented="if the socket is the agent's operator socket (admin.sock), name the pods' "
    "socket instead: --socket, NETUTIL_SOCKET, by default /etc/netutil/net.sock; if not, the agent "
    "is older than this client: update the agent",
)
OPERATOR: Final = Endpoint(
    option="--admin-socket",
    variable="NETUTIL_ADMIN_SOCKET",
    default_path="/run/netutil-admin/admin.sock",
    if_missing="run this on the node itself, and see that the agent runs there with an operator "
    "socket (--admin-socket)",
    if_denied="run this as root",
    if_refused="the agent on this node has ended or is restarting: see its pod and its log",
    if_unimplemented="if the socket is the pods' socket (net.sock), name the operator socket "
    "instead: --admin-socket, NETUTIL_ADMIN_SOCKET, by default /run/netutil-admin/admin.sock; if "
    "not, the agent is older than this client: update the agent",
)

CHANNEL_OPTIONS: Final[list[tuple[str, str | int]]] = [
    # A server may refuse the default authority of a Unix socket, its path.
    ("grpc.default_authority", "localhost"),
    # A connection is an identity: share none between channels of a process.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    # netutil.client.rpc.retry alone decides about retries ...
    ("grpc.enable_retries", 0),
    # ... and must not wait for gRPC's own pauses between connects (1 s, then more).
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # The agent bounds its answers; an environment may exceed gRPC's 4 MiB.
    ("grpc.max_receive_message_length", -1),
]


def target(path: str) -> str:
    """gRPC target of a Unix socket at an absolute path."""
    return "unix:" + quote(os.fsencode(path))


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration of every client, synchronous or not."""

    endpoint: Endpoint
    path: str
    timeout_seconds: float

    @classmethod
    def checked(
        cls, endpoint: Endpoint, socket: str | os.PathLike[str] | None, timeout_seconds: float
    ) -> Settings:
        """The settings; ValueError if the timeout is no positive, finite number."""
        if not (timeout_seconds > 0 and math.isfinite(timeout_seconds)):
            msg = f"timeout_seconds is {timeout_seconds}: it takes a positive number of seconds"
            raise ValueError(msg)
        return cls(endpoint=endpoint, path=endpoint.path(socket), timeout_seconds=timeout_seconds)


class ForkGuard:
    """Refuses the use of a connection in any process but the one that opened it."""

    __slots__ = ("_pid",)

    def __init__(self) -> None:
        self._pid = os.getpid()

    def check(self) -> None:
        """RuntimeError in any other process: the agent would answer about the opener."""
        if os.getpid() != self._pid:
            msg = f"this client was opened by process {self._pid}: make a new one after a fork"
            raise RuntimeError(msg)
