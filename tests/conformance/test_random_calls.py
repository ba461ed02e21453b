"""Calls of every kind, with anything wrong in them: what is left of them afterwards is nothing."""

from __future__ import annotations

import asyncio
import gzip
import random

import pytest
from netutil.agent.grpcserver import MessageLimits, ServerConfig, StreamLimits
from netutil.agent.grpcserver import frames as f

from tests.support.grpcserver.raw import serving
from tests.support.grpcserver.requests import (
    ABORTS,
    BOTH,
    LARGE,
    MANY,
    SLOW,
    UNREAD,
    block,
    headers,
)
from tests.support.http2 import message

PATHS = (
    *(ABORTS, BOTH, LARGE, MANY, SLOW, UNREAD, "/test.Echo/Unary", "/test.Echo/Fails"),
    *("/test.Echo/Generates", "/test.Echo/Collect", "/no/such"),
)
CONFIG = ServerConfig(
    streams=StreamLimits(max_errors=10**6),
    messages=MessageLimits(max_request_bytes=20_000, max_buffered_request_bytes=20_000),
)


def body(choose: random.Random) -> bytes:
    """Messages: good, compressed, with a bad flag, too large, cut off."""
    parts = [
        message(b"3"),
        message(choose.randbytes(choose.choice((0, 100, 5000)))),
        message(gzip.compress(b"3"), 1),
        message(gzip.compress(bytes(30_000)), 1),
        message(b"3", choose.choice((1, 2, 255))),
        message(bytes(15_000))[: choose.randrange(15_000)],
        message(bytes(21_000))[:300],
    ]
    weights = (20, 5, 5, 1, 1, 2, 1)
    return b"".join(choose.choices(parts, weights, k=choose.choice((0, 1, 1, 1, 2, 5))))


def call(stream: int, choose: random.Random) -> list[bytes]:
    """The frames of one call."""
    head = block(
        p_path=choose.choice(PATHS),
        grpc_encoding=choose.choice(("gzip", "identity", "snappy")),
        grpc_timeout=choose.choice(("5S", "5S", "5S", "1m", "0n", "x")),
    )
    sent = [headers(stream, head)]
    left = body(choose)
    while left:
        size = choose.choice((1, 5, 100, 16_000))
        sent.append(f.frame(f.DATA, 0, stream, left[:size]))
        left = left[size:]
        if len(sent) > 40:
            break
    match choose.randrange(4):
        case 0:
            sent.append(f.rst_stream(stream, 8))
        case 1:
            sent.append(f.window_update(stream, choose.randrange(1, 100)))
        case _:
            sent.append(f.frame(f.DATA, f.END_STREAM, stream))
    return sent


@pytest.mark.parametrize("seed", range(40))
async def test_calls_of_any_kind_leave_no_handler_and_no_window_bytes(seed: int) -> None:
    choose = random.Random(seed)  # noqa: S311 - it only has to vary
    async with serving(CONFIG) as bench:
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=choose.choice((0, 50, 65_535)))
        await client.until(f.SETTINGS)
        (connection,) = bench.server.connections
        http2 = connection.http2
        sent = 0
        calls = [call(stream, choose) for stream in range(1, 81, 2)]
        last = 0
        begun: list[list[bytes]] = []
        while calls or begun:
            if calls and (not begun or not choose.randrange(4)):
                head, *rest = calls.pop(0)
                client.send(head)
                begun.append(rest)
                last += 1
            one = choose.choice(begun)
            frame = one.pop(0)
            if not one:
                begun.remove(one)
            # A client keeps to the windows, which its other frames may have closed.
            if frame[3] == f.DATA and len(frame) - 9 > http2._receive_window - sent:
                await asyncio.sleep(0.002)
                sent = 0
                if len(frame) - 9 > http2._receive_window:
                    continue
            sent += len(frame) - 9
            client.send(frame)
            if not choose.randrange(10):
                await asyncio.sleep(0)
        for stream in range(1, 2 * last, 2):
            client.send(f.rst_stream(stream, 8))
        client.send(f.window_update(0, 2**20), f.settings_frame({f.INITIAL_WINDOW_SIZE: 2**20}))
        client.send(f.frame(f.PING, 0, 0, b"the last"))
        while (await client.until(f.PING)).payload != b"the last":
            pass
        await bench.until_running(0)
        assert not http2.streams
        assert connection._held_bytes == 0
        assert http2._receive_window + http2._unreturned == f.DEFAULT_WINDOW
        await client.lives(1001)
