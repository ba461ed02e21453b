"""A gRPC server for connections that others accept."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

import grpc
from netutil.agent.grpcserver.ancillary import Closer
from netutil.agent.grpcserver.call import Call, Method, Status
from netutil.agent.grpcserver.config import ServerConfig
from netutil.agent.grpcserver.headers import FirstBlocks
from netutil.agent.grpcserver.poller import Poller
from netutil.agent.grpcserver.protocol import READ_BYTES, Connection

_LOG = logging.getLogger(__name__)


class CallPolicy(Protocol):
    """What decides about calls and connections beside their protocol."""

    def admit(self, call: Call) -> Status | None:
        """Return why a call is refused, on its headers alone; None admits it.

        `finished` follows for each call that was admitted.
        """

    def rejected(self, call: Call, status: Status) -> Status:
        """Note that the server rejects a call that was admitted; return how it ends."""

    def finished(self, call: Call) -> None:
        """The handler and the stream of a call have ended."""

    def may_process(self, connection: Connection) -> bool:
        """Return whether a portion of what was read of a connection may be processed now.

        Or one of a large response sent.
        """

    def may_resume(self, connection: Connection) -> bool:
        """Return whether a handler of a connection may go on now that has waited."""

    def wait(self, connection: Connection, work: Callable[[], None]) -> None:
        """Call `work` once, in the order of the connection."""

    def forget(self, connection: Connection, work: Callable[[], None]) -> None:
        """Call `work` no more."""

    def resumed(self, connection: Connection, seconds: float) -> None:
        """Note the time that a step of a handler has taken after its first wait."""

    def processed(self, connection: Connection, seconds: float, overhead: int) -> None:
        """Note the time that was spent on a connection, and the frames that brought nothing.

        `overhead` is in units of one frame, less what the requests among them account for.
        """

    def closed(self, peer: Any, calls: int) -> None:
        """A connection has ended, or could not be served. `calls` is how many were admitted."""


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
        self,
        config: ServerConfig | None = None,
        policy: CallPolicy | None = None,
        closer: Closer | None = None,
    ) -> None:
        """`closer` is for listeners that do not refuse descriptors: each read looks for them."""
        self.config = config or ServerConfig()
        self.policy = policy
        self.loop = asyncio.get_running_loop()
        self.buffer = memoryview(bytearray(READ_BYTES))
        self.first_blocks = FirstBlocks()
        self.connections: set[Connection] = set()
        self.poller = Poller(self.loop)
        self.closer = closer
        self._methods: dict[str, Method] = {}
        self._generic: list[Any] = []
        self._empty = asyncio.Event()
        self._empty.set()
        self._stopping = self._stopped = False

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

    def serve(self, accepted: socket.socket, peer: Any, max_age: float | None = None) -> None:
        """Serve an accepted connection, which does not block; `peer` is kept with it.

        After `max_age` seconds the connection is shut down as at `stop`, and closed 5 s later: the
        client connects again for its next call (grpc.max_connection_age_ms of C core).
        """
        # A handler may begin at once, which it cannot inside of a task.
        if asyncio.current_task(self.loop) is None:
            self._open(accepted, peer, max_age)
        else:
            self.loop.call_soon(self._open, accepted, peer, max_age)

    def _open(self, accepted: socket.socket, peer: Any, max_age: float | None) -> None:
        if self._stopped:
            self._reject(accepted, peer)
            return
        connection = Connection(self, peer, accepted, max_age)
        try:
            connection.open()
        except Exception as error:  # noqa: BLE001 - a bug, whose traceback the loop's handler logs
            connection.fail(error)

    @property
    def waiting_to_close(self) -> int:
        """Return how many connections have ended and are not closed yet (see `Closer`)."""
        return 0 if self.closer is None else self.closer.waiting

    def close_accepted(self, accepted: socket.socket) -> None:
        """Close an accepted connection that is not served, and what its peer has passed."""
        if self.closer is not None:
            self.closer.release(accepted, _do_nothing)
        accepted.close()

    def _reject(self, accepted: socket.socket, peer: Any) -> None:
        self.release(accepted, peer, 0)
        accepted.close()

    def release(self, accepted: socket.socket, peer: Any, calls: int) -> None:
        """Let the policy forget a connection, which is closed next.

        Where its peer has passed descriptors, the policy counts it until these are closed: so the
        connections of a pod that wait for that are as few as its connections may be.
        """
        policy = self.policy
        closed = _do_nothing if policy is None else partial(policy.closed, peer, calls)
        if self.closer is None or not self.closer.release(accepted, partial(self._soon, closed)):
            closed()

    def _soon(self, callback: Callable[[], None]) -> None:
        """Call a function on the loop; also called by other threads."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing is counted any more
            self.loop.call_soon_threadsafe(callback)

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
        await asyncio.sleep(0)  # connections that a task has accepted open before this returns
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
        self._stopped = True
        self.poller.close()


def _do_nothing() -> None:
    """Nothing counts the connection."""


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
