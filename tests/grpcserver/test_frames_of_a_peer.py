"""RFC 9113 and 7541: what a server must make of a peer's frames, over a real socket pair."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import pytest
from netutil.agent.grpcserver import ServerConfig
from netutil.agent.grpcserver import frames as f
from netutil.agent.grpcserver.frames import ErrorCode
from netutil.agent.grpcserver.headers import encode_block

from tests.grpcserver.raw import fields, serving
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
async def test_what_is_not_http2_ends_at_once(first: bytes) -> None:
    async with serving() as bench:
        client = await bench.connect(hello=False)
        client.send(first)
        _, code, _ = await client.goaway()
        assert code == ErrorCode.PROTOCOL_ERROR
        await client.ends()


def block(**changed: str | None) -> bytes:
    return encode_block(fields(**changed))


def headers(stream: int, data: bytes, flags: int = f.END_HEADERS) -> bytes:
    return f.frame(f.HEADERS, flags, stream, data)


GOOD = headers(1, block())
CONNECTION_ERRORS: dict[str, tuple[bytes, ErrorCode]] = {
    "an even stream": (headers(2, block()), ErrorCode.PROTOCOL_ERROR),
    "HEADERS on stream 0": (headers(0, block()), ErrorCode.PROTOCOL_ERROR),
    "DATA on stream 0": (f.frame(f.DATA, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "DATA on an idle stream": (f.frame(f.DATA, 0, 5, b"x"), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM of an idle stream": (f.rst_stream(5, 8), ErrorCode.PROTOCOL_ERROR),
    "WINDOW_UPDATE of an idle stream": (f.window_update(5, 1), ErrorCode.PROTOCOL_ERROR),
    "WINDOW_UPDATE of nothing": (f.window_update(0, 0), ErrorCode.PROTOCOL_ERROR),
    "a window past 2^31-1": (f.window_update(0, f.MAX_WINDOW), ErrorCode.FLOW_CONTROL_ERROR),
    "WINDOW_UPDATE too short": (f.frame(f.WINDOW_UPDATE, 0, 0, b"x"), ErrorCode.FRAME_SIZE_ERROR),
    "RST_STREAM too short": (f.frame(f.RST_STREAM, 0, 1, b"x"), ErrorCode.FRAME_SIZE_ERROR),
    "PING too short": (f.frame(f.PING, 0, 0, b"x"), ErrorCode.FRAME_SIZE_ERROR),
    "PING on a stream": (f.frame(f.PING, 0, 1, b"x" * 8), ErrorCode.PROTOCOL_ERROR),
    "SETTINGS on a stream": (f.frame(f.SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "SETTINGS of five bytes": (f.frame(f.SETTINGS, 0, 0, b"x" * 5), ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS ACK with content": (
        f.frame(f.SETTINGS, f.ACK, 0, b"x" * 6),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "ENABLE_PUSH of 2": (f.settings_frame({f.ENABLE_PUSH: 2}), ErrorCode.PROTOCOL_ERROR),
    "MAX_FRAME_SIZE of 1": (f.settings_frame({f.MAX_FRAME_SIZE: 1}), ErrorCode.PROTOCOL_ERROR),
    "MAX_FRAME_SIZE of 2^24": (
        f.settings_frame({f.MAX_FRAME_SIZE: 2**24}),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "INITIAL_WINDOW_SIZE of 2^31": (
        f.settings_frame({f.INITIAL_WINDOW_SIZE: 2**31}),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "GOAWAY on a stream": (f.frame(f.GOAWAY, 0, 1, b"x" * 8), ErrorCode.PROTOCOL_ERROR),
    "PUSH_PROMISE": (f.frame(f.PUSH_PROMISE, 4, 1, b"x" * 4), ErrorCode.PROTOCOL_ERROR),
    "CONTINUATION of nothing": (f.frame(f.CONTINUATION, 4, 1), ErrorCode.PROTOCOL_ERROR),
    "a frame within a header block": (
        headers(1, block(), 0) + f.frame(f.PING, 0, 0, b"x" * 8),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "an unknown frame within a header block": (
        headers(1, block(), 0) + f.frame(99, 0, 0, b"x"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "CONTINUATION of another stream": (
        headers(1, block(), 0) + f.frame(f.CONTINUATION, 4, 3),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "PRIORITY of stream 0": (f.frame(f.PRIORITY, 0, 0, b"x" * 5), ErrorCode.PROTOCOL_ERROR),
    "more padding than payload": (
        headers(1, b"\xff" + block(), f.END_HEADERS | f.PADDED),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "an index that is not in the table": (headers(1, b"\xff\x7f"), ErrorCode.COMPRESSION_ERROR),
    "index 0": (headers(1, b"\x80"), ErrorCode.COMPRESSION_ERROR),
    "a string that is cut off": (headers(1, b"\0\x7f"), ErrorCode.COMPRESSION_ERROR),
    "an integer without end": (headers(1, b"\xff" * 20), ErrorCode.COMPRESSION_ERROR),
    "a table larger than announced": (
        headers(1, b"\x3f\xe2\x1f" + block()),
        ErrorCode.COMPRESSION_ERROR,
    ),
    "a table update after a field": (headers(1, b"\x83\x20"), ErrorCode.COMPRESSION_ERROR),
    "bad Huffman padding": (headers(1, b"\0\x81\x00\x01a"), ErrorCode.COMPRESSION_ERROR),
    "a frame of 16 MiB, from its header alone": (
        b"\xff\xff\xff" + bytes(6),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "a header block of 128 CONTINUATIONs": (
        headers(1, block(), 0) + f.frame(f.CONTINUATION, 0, 1) * 128,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "one field, then thousands of references to it": (
        headers(1, block() + b"\x40\x01a\x7f\x81\x1e" + b"v" * 4000, 0)
        + f.frame(f.CONTINUATION, 4, 1, b"\xbe" * 10_000),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
}


@pytest.mark.parametrize("case", CONNECTION_ERRORS)
async def test_an_error_of_the_connection_is_told_before_the_close(case: str) -> None:
    sent, expected = CONNECTION_ERRORS[case]
    async with serving() as bench:
        client = await bench.connect()
        client.send(sent)
        _, code, _ = await client.goaway()
        assert ErrorCode(code) is expected
        await client.ends()


STREAM_ERRORS: dict[str, tuple[Callable[[], list[tuple[bytes, bytes]]], ErrorCode]] = {
    "no :method": (lambda: fields(p_method=None), ErrorCode.PROTOCOL_ERROR),
    "no :scheme": (lambda: fields(p_scheme=None), ErrorCode.PROTOCOL_ERROR),
    "no :path": (lambda: fields(p_path=None), ErrorCode.PROTOCOL_ERROR),
    ":path twice": (lambda: [(b":path", b"/"), *fields()], ErrorCode.PROTOCOL_ERROR),
    "an unknown pseudo-header": (lambda: [(b":x", b"/"), *fields()], ErrorCode.PROTOCOL_ERROR),
    ":status in a request": (lambda: [(b":status", b"200"), *fields()], ErrorCode.PROTOCOL_ERROR),
    "a late pseudo-header": (
        lambda: [*fields(p_path=None), (b":path", b"/")],
        ErrorCode.PROTOCOL_ERROR,
    ),
    "an upper-case name": (lambda: [*fields(), (b"Abc", b"x")], ErrorCode.PROTOCOL_ERROR),
    "an empty name": (lambda: [*fields(), (b"", b"x")], ErrorCode.PROTOCOL_ERROR),
    "a name with NUL": (lambda: [*fields(), (b"a\0", b"x")], ErrorCode.PROTOCOL_ERROR),
    "a value with a line's end": (lambda: [*fields(), (b"a", b"x\r\n")], ErrorCode.PROTOCOL_ERROR),
    "connection": (lambda: [*fields(), (b"connection", b"x")], ErrorCode.PROTOCOL_ERROR),
    "te: gzip": (lambda: fields(te="gzip"), ErrorCode.PROTOCOL_ERROR),
    "a content-length that is too small": (
        lambda: fields(content_length="4"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a content-length that is too large": (
        lambda: fields(content_length="6"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a content-length that is no number": (
        lambda: fields(content_length="x"),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "two content-lengths": (
        lambda: [*fields(content_length="5"), (b"content-length", b"6")],
        ErrorCode.PROTOCOL_ERROR,
    ),
}


@pytest.mark.parametrize("case", STREAM_ERRORS)
async def test_a_malformed_request_ends_its_stream_alone(case: str) -> None:
    make, expected = STREAM_ERRORS[case]
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1, head=make())
        reset = await client.until(f.RST_STREAM, 1)
        assert int.from_bytes(reset.payload, "big") == expected
        await client.lives()


@pytest.mark.parametrize(
    ("name", "sent", "code"),
    [
        ("DATA", f.frame(f.DATA, 0, 1, b"x"), ErrorCode.STREAM_CLOSED),
        ("nothing on HEADERS of itself", f.frame(f.PRIORITY, 0, 3, b"\0\0\0\3x"), None),
    ],
)
async def test_frames_on_a_stream_that_has_ended(
    name: str, sent: bytes, code: ErrorCode | None
) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1)
        await client.answer(1)
        client.send(sent)
        if code is None:
            _, found, _ = await client.goaway()
            assert found == ErrorCode.PROTOCOL_ERROR
            return
        reset = await client.until(f.RST_STREAM, 1)
        assert int.from_bytes(reset.payload, "big") == code
        await client.lives()


async def test_headers_on_a_stream_that_has_ended_end_the_connection() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1)
        await client.answer(1)
        client.ask(1)
        _, code, _ = await client.goaway()
        assert code == ErrorCode.STREAM_CLOSED


async def test_streams_past_the_limit_are_refused_and_the_others_unharmed() -> None:
    async with serving(ServerConfig(max_concurrent_streams=4)) as bench:
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


async def test_windows_are_kept_also_where_they_shrink_below_what_was_sent() -> None:
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


async def test_room_is_given_back_for_data_of_streams_that_are_refused_or_answered() -> None:
    async with serving(ServerConfig(max_concurrent_streams=1)) as bench:
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
        # Nobody takes its messages: the connection's window is used up, with no byte given back.
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
        room = ServerConfig().stream_window_bytes
        for at in range(0, len(whole), 4096):
            part = whole[at : at + 4096]
            while room < len(part):
                room += int.from_bytes((await client.until(f.WINDOW_UPDATE, 1)).payload, "big")
            room -= len(part)
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


async def test_many_streams_that_the_server_has_to_reset_end_the_connection() -> None:
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
    async with serving(ServerConfig(preface_timeout=0.1)) as bench:
        client = await bench.connect(hello=False)
        client.send(f.PREFACE)
        await client.ends()


def test_the_settings_frame_is_as_the_rfc_draws_it() -> None:
    assert f.settings_frame({3: 64}) == bytes([0, 0, 6, 4, 0, 0, 0, 0, 0]) + struct.pack(
        ">HI", 3, 64
    )
