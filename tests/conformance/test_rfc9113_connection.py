"""RFC 9113: a connection's preface, settings, windows, pings, limits and end.

The names in brackets are the cases of h2spec that a case here is like.
"""

from __future__ import annotations

import asyncio
import struct

import pytest
from netutil.agent.grpcserver import ServerConfig, StreamLimits, Timeouts
from netutil.agent.grpcserver import frames as f
from netutil.agent.grpcserver.frames import ErrorCode

from tests.support.grpcserver.raw import fields, serving
from tests.support.grpcserver.requests import block, headers
from tests.support.http2 import message


async def test_the_server_sends_settings_before_it_reads_anything() -> None:
    async with serving() as bench:
        client = await bench.connect(hello=False)
        first = await client.frame()
        assert first is not None
        assert (first.kind, first.flags, first.stream) == (f.SETTINGS, 0, 0)
        assert dict(f.parse_settings(first.payload))[f.MAX_CONCURRENT_STREAMS] == 64


async def test_settings_are_acknowledged_and_pings_echoed() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.send(f.frame(f.PING, 0, 0, b"12345678"))
        await client.until(f.SETTINGS)
        frames = [await client.frame(), await client.frame()]
        kinds = {(one.kind, one.flags, one.payload) for one in frames if one}
        assert kinds == {(f.SETTINGS, f.ACK, b""), (f.PING, f.ACK, b"12345678")}


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"PRI * HTTP/1"]
)
async def test_a_connection_that_is_not_http2_ends_at_once(first: bytes) -> None:
    async with serving() as bench:
        client = await bench.connect(hello=False)
        client.send(first)
        _, code, _ = await client.goaway()
        assert code == ErrorCode.PROTOCOL_ERROR
        await client.ends()


async def test_data_on_an_ended_stream_is_an_error_of_the_stream() -> None:
    """[5.1/11], which expects the connection to end; 6.1 of the RFC has it so."""
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1)
        await client.answer(1)
        client.send(f.frame(f.DATA, 0, 1, b"x"))
        reset = await client.until(f.RST_STREAM, 1)
        assert int.from_bytes(reset.payload, "big") == ErrorCode.STREAM_CLOSED
        await client.lives()


async def test_headers_on_a_stream_that_has_ended_end_the_connection() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1)
        await client.answer(1)
        client.ask(1)
        _, code, _ = await client.goaway()
        assert code == ErrorCode.STREAM_CLOSED


async def test_streams_past_the_limit_are_refused_and_others_continue() -> None:
    async with serving(ServerConfig(streams=StreamLimits(max_concurrent=4))) as bench:
        client = await bench.connect()
        for stream in range(1, 13, 2):
            client.ask(stream, head=fields(p_path="/test.Echo/Slow"))
        refused = {(await client.until(f.RST_STREAM)).stream for _ in range(2)}
        assert refused == {9, 11}
        bench.echo.gate.set()
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        await client.lives()


async def test_one_byte_at_a_time_is_a_request_like_another() -> None:
    async with serving() as bench:
        client = await bench.connect(hello=False)
        head = f.header_frames(1, block(), end_stream=False)
        data = f.frame(f.DATA, f.END_STREAM, 1, message(b"hello"))
        for byte in f.PREFACE + f.settings_frame({}) + head + data:
            client.send(bytes([byte]))
            await client.writer.drain()
            await asyncio.sleep(0)
        assert (await client.answer())[1] == message(b"hello")


async def test_windows_are_kept_also_when_they_shrink_below_zero() -> None:
    async with serving() as bench:
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=3)
        client.ask(1, message(b"100"), head=fields(p_path="/test.Echo/Large"))
        first = await client.until(f.DATA, 1)
        assert len(first.payload) == 3
        client.send(f.settings_frame({f.INITIAL_WINDOW_SIZE: 0}))  # now at -3
        client.send(f.window_update(1, 3))  # at 0
        client.send(f.frame(f.PING, 0, 0, b"12345678"))
        client.send(f.window_update(1, 2))
        second = await client.until(f.DATA, 1)
        assert len(second.payload) == 2
        client.send(f.window_update(1, 1000))
        rest = await client.until(f.DATA, 1)
        assert len(rest.payload) == 100
        assert (await client.until(f.HEADERS, 1)).flags & f.END_STREAM


async def test_the_connections_window_is_shared_and_kept() -> None:
    async with serving() as bench:
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=f.MAX_WINDOW)
        for stream in (1, 3):
            client.ask(stream, message(b"60000"), head=fields(p_path="/test.Echo/Large"))
        sent = 0
        while sent < f.DEFAULT_WINDOW:
            sent += len((await client.until(f.DATA)).payload)
        assert sent == f.DEFAULT_WINDOW
        client.send(f.window_update(0, 1_000_000))
        while sent < 2 * 60_005:
            sent += len((await client.until(f.DATA)).payload)
        assert sent == 2 * 60_005


async def test_data_of_refused_or_answered_streams_is_credited() -> None:
    async with serving(ServerConfig(streams=StreamLimits(max_concurrent=1))) as bench:
        client = await bench.connect()
        client.ask(1, head=fields(p_path="/test.Echo/Slow"))
        client.send(f.header_frames(3, block(), end_stream=False))
        for _ in range(20):
            client.send(f.frame(f.DATA, 0, 3, bytes(16_000)))
            await client.writer.drain()
        bench.echo.gate.set()
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        await client.lives()


async def test_more_than_the_window_is_an_error() -> None:
    async with serving() as bench:
        client = await bench.connect()
        # No handler takes its messages: the connection's window is used up, with no byte credited.
        client.send(f.header_frames(1, block(p_path="/test.Echo/Unread"), end_stream=False))
        client.send(f.frame(f.DATA, 0, 1, message(bytes(16_000))) * 4)
        client.send(f.frame(f.DATA, 0, 1, message(bytes(16_000))))
        _, code, _ = await client.goaway()
        assert code == ErrorCode.FLOW_CONTROL_ERROR
        await client.ends()


async def test_a_message_of_the_largest_size_fits_through_the_windows() -> None:
    async with serving() as bench:
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=2**20)
        client.send(f.window_update(0, 2**20), f.frame(f.SETTINGS, f.ACK, 0))
        whole = message(bytes(64 * 1024))
        client.send(f.header_frames(1, block(), end_stream=False))
        window = ServerConfig().streams.window_bytes
        for at in range(0, len(whole), 4096):
            part = whole[at : at + 4096]
            while window < len(part):
                window += int.from_bytes((await client.until(f.WINDOW_UPDATE, 1)).payload, "big")
            window -= len(part)
            last = f.END_STREAM if at + 4096 >= len(whole) else 0
            client.send(f.frame(f.DATA, last, 1, part))
        assert (await client.answer())[1] == whole


async def test_pings_without_calls_end_the_connection_with_its_reason() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.send(f.frame(f.PING, 0, 0, b"12345678") * 8)
        _, code, debug = await client.goaway()
        assert (code, debug) == (ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")
        await client.ends()


async def test_pings_between_answers_are_no_strikes() -> None:
    async with serving() as bench:
        client = await bench.connect()
        for stream in range(1, 41, 2):
            client.send(f.frame(f.PING, 0, 0, b"12345678"))
            client.ask(stream)
            assert (await client.answer(stream))[0]["grpc-status"] == "0"


async def test_too_many_server_resets_end_the_connection() -> None:
    """CVE-2025-8671: frames that make the server reset, so that its limit of streams is none."""
    async with serving() as bench:
        client = await bench.connect()
        for stream in range(1, 501, 2):
            client.send(f.header_frames(stream, block(p_path="/test.Echo/Slow"), end_stream=False))
            client.send(f.window_update(stream, 0))
        _, code, debug = await client.goaway()
        assert (code, debug) == (ErrorCode.ENHANCE_YOUR_CALM, b"too_many_stream_errors")
        await client.ends()
        assert bench.echo.running == 0


async def test_a_peers_table_size_changes_nothing_that_is_sent() -> None:
    async with serving() as bench:
        client = await bench.connect(hello=False)
        client.hello(HEADER_TABLE_SIZE=2**32 - 1)
        for stream in range(1, 101, 2):
            head = fields(p_path="/test.Echo/Aborts")
            client.ask(stream, message(f"text {stream}".encode()), head=head)
            assert (await client.answer(stream))[0]["grpc-message"] == f"text {stream}"
        assert not client.decoder.header_table.dynamic_entries


async def test_the_clients_table_is_followed() -> None:
    """Fields that the first request adds are references in those after it."""
    added = b"".join(
        b"\x40" + bytes([len(name)]) + name + bytes([len(value)]) + value
        for name, value in fields()
    )
    references = bytes(0x80 | (62 + index) for index in range(5, -1, -1))
    async with serving() as bench:
        client = await bench.connect()
        for stream, data in ((1, added), (3, references), (5, references)):
            client.send(headers(stream, data))
            client.send(f.frame(f.DATA, f.END_STREAM, stream, message(b"x")))
            assert (await client.answer(stream))[1] == message(b"x")


async def test_a_goaway_of_the_client_lets_open_calls_end() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1, head=fields(p_path="/test.Echo/Slow"))
        client.send(f.goaway(0, 0))
        await asyncio.sleep(0.05)
        bench.echo.gate.set()
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        await client.ends()


async def test_a_client_that_closes_its_half_is_answered() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1)
        client.writer.write_eof()
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        await client.ends()


async def test_a_silent_connection_is_closed_after_its_time() -> None:
    async with serving(ServerConfig(timeouts=Timeouts(preface=0.1))) as bench:
        client = await bench.connect(hello=False)
        client.send(f.PREFACE)
        await client.ends()


def test_the_settings_frame_is_as_the_rfc_draws_it() -> None:
    assert f.settings_frame({3: 64}) == bytes([0, 0, 6, 4, 0, 0, 0, 0, 0]) + struct.pack(
        ">HI", 3, 64
    )
