"""Serves gRPC on one socket: starts the parts in order, and drains them in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import cast

import grpc
from netutil.agent.connections.admission import AdmissionRules, ConnectionAdmission
from netutil.agent.connections.policy import PodPolicy, ServerSizes
from netutil.agent.grpcserver import HeaderLimits, MessageLimits, Server, ServerConfig
from netutil.agent.grpcserver.ancillary import Closer
from netutil.agent.grpcserver.standard_services import HEALTH, add_health, add_reflection
from netutil.agent.identity.pidfd import PinPeer
from netutil.agent.listener.acceptor import Acceptor
from netutil.agent.listener.ownership import SocketHealth, SocketWatch
from netutil.agent.listener.unix_socket import Listener

_GRACE_SECONDS = 10.0
MAX_REQUEST_BYTES = 64 * 1024


def server_config(sizes: ServerSizes) -> ServerConfig:
    """Return the configuration of a gRPC server of the agent."""
    return ServerConfig(
        messages=MessageLimits(max_request_bytes=sizes.request_bytes),
        headers=HeaderLimits(max_list_bytes=sizes.header_bytes),
    )


@dataclass(frozen=True, slots=True)
class ServedSocket:
    """Parts of the server on one socket."""

    rules: AdmissionRules
    pin: PinPeer
    health: SocketHealth
    closer: Closer | None = None
    """None where the listener refuses descriptors."""


@contextlib.asynccontextmanager
async def serve(
    listener: Listener,
    served_socket: ServedSocket,
    policy: PodPolicy,
    add: Callable[[grpc.aio.Server], tuple[str, ...]],
    end_streams: Callable[[], None],
) -> AsyncIterator[Acceptor]:
    """Serve gRPC on a listener until the end of the block; then drain.

    `add` registers the services and returns their names. The block gets the acceptor, which has
    the listener in use.
    """
    server = Server(server_config(policy.sizes), policy, served_socket.closer)
    registering = cast("grpc.aio.Server", server)  # what generated code takes it for
    names = add(registering)
    health = await add_health(server, names)
    add_reflection(server, (*names, HEALTH))
    admission = ConnectionAdmission(server, policy, served_socket.rules)
    acceptor = Acceptor(listener, admission, served_socket.rules.counts.accept)
    socket_watch = SocketWatch(acceptor, served_socket.pin, served_socket.health)
    policy.scheduler.look_between((server.poller.look, acceptor.look))
    acceptor.open()
    watch_task = asyncio.create_task(socket_watch.run(), name="socket watch")
    try:
        yield acceptor
    finally:
        watch_task.cancel()
        await asyncio.gather(watch_task, return_exceptions=True)
        # First: watchers that reconnect at once go to the next agent.
        acceptor.close()
        end_streams()
        await health.enter_graceful_shutdown()
        await server.stop(_GRACE_SECONDS)
