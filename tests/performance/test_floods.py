"""A flood is what it is named for: no mistake of its own ends it before it has cost anything."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from netutil.agent.grpcserver.frames import ErrorCode

from tests.support import http2
from tests.support.attacks import connection_floods
from tests.support.attacks.frame_floods import FLOODS
from tests.support.attacks.header_floods import HEADER_FLOODS
from tests.support.attacks.sender import Blocks
from tests.support.grpcserver.raw import Bench, RawClient, serving

BLOCKS = 5
WHOLE_CALLS = sum(map(len, itertools.islice(FLOODS["calls"](), 2)))
"""Bytes, of which the flood of single bytes is made too."""
FAULTS = {
    ErrorCode.PROTOCOL_ERROR,
    ErrorCode.FLOW_CONTROL_ERROR,
    ErrorCode.STREAM_CLOSED,
    ErrorCode.FRAME_SIZE_ERROR,
    ErrorCode.COMPRESSION_ERROR,
}
MEANT = {
    "frame-of-16-mib": {ErrorCode.FRAME_SIZE_ERROR},
    "garbage": {ErrorCode.FRAME_SIZE_ERROR},
    "reset-by-window-of-0": {ErrorCode.PROTOCOL_ERROR},
    "reset-by-window-overflow": {ErrorCode.FLOW_CONTROL_ERROR},
    "reset-by-priority-size": {ErrorCode.FRAME_SIZE_ERROR},
    "reset-by-data-after-end": {ErrorCode.STREAM_CLOSED},
}
"""The errors that an attack is about."""
HELD: dict[str, Callable[[], Blocks]] = {
    "streams-never-end": lambda: iter([connection_floods.open_streams(b"")]),
    "half-a-message": lambda: iter(
        [connection_floods.open_streams(http2.message(bytes(1000))[:100])]
    ),
}
EVERY = {**FLOODS, **HEADER_FLOODS, **HELD}


async def answer(request: bytes, context: Any) -> bytes:
    return b""


async def watch(request: bytes, context: Any) -> None:
    await context.write(b"x")
    await asyncio.Event().wait()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    methods: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(answer) for name in ("GetPod", "GetAll", "GetEnv")
    }
    methods["Watch"] = grpc.unary_stream_rpc_method_handler(watch)
    async with serving() as found:
        found.server.add_registered_method_handlers("v1alpha.NetUtil", methods)
        yield found


async def errors(client: RawClient, seen: set[int]) -> None:
    """Add the codes of RST_STREAM and GOAWAY until the connection ends."""
    while (frame := await client.frame()) is not None:
        if frame.kind == http2.RST_STREAM:
            seen.add(struct.unpack(">I", frame.payload)[0])
        elif frame.kind == http2.GOAWAY:
            seen.add(struct.unpack(">I", frame.payload[4:8])[0])
        elif frame.kind == http2.PING and frame.payload == b"the last":
            return


@pytest.mark.parametrize("name", EVERY)
async def test_a_flood_is_ended_by_no_other_fault_than_it_is_about(name: str, bench: Bench) -> None:
    client = await bench.connect(hello=False)
    seen: set[int] = set()
    reading = asyncio.create_task(errors(client, seen))
    count = WHOLE_CALLS if name == "one-byte-writes" else BLOCKS
    for block in itertools.islice(EVERY[name](), count):
        client.send(block)
        # The server reads and answers, then the client reads: a client that writes to a socket
        # whose peer has closed ends with EPIPE, and asyncio's reads no GOAWAY after that.
        for _ in range(3):
            await asyncio.sleep(0)
        if reading.done():
            break
    if name in ("continuation", "empty-continuation"):  # within a header block is no other frame
        client.writer.write_eof()
    else:
        client.send(http2.frame(http2.PING, 0, 0, b"the last"))
    await reading
    assert seen & FAULTS == MEANT.get(name, set())


async def test_the_short_form_of_a_request_is_the_same_request(bench: Bench) -> None:
    client = await bench.connect()
    client.send(http2.request(1, http2.request_headers("GetPod")))
    client.send(http2.request(3, http2.REQUEST_AGAIN))
    assert (await client.answer(1))[0]["grpc-status"] == "0"
    assert (await client.answer(3))[0]["grpc-status"] == "0"
