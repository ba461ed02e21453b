"""A client that speaks HTTP/2 frame by frame, to a server on a socket pair in the same loop."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from hpack import Decoder
from netutil.agent.grpcserver import Server, ServerConfig
from netutil.agent.grpcserver.ancillary import Closer

from tests.support import http2
from tests.support.http2 import Frame, message

PATH = "/test.Echo/Unary"
_SECONDS = 5.0


def fields(**changed: str | None) -> list[tuple[bytes, bytes]]:
    """The fields of a good request; in a keyword `_` is a dash and `p_` a colon; None is absent."""
    request = http2.request_fields(PATH.encode())
    all_ = {name.decode(): value.decode() for name, value in request}
    for key, value in changed.items():
        name = f":{key[2:]}" if key.startswith("p_") else key.replace("_", "-")
        if value is None:
            del all_[name]
        else:
            all_[name] = value
    return [(name.encode(), value.encode()) for name, value in all_.items()]


class RawClient:
    """One connection. What it reads is parsed into frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.decoder = Decoder()

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    def hello(self, **settings: int) -> None:
        values = {getattr(http2, name): value for name, value in settings.items()}
        self.send(http2.PREFACE, http2.settings(values))

    def ask(
        self,
        stream: int = 1,
        body: bytes | None = None,
        *,
        end: bool = True,
        head: Iterable[tuple[bytes, bytes]] | None = None,
    ) -> None:
        """Send a request; without a body, an empty message."""
        block = http2.block(fields() if head is None else head)
        data = message() if body is None else body
        flags = http2.END_STREAM if end else 0
        self.send(http2.header_frames(stream, block))
        self.send(http2.frame(http2.DATA, flags, stream, data))

    async def frame(self) -> Frame | None:
        """The next frame, None at the end of the connection."""
        try:
            async with asyncio.timeout(_SECONDS):
                head = await self.reader.readexactly(http2.FRAME_HEADER_BYTES)
                size, found = http2.parse_frame_header(head)
                payload = await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return Frame(found.kind, found.flags, found.stream, payload)

    async def until(self, kind: int, stream: int | None = None) -> Frame:
        """The next frame of a kind, others passed over."""
        while True:
            found = await self.frame()
            assert found is not None, f"no frame of kind {kind} before the end"
            if found.kind == http2.HEADERS and kind != http2.HEADERS:
                self.decoder.decode(found.payload)
            if found.kind == kind and stream in (None, found.stream):
                return found

    def decoded(self, frame: Frame) -> dict[str, str]:
        """The fields of a header block, which are to be decoded in their order."""
        return {str(name): str(value) for name, value in self.decoder.decode(frame.payload)}

    async def answer(self, stream: int = 1) -> tuple[dict[str, str], bytes]:
        """All header fields of a response, and its data."""
        found: dict[str, str] = {}
        data = b""
        while True:
            frame = await self.frame()
            assert frame is not None, "the connection ended before the answer"
            if frame.kind == http2.HEADERS:
                decoded = self.decoded(frame)
                if frame.stream == stream:
                    found |= decoded
            if frame.stream != stream:
                continue
            if frame.kind == http2.RST_STREAM:
                return {"reset": str(int.from_bytes(frame.payload, "big"))}, data
            if frame.kind == http2.DATA:
                data += frame.payload
            if frame.kind in (http2.DATA, http2.HEADERS) and frame.flags & http2.END_STREAM:
                return found, data

    async def goaway(self) -> tuple[int, int, bytes]:
        """Last stream, code and debug data of the next GOAWAY."""
        payload = (await self.until(http2.GOAWAY)).payload
        return (*struct.unpack(">II", payload[:8]), payload[8:])

    async def ends(self) -> None:
        """Read to the end of the connection."""
        while await self.frame() is not None:
            pass

    async def lives_with_window(self, stream: int) -> None:
        """As `lives`, for a client whose streams have no window of their own."""
        self.ask(stream)
        self.send(http2.window_update(stream, 100))
        assert (await self.answer(stream))[0]["grpc-status"] == "0"

    async def lives(self, stream: int = 99) -> None:
        """A call on this connection is answered."""
        self.ask(stream)
        found, data = await self.answer(stream)
        assert (found.get("grpc-status"), data) == ("0", message()), found


class Echo:
    """Handlers of each kind, on bytes."""

    def __init__(self) -> None:
        self.running = 0
        self.ended: list[str] = []
        self.contexts: list[Any] = []
        self.gate = asyncio.Event()
        self.before_answer: Callable[[Any], None] = lambda _: None

    async def unary(self, request: bytes, context: Any) -> bytes:
        self.contexts.append(context)
        return request

    async def slow(self, request: bytes, context: Any) -> bytes:
        self.running += 1
        try:
            await self.gate.wait()
            return request
        finally:
            self.running -= 1
            self.ended.append("slow")

    async def large(self, request: bytes, context: Any) -> bytes:
        self.before_answer(context)
        return b"x" * int(request)

    async def fails(self, request: bytes, context: Any) -> bytes:
        raise ValueError("a secret of the handler")

    async def aborts(self, request: bytes, context: Any) -> bytes:
        details = (("grpc-status-details-bin", b"\1\2"),)
        await context.abort(grpc.StatusCode.NOT_FOUND, request.decode(), details)
        raise AssertionError

    async def many(self, request: bytes, context: Any) -> None:
        self.running += 1
        try:
            for number in range(int(request)):
                await context.write(str(number).encode() * 1000)
        finally:
            self.running -= 1
            self.ended.append("many")

    async def generates(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(3):
            yield str(number).encode()
        raise ValueError("midway")

    async def both(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    async def unread(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        await self.gate.wait()
        return b""

    async def collect(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b",".join([request async for request in requests])

    def handlers(self) -> dict[str, Any]:
        return {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Slow": grpc.unary_unary_rpc_method_handler(self.slow),
            "Large": grpc.unary_unary_rpc_method_handler(self.large),
            "Fails": grpc.unary_unary_rpc_method_handler(self.fails),
            "Aborts": grpc.unary_unary_rpc_method_handler(self.aborts),
            "Many": grpc.unary_stream_rpc_method_handler(self.many),
            "Generates": grpc.unary_stream_rpc_method_handler(self.generates),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
            "Unread": grpc.stream_unary_rpc_method_handler(self.unread),
            "Collect": grpc.stream_unary_rpc_method_handler(self.collect),
        }


@dataclass
class Bench:
    """A server with `Echo`, and connections to it."""

    server: Server
    echo: Echo
    clients: list[RawClient]

    async def until_running(self, count: int) -> None:
        """Wait until so many handlers run."""
        async with asyncio.timeout(_SECONDS):
            while self.echo.running != count:  # noqa: ASYNC110 - it is the thing under test
                await asyncio.sleep(0.001)

    async def connect(
        self, *, hello: bool = True, peer: Any = None, max_age: float | None = None
    ) -> RawClient:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.server.serve(theirs, peer, max_age)
        client = RawClient(*await asyncio.open_connection(sock=ours))
        self.clients.append(client)
        if hello:
            client.hello()
        return client


@asynccontextmanager
async def serving(
    config: ServerConfig | None = None, policy: Any = None, closer: Closer | None = None
) -> AsyncIterator[Bench]:
    server = Server(config, policy, closer)
    echo = Echo()
    server.add_registered_method_handlers("test.Echo", echo.handlers())
    bench = Bench(server, echo, [])
    try:
        yield bench
    finally:
        for client in bench.clients:
            client.writer.close()
        await server.stop(0)
        for client in bench.clients:
            await asyncio.gather(client.writer.wait_closed(), return_exceptions=True)
