"""A gRPC server on a private path behind a door: opened in order, drained in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from netutil.agent.door.door import Door
from netutil.agent.listener.ownership import SocketWatch
from netutil.agent.service.admission import Admission

_GRACE_SECONDS = 10.0
_GRPC_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    ("grpc.max_concurrent_streams", 64),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.so_reuseport", 0),
    # One connection's reads may not grow to 4 MiB each, gRPC's own bound.
    ("grpc.experimental.tcp_max_read_chunk_size", 64 * 1024),
)
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


@contextlib.asynccontextmanager
async def served(
    path: Path,
    door: Door,
    socket_watch: SocketWatch,
    add: Callable[[grpc.aio.Server], tuple[str, ...]],
    admission: Admission,
    end_streams: Callable[[], None] | None = None,
) -> AsyncIterator[None]:
    """Serve gRPC on a private path behind a door, until the end of the block; then drain.

    Raises OSError if the private path cannot be listened at.
    """
    server = grpc.aio.server(interceptors=(admission,), options=_GRPC_OPTIONS)
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    names = add(server)
    reflection.enable_server_reflection((*names, _HEALTH, reflection.SERVICE_NAME), server)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:  # gRPC's word for an errno that it does not tell
        raise OSError(f"gRPC cannot listen at its private path {path}: {error}") from None
    await server.start()
    for name in ("", *names):
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    door.open()
    watch_task = asyncio.create_task(socket_watch.run(), name="socket watch")
    try:
        yield
    finally:
        watch_task.cancel()
        await asyncio.gather(watch_task, return_exceptions=True)
        door.close()
        if end_streams is not None:
            end_streams()
        await health.enter_graceful_shutdown()
        await server.stop(_GRACE_SECONDS)
        await door.drop_all()
