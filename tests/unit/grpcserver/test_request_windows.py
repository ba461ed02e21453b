"""Large requests: all of them end, and the server holds little meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from netutil.agent.grpcserver import MessageLimits, PingLimits, ServerConfig
from netutil.agent.grpcserver import frames as f
from netutil.agent.grpcserver.headers import encode_block

from tests.support.grpcserver.raw import RawClient, fields, serving
from tests.support.http2 import message

CONFIG = ServerConfig(pings=PingLimits(min_interval=0))
LARGE = message(bytes(60_000))
UNREAD = "/test.Echo/Unread"


class Uploads:
    """Requests that are sent piece by piece, alternately, as far as the windows go."""

    def __init__(self, client: RawClient, *, ends: bool = True) -> None:
        self._client = client
        self._ends = ends
        self._connection_window = f.DEFAULT_WINDOW
        self._windows: dict[int, int] = {}
        self._left: dict[int, bytes] = {}
        self.sent = 0
        self.statuses: dict[int, str] = {}
        client.send(f.frame(f.SETTINGS, f.ACK, 0))

    def begin(self, stream: int, body: bytes, path: str = "/test.Echo/Unary") -> None:
        head = encode_block(fields(p_path=path))
        self._client.send(f.header_frames(stream, head, end_stream=False))
        self._windows[stream], self._left[stream] = CONFIG.streams.window_bytes, body

    async def run(self) -> None:
        """Send until all is sent, or nothing can be."""
        # Twice: the answer to a PING comes before what else is to be sent.
        while self._send_some() or await self._read() or await self._read():
            pass

    def reset_all(self) -> None:
        for stream in self._left:
            self._client.send(f.rst_stream(stream, f.ErrorCode.CANCEL))
        self._left.clear()

    def _send_some(self) -> bool:
        before = self.sent
        for stream, left in list(self._left.items()):
            size = min(1000, self._windows[stream], self._connection_window, len(left))
            if size > 0:
                end = f.END_STREAM if size == len(left) and self._ends else 0
                self._client.send(f.frame(f.DATA, end, stream, left[:size]))
                self._left[stream] = left[size:]
                self._windows[stream] -= size
                self._connection_window -= size
                self.sent += size
            if size == len(left) and self._ends:
                del self._left[stream]
        return self.sent > before

    async def _read(self) -> bool:
        """Take what the server has sent; return whether there was more than the PING's answer."""
        self._client.send(f.frame(f.PING, 0, 0, bytes(8)))
        brought = False
        while True:
            frame = await self._client.frame()
            assert frame is not None
            if frame.kind == f.PING and frame.flags & f.ACK:
                return brought
            brought = brought or frame.kind in (f.WINDOW_UPDATE, f.HEADERS, f.DATA)
            if frame.kind == f.WINDOW_UPDATE:
                self._add(frame.stream, int.from_bytes(frame.payload, "big"))
            elif frame.kind == f.DATA:
                self._client.send(f.window_update(0, len(frame.payload) or 1))
            elif frame.kind == f.HEADERS:
                status = self._client.decoded(frame).get("grpc-status")
                if status is not None:
                    self.statuses[frame.stream] = status

    def _add(self, stream: int, size: int) -> None:
        if stream:
            self._windows[stream] += size
        else:
            self._connection_window += size


async def test_large_interleaved_requests_all_end() -> None:
    async with serving(CONFIG) as bench:
        client = await bench.connect()
        uploads = Uploads(client)
        streams = range(1, 129, 2)
        for stream in streams:
            uploads.begin(stream, LARGE)
        await uploads.run()
        assert uploads.statuses == dict.fromkeys(streams, "0")


@pytest.mark.parametrize("seed", range(5))
async def test_streams_of_messages_of_any_size_all_end(seed: int) -> None:
    choose = random.Random(seed)  # noqa: S311

    async def count(requests: AsyncIterator[bytes], context: Any) -> bytes:
        total = 0
        async for request in requests:
            total += len(request)
            await asyncio.sleep(choose.choice((0, 0, 0.001)))
        return str(total).encode()

    async with serving(CONFIG) as bench:
        handler: Any = grpc.stream_unary_rpc_method_handler(count)
        bench.server.add_registered_method_handlers("test.Own", {"Count": handler})
        uploads = Uploads(await bench.connect())
        streams = range(1, 81, 2)
        for stream in streams:
            sizes = [choose.choice((0, 10, 3000, 5000, 60_000)) for _ in range(6)]
            body = b"".join(message(bytes(size)) for size in sizes)
            uploads.begin(stream, body, "/test.Own/Count")
        async with asyncio.timeout(60):
            while len(uploads.statuses) < len(streams):
                await uploads.run()
        assert uploads.statuses == dict.fromkeys(streams, "0")


async def test_endless_requests_hold_little_and_delay_no_small_one() -> None:
    async with serving(CONFIG) as bench:
        client = await bench.connect()
        uploads = Uploads(client, ends=False)
        streams = range(1, 121, 2)
        for stream in streams:
            uploads.begin(stream, LARGE[:-1])
        await uploads.run()
        most = CONFIG.messages.max_buffered_request_bytes + CONFIG.messages.max_request_bytes
        assert uploads.sent <= most + len(streams) * CONFIG.streams.window_bytes
        await client.lives(121)


async def test_messages_that_no_handler_takes_are_not_sent_without_end() -> None:
    async with serving(CONFIG) as bench:
        client = await bench.connect()
        uploads = Uploads(client)
        uploads.begin(1, LARGE * 50, UNREAD)
        await uploads.run()
        most = CONFIG.messages.max_buffered_request_bytes + 2 * CONFIG.messages.max_request_bytes
        assert uploads.sent <= most


async def test_requests_that_are_reset_free_their_window() -> None:
    async with serving(CONFIG) as bench:
        client = await bench.connect()
        uploads = Uploads(client, ends=False)
        for first in range(1, 401, 40):
            for stream in range(first, first + 40, 2):
                uploads.begin(stream, LARGE[:-1])
            await uploads.run()
            uploads.reset_all()
        uploads.begin(401, LARGE)  # and a unary call needs no more than its message
        await uploads.run()
        assert uploads.statuses[401] == "0"


async def test_a_waiting_call_with_enough_window_gets_no_more() -> None:
    gate = asyncio.Event()

    async def later(requests: AsyncIterator[bytes], context: Any) -> bytes:
        await gate.wait()
        return b",".join([request async for request in requests])

    async with serving(ServerConfig(messages=MessageLimits(max_buffered_request_bytes=0))) as bench:
        handler: Any = grpc.stream_unary_rpc_method_handler(later)
        bench.server.add_registered_method_handlers("test.Own", {"Later": handler})
        client = await bench.connect()
        client.send(f.frame(f.SETTINGS, f.ACK, 0))
        # All that the connection may hold is this one's.
        client.ask(1, LARGE[:4000], end=False)
        assert (await client.until(f.WINDOW_UPDATE)).stream == 1
        client.ask(3, b"", end=False, head=fields(p_path="/test.Own/Later"))
        earlier, last = message(bytes(1500)), message(bytes(3000))
        for data in (earlier, earlier, last[:1000]):
            client.send(f.frame(f.DATA, 0, 3, data))
        client.send(f.frame(f.PING, 0, 0, bytes(8)))
        await client.until(f.PING)
        gate.set()
        assert (await client.until(f.WINDOW_UPDATE)).stream == 3
        for at in range(4000, len(LARGE), 8000):
            end = f.END_STREAM if at + 8000 >= len(LARGE) else 0
            client.send(f.frame(f.DATA, end, 1, LARGE[at : at + 8000]))
        client.send(f.window_update(0, 2**20), f.window_update(1, 2**20))
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        client.send(f.frame(f.DATA, f.END_STREAM, 3, last[1000:]))
        assert (await client.answer(3))[0]["grpc-status"] == "0"
