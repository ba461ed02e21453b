"""RFC 9113, sections 5 and 6.8: states of streams, and what is kept of those that have ended."""

from __future__ import annotations

import gc

import pytest
from netutil.agent.grpcserver import ServerConfig, Timeouts
from netutil.agent.grpcserver import frames as f
from netutil.agent.grpcserver.frames import ErrorCode
from netutil.agent.grpcserver.http2 import Stream

from tests.support.grpcserver.raw import fields, serving
from tests.support.grpcserver.requests import ABORTS, LARGE, SLOW, block, headers, reset_code
from tests.support.http2 import message

IDLE: dict[str, bytes] = {
    "DATA": f.frame(f.DATA, f.END_STREAM, 1, b"test"),
    "RST_STREAM": f.rst_stream(1, 8),
    "WINDOW_UPDATE": f.window_update(1, 100),
    "CONTINUATION": f.frame(f.CONTINUATION, f.END_HEADERS, 1, block()),
}


@pytest.mark.parametrize("kind", IDLE)
async def test_a_frame_on_an_idle_stream_ends_the_connection(kind: str) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.send(IDLE[kind])
        _, code, _ = await client.goaway()
        assert code == ErrorCode.PROTOCOL_ERROR
        await client.ends()


@pytest.mark.parametrize("kind", ["DATA", "HEADERS"])
async def test_content_on_a_half_closed_stream_resets_it(kind: str) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1, head=fields(p_path=SLOW))
        await bench.until_running(1)
        last = f.frame(f.DATA, f.END_STREAM, 1, b"test")
        client.send(last if kind == "DATA" else headers(1, flags=f.END_HEADERS | f.END_STREAM))
        assert await reset_code(client, 1) == ErrorCode.STREAM_CLOSED
        await bench.until_running(0)
        await client.lives()


@pytest.mark.parametrize("state", ["half-closed", "reset", "answered"])
async def test_continuation_of_no_block_ends_the_connection(state: str) -> None:
    """[5.1/7, 5.1/10, 5.1/13]"""
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1, head=fields(p_path="/test.Echo/Unary" if state == "answered" else SLOW))
        if state == "reset":
            client.send(f.rst_stream(1, 8))
        elif state == "answered":
            await client.answer(1)
        client.send(f.frame(f.CONTINUATION, f.END_HEADERS, 1, block()))
        _, code, _ = await client.goaway()
        assert code == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "sent",
    [f.window_update(1, 100), f.frame(f.PRIORITY, 0, 1, b"\0\0\0\0\0"), f.rst_stream(1, 8)],
    ids=["WINDOW_UPDATE", "PRIORITY", "RST_STREAM"],
)
@pytest.mark.parametrize("path", [SLOW, "/test.Echo/Unary"], ids=["half-closed", "closed"])
async def test_frames_that_may_still_come_are_no_error(sent: bytes, path: str) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1, head=fields(p_path=path))
        if path != SLOW:
            await client.answer(1)
        client.send(sent)
        await client.lives(3)


async def test_data_after_the_peers_reset_is_an_error_of_its_stream() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.send(headers(1), f.rst_stream(1, 8), f.frame(f.DATA, f.END_STREAM, 1, b"test"))
        assert await reset_code(client, 1) == ErrorCode.STREAM_CLOSED
        await client.lives()


async def test_headers_after_the_peers_own_reset_end_the_connection() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.send(headers(1), f.rst_stream(1, 8), headers(1))
        _, code, _ = await client.goaway()
        assert code == ErrorCode.STREAM_CLOSED


async def test_a_stream_lower_than_an_earlier_one_ends_the_connection() -> None:
    """5.1.1 says PROTOCOL_ERROR, 5.1 STREAM_CLOSED: what was never opened is closed as well."""
    async with serving() as bench:
        client = await bench.connect()
        client.ask(5)
        await client.answer(5)
        client.ask(3)
        _, code, _ = await client.goaway()
        assert code == ErrorCode.STREAM_CLOSED


async def test_calls_sent_before_the_limit_is_known_are_no_offence() -> None:
    """Its frames for streams that were refused follow when hundreds more have been refused."""
    async with serving() as bench:
        client = await bench.connect()
        last = 1001
        for stream in range(1, last, 2):
            client.send(headers(stream, block(p_path=SLOW)))
        for stream in range(1, last, 2):
            client.send(f.frame(f.DATA, f.END_STREAM, stream, message()))
        await bench.until_running(64)
        client.send(f.frame(f.PING, 0, 0, bytes(8)))
        refused = set()
        while (frame := await client.frame()) is not None and frame.kind != f.PING:
            assert frame.kind != f.GOAWAY
            if frame.kind == f.RST_STREAM:
                assert int.from_bytes(frame.payload, "big") == ErrorCode.REFUSED_STREAM
                refused.add(frame.stream)
        assert len(refused) == 500 - 64
        bench.echo.gate.set()
        client.ask(last)
        assert (await client.answer(last))[0]["grpc-status"] in {"0", "reset"}


async def test_streams_reset_behind_a_full_window_are_released() -> None:
    async with serving() as bench:
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=f.MAX_WINDOW)
        client.ask(1, message(b"70000"), head=fields(p_path=LARGE))
        taken = 0
        while taken < f.DEFAULT_WINDOW:
            taken += len((await client.until(f.DATA, 1)).payload)
        for stream in range(3, 603, 2):
            client.ask(stream, message(b"10"), head=fields(p_path=LARGE))
            await client.until(f.HEADERS, stream)
            client.send(f.rst_stream(stream, ErrorCode.CANCEL))
        client.send(f.frame(f.PING, 0, 0, bytes(8)))
        await client.until(f.PING)
        gc.collect()
        kept = [one for one in gc.get_objects() if isinstance(one, Stream)]
        assert len(kept) <= 2


async def test_a_later_goaway_never_names_a_later_stream() -> None:
    async with serving(ServerConfig(timeouts=Timeouts(graceful_ping=0.01))) as bench:
        client = await bench.connect()
        client.ask(1, head=fields(p_path=SLOW))
        await bench.until_running(1)
        (connection,) = bench.server.connections
        connection.shut_down()
        assert (await client.goaway())[0] == f.MAX_STREAM_ID
        assert (await client.goaway())[0] == 1
        client.ask(3)
        client.send(f.frame(f.PING, 0, 1, bytes(8)))
        last, code, _ = await client.goaway()
        assert (last, code) == (1, ErrorCode.PROTOCOL_ERROR)
        await client.ends()


async def test_streams_after_the_last_goaway_are_passed_over() -> None:
    async with serving(ServerConfig(timeouts=Timeouts(graceful_ping=0.01))) as bench:
        client = await bench.connect()
        client.ask(1, head=fields(p_path=SLOW))
        await bench.until_running(1)
        (connection,) = bench.server.connections
        connection.shut_down()
        await client.goaway()
        await client.goaway()
        for stream in range(3, 703, 2):
            client.send(headers(stream, block(p_path=ABORTS)))
        for stream in range(3, 703, 2):
            client.send(f.frame(f.DATA, f.END_STREAM, stream, message()))
        client.send(f.frame(f.PING, 0, 0, bytes(8)))
        frame = await client.until(f.PING)
        while frame.flags != f.ACK:
            frame = await client.until(f.PING)
        bench.echo.gate.set()
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        await client.ends()
