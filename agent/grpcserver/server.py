"""A gRPC server for connections that others accept."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import grpc
from netutil.agent.grpcserver.call import Call, Method, Status
from netutil.agent.grpcserver.config import ServerConfig
from netutil.agent.grpcserver.protocol import READ_BYTES, Connection


class CallPolicy(Protocol):
    """What decides about calls and connections beside their protocol."""

    def admit(self, call: Call) -> Status | None:
        """Return why a call is refused, on its headers alone; None lets it pass.

        `finished` follows for each call, refused or not.
        """

    def finished(self, call: Call) -> None:
        """The handler of a call has ended, or will not be started."""

    def charge(self, connection: Connection, cost: int) -> float:
        """Note what a read of a connection cost; return for how many seconds not to read more."""


class _Details:
    """grpc.HandlerCallDetails, for generic handlers."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


class Server:
    """Serves grpcio's own handlers. Used on one event loop.

    `add_…Servicer_to_server` of generated code takes it for a `grpc.aio` server.
    """

    def __init__(
        self, config: ServerConfig | None = None, policy: CallPolicy | None = None
    ) -> None:
        self.config = config or ServerConfig()
        self.policy = policy
        self.loop = asyncio.get_running_loop()
        self.buffer = memoryview(bytearray(READ_BYTES))
        self.connections: set[Connection] = set()
        self._methods: dict[str, Method] = {}
        self._generic: list[Any] = []
        self._empty = asyncio.Event()
        self._empty.set()
        self._stopping = False

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[Any]) -> None:
        """Serve handlers that are asked for each method's name once."""
        self._generic += generic_rpc_handlers

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Any]
    ) -> None:
        """Serve the methods of a service."""
        for name, handler in method_handlers.items():
            path = f"/{service_name}/{name}"
            self._methods[path] = _method(path, handler)

    def find(self, path: str) -> Method | None:
        """Return the method at a path."""
        method = self._methods.get(path)
        if method is None:
            for generic in self._generic:
                handler = generic.service(_Details(path))
                if handler is not None:
                    return _method(path, handler)
        return method

    async def serve(self, accepted: socket.socket, peer: Any) -> Connection:
        """Serve one accepted connection; `peer` is kept with it. Raises OSError."""
        _, connection = await self.loop.connect_accepted_socket(
            lambda: Connection(self, peer), accepted
        )
        return connection

    def opened(self, connection: Connection) -> None:
        """Note a new connection."""
        self.connections.add(connection)
        self._empty.clear()
        if self._stopping:
            connection.shut_down()

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    async def stop(self, grace: float) -> None:
        """Let open calls end for `grace` seconds; end what is left then as UNAVAILABLE."""
        self._stopping = True
        for connection in list(self.connections):
            connection.shut_down()
        try:
            async with asyncio.timeout(grace):
                await self._empty.wait()
        except TimeoutError:
            ended = Status(grpc.StatusCode.UNAVAILABLE, "The server is shutting down.")
            for connection in list(self.connections):
                for stream in list(connection.http2.streams.values()):
                    if stream.call is not None:
                        stream.call.end(ended)
                        stream.call.cancel()
                connection.flush()
                connection.abort()
            await self._empty.wait()


def _method(path: str, handler: grpc.RpcMethodHandler[Any, Any]) -> Method:
    behavior = (
        (handler.stream_stream if handler.response_streaming else handler.stream_unary)
        if handler.request_streaming
        else (handler.unary_stream if handler.response_streaming else handler.unary_unary)
    )
    assert behavior is not None  # noqa: S101 - a handler has the one of its kind
    return Method(
        name=path,
        behavior=behavior,
        request_streaming=bool(handler.request_streaming),
        response_streaming=bool(handler.response_streaming),
        deserialize=handler.request_deserializer or bytes,
        serialize=handler.response_serializer or bytes,
    )
