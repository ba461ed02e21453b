"""RFC 9113, sections 4 to 6: each kind of frame, as it may be and as it may not.

The names in brackets are the cases of h2spec that a case here is like.
"""

from __future__ import annotations

import pytest
from netutil.agent.grpcserver import frames as f
from netutil.agent.grpcserver.frames import ErrorCode

from tests.support.grpcserver.raw import fields, serving
from tests.support.grpcserver.requests import LARGE, SLOW, block, headers, reset_code
from tests.support.http2 import message

SELF = b"\0\0\0\1\x10"
ON_ZERO = b"\0\0\0\0\x10"
END = f.frame(f.DATA, f.END_STREAM, 1, message(b"x"))


def padded(data: bytes, padding: int = 5) -> bytes:
    return bytes([padding]) + data + bytes(padding)


BLOCK = block()
FINE: dict[str, bytes] = {
    "several DATA frames [generic 3.1/2]": headers(1)
    + b"".join(f.frame(f.DATA, 0, 1, message(b"x")[at : at + 1]) for at in range(6))
    + f.frame(f.DATA, f.END_STREAM, 1),
    "padded DATA [generic 3.1/3]": headers(1)
    + f.frame(f.DATA, f.PADDED | f.END_STREAM, 1, padded(message(b"x"))),
    "DATA of padding alone": headers(1) + f.frame(f.DATA, f.PADDED, 1, padded(b"", 255)) + END,
    "DATA of no padding": headers(1) + f.frame(f.DATA, f.PADDED, 1, b"\0") + END,
    "padded HEADERS [generic 3.2/2]": headers(1, padded(BLOCK), f.END_HEADERS | f.PADDED) + END,
    "HEADERS with a priority [generic 3.2/3]": headers(
        1, ON_ZERO + BLOCK, f.END_HEADERS | f.PRIORITY_FLAG
    )
    + END,
    "padded HEADERS with a priority": headers(
        1, padded(ON_ZERO + BLOCK), f.END_HEADERS | f.PRIORITY_FLAG | f.PADDED
    )
    + END,
    "PRIORITY of an idle stream [generic 2/1, generic 3.3/1]": f.frame(
        f.PRIORITY, 0, 1, ON_ZERO[:4] + b"\0"
    )
    + headers(1)
    + END,
    "PRIORITY of weight 256 [generic 3.3/2]": f.frame(f.PRIORITY, 0, 1, ON_ZERO[:4] + b"\xff")
    + headers(1)
    + END,
    "PRIORITY that depends on an idle stream [generic 3.3/3]": f.frame(
        f.PRIORITY, 0, 1, b"\0\0\0\x63\x01"
    )
    + headers(1)
    + END,
    "exclusive PRIORITY [generic 3.3/4]": f.frame(f.PRIORITY, 0, 1, b"\x80\0\0\0\x01")
    + headers(1)
    + END,
    "PRIORITY of a higher stream [generic 3.3/5]": f.frame(f.PRIORITY, 0, 99, ON_ZERO)
    + headers(1)
    + END,
    "CONTINUATION [generic 3.10/1]": headers(1, BLOCK[:9], 0)
    + f.frame(f.CONTINUATION, f.END_HEADERS, 1, BLOCK[9:])
    + END,
    "CONTINUATION thrice, also empty [generic 3.10/2, 6.10/1]": headers(1, BLOCK[:9], 0)
    + f.frame(f.CONTINUATION, 0, 1, BLOCK[9:20])
    + f.frame(f.CONTINUATION, 0, 1)
    + f.frame(f.CONTINUATION, f.END_HEADERS, 1, BLOCK[20:])
    + END,
    "a header block that begins with nothing": headers(1, b"", 0)
    + f.frame(f.CONTINUATION, f.END_HEADERS, 1, BLOCK)
    + END,
    "an unknown frame [4.1/1, 5.5/1]": f.frame(0xFA, 0xFF, 0, b"x" * 100)
    + headers(1)
    + f.frame(0xFA, 0xFF, 1)
    + END,
    "flags that are not defined [4.1/2]": f.frame(f.PING, 0xFE, 0, b"12345678")
    + headers(1, None, f.END_HEADERS | 0xD2)
    + END,
    "the reserved bit [4.1/3]": headers(1 | 1 << 31) + END,
    "unexpected PING ACK": f.frame(f.PING, f.ACK, 0, b"x" * 8) * 20 + headers(1) + END,
    "SETTINGS that are unknown [6.5.2/5]": f.settings_frame({0xFE03: 1, 8: 1, 0: 7})
    + headers(1)
    + END,
    "unexpected SETTINGS ACK": f.frame(f.SETTINGS, f.ACK, 0) * 2 + headers(1) + END,
    "the smallest and largest MAX_FRAME_SIZE": f.settings_frame({f.MAX_FRAME_SIZE: 2**14})
    + f.settings_frame({f.MAX_FRAME_SIZE: 2**24 - 1})
    + headers(1)
    + END,
    "WINDOW_UPDATE of both [generic 3.9/1, generic 3.9/2]": f.window_update(0, 1)
    + headers(1)
    + f.window_update(1, 2**31 - 1 - f.DEFAULT_WINDOW)
    + END,
    "WINDOW_UPDATE with the reserved bit": f.frame(f.WINDOW_UPDATE, 0, 0, b"\x80\0\0\1")
    + headers(1)
    + END,
    "GOAWAY with an unknown error": headers(1) + f.goaway(0, 0xFF, b"why") + END,
}


@pytest.mark.parametrize("case", FINE)
async def test_a_request_beside_permitted_frames_is_answered(case: str) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.send(FINE[case])
        found, data = await client.answer(1)
        assert (found["grpc-status"], data) == ("0", message(b"x"))


PROTOCOL, SIZE = ErrorCode.PROTOCOL_ERROR, ErrorCode.FRAME_SIZE_ERROR
FATAL: dict[str, tuple[bytes, ErrorCode]] = {
    "DATA larger than announced [4.2/2]": (
        headers(1) + f.frame(f.DATA, 0, 1, bytes(16_385)),
        SIZE,
    ),
    "HEADERS larger than announced [4.2/3]": (headers(1, bytes(16_385)), SIZE),
    "an invalid header block [4.3/1]": (headers(1, b"\x40"), ErrorCode.COMPRESSION_ERROR),
    "PRIORITY within a block [4.3/2, 6.2/1]": (
        headers(1, BLOCK, 0) + f.frame(f.PRIORITY, 0, 1, ON_ZERO),
        PROTOCOL,
    ),
    "HEADERS of another stream within a block [4.3/3, 6.2/2]": (
        headers(1, BLOCK, 0) + headers(3),
        PROTOCOL,
    ),
    "DATA with too much padding [6.1/3]": (
        headers(1) + f.frame(f.DATA, f.PADDED, 1, b"\xff" + message()),
        PROTOCOL,
    ),
    "DATA with all of it padding, and one more": (
        headers(1) + f.frame(f.DATA, f.PADDED, 1, b"\1"),
        PROTOCOL,
    ),
    "padded DATA of no bytes": (headers(1) + f.frame(f.DATA, f.PADDED, 1), SIZE),
    "padded HEADERS of no bytes": (headers(1, b"", f.PADDED | f.END_HEADERS), SIZE),
    "HEADERS too short for their priority": (
        headers(1, b"\0\0\0\0", f.PRIORITY_FLAG | f.END_HEADERS),
        SIZE,
    ),
    "PRIORITY of four bytes on an idle stream [6.3/2]": (f.frame(f.PRIORITY, 0, 1, bytes(4)), SIZE),
    "RST_STREAM of stream 0 [6.4/1]": (f.rst_stream(0, 8), PROTOCOL),
    "RST_STREAM of five bytes [6.4/3]": (headers(1) + f.frame(f.RST_STREAM, 0, 1, bytes(5)), SIZE),
    "ENABLE_PUSH of 2, then of 0": (
        f.frame(f.SETTINGS, 0, 0, b"\0\2\0\0\0\2" + b"\0\2\0\0\0\0"),
        PROTOCOL,
    ),
    "INITIAL_WINDOW_SIZE too large, then not": (
        f.frame(f.SETTINGS, 0, 0, b"\0\4\x80\0\0\0" + b"\0\4\0\0\0\0"),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "PING of nine bytes [6.7/4]": (f.frame(f.PING, 0, 0, bytes(9)), SIZE),
    "GOAWAY of seven bytes": (f.frame(f.GOAWAY, 0, 0, bytes(7)), SIZE),
    "WINDOW_UPDATE of three bytes [6.9/3]": (f.frame(f.WINDOW_UPDATE, 0, 0, bytes(3)), SIZE),
    "an even stream [5.1.1/1]": (headers(2), PROTOCOL),
    "HEADERS on stream 0 [6.2/3]": (headers(0), PROTOCOL),
    "DATA on stream 0 [6.1/1]": (f.frame(f.DATA, 0, 0, b"x"), PROTOCOL),
    "PRIORITY of stream 0 [6.3/1]": (f.frame(f.PRIORITY, 0, 0, b"x" * 5), PROTOCOL),
    "PRIORITY of an idle stream that depends on itself [5.3.1/2]": (
        f.frame(f.PRIORITY, 0, 1, SELF),
        PROTOCOL,
    ),
    "RST_STREAM of one byte": (f.frame(f.RST_STREAM, 0, 1, b"x"), SIZE),
    "SETTINGS on a stream [6.5/2]": (f.frame(f.SETTINGS, 0, 1), PROTOCOL),
    "SETTINGS of five bytes [6.5/3]": (f.frame(f.SETTINGS, 0, 0, b"x" * 5), SIZE),
    "SETTINGS ACK with content [6.5/1]": (f.frame(f.SETTINGS, f.ACK, 0, b"x" * 6), SIZE),
    "ENABLE_PUSH of 2 [6.5.2/1]": (f.settings_frame({f.ENABLE_PUSH: 2}), PROTOCOL),
    "INITIAL_WINDOW_SIZE of 2^31 [6.5.2/2, 6.9.2/3]": (
        f.settings_frame({f.INITIAL_WINDOW_SIZE: 2**31}),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "MAX_FRAME_SIZE of 16383 [6.5.2/3]": (f.settings_frame({f.MAX_FRAME_SIZE: 16_383}), PROTOCOL),
    "MAX_FRAME_SIZE of 2^24 [6.5.2/4]": (f.settings_frame({f.MAX_FRAME_SIZE: 2**24}), PROTOCOL),
    "PUSH_PROMISE [8.2/1]": (f.frame(f.PUSH_PROMISE, 4, 1, b"x" * 4), PROTOCOL),
    "PING of one byte": (f.frame(f.PING, 0, 0, b"x"), SIZE),
    "PING on a stream [5.4.1/1, 5.4.1/2, 6.7/3]": (f.frame(f.PING, 0, 1, b"x" * 8), PROTOCOL),
    "GOAWAY on a stream [6.8/1]": (f.frame(f.GOAWAY, 0, 1, b"x" * 8), PROTOCOL),
    "WINDOW_UPDATE of nothing [6.9/1]": (f.window_update(0, 0), PROTOCOL),
    "the connection's window past 2^31-1 [6.9.1/2]": (
        f.window_update(0, f.MAX_WINDOW),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "PING within a block": (headers(1, BLOCK, 0) + f.frame(f.PING, 0, 0, b"x" * 8), PROTOCOL),
    "an unknown frame within a block [5.5/2]": (
        headers(1, BLOCK, 0) + f.frame(99, 0, 0, b"x"),
        PROTOCOL,
    ),
    "HEADERS with too much padding [6.2/4]": (
        headers(1, b"\xff" + BLOCK, f.END_HEADERS | f.PADDED),
        PROTOCOL,
    ),
    "a frame of 16 MiB, from its header alone": (b"\xff\xff\xff" + bytes(6), SIZE),
    "CONTINUATION of another stream": (
        headers(1, BLOCK, 0) + f.frame(f.CONTINUATION, f.END_HEADERS, 3),
        PROTOCOL,
    ),
    "a header block of 128 CONTINUATIONs": (
        headers(1, BLOCK, 0) + f.frame(f.CONTINUATION, 0, 1) * 128,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "one field, then thousands of references to it": (
        headers(1, BLOCK + b"\x40\x01a\x7f\x81\x1e" + b"v" * 4000, 0)
        + f.frame(f.CONTINUATION, f.END_HEADERS, 1, b"\xbe" * 10_000),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "CONTINUATION, then DATA [6.10/2]": (
        headers(1, BLOCK[:9], 0) + f.frame(f.CONTINUATION, 0, 1, BLOCK[9:]) + END,
        PROTOCOL,
    ),
    "CONTINUATION of stream 0 [6.10/3]": (
        headers(1, BLOCK[:9], 0) + f.frame(f.CONTINUATION, f.END_HEADERS, 0, BLOCK[9:]),
        PROTOCOL,
    ),
    "CONTINUATION after a whole block [6.10/4]": (
        headers(1) + f.frame(f.CONTINUATION, f.END_HEADERS, 1),
        PROTOCOL,
    ),
    "CONTINUATION after the last one [6.10/5]": (
        headers(1, BLOCK[:9], 0)
        + f.frame(f.CONTINUATION, f.END_HEADERS, 1, BLOCK[9:])
        + f.frame(f.CONTINUATION, f.END_HEADERS, 1),
        PROTOCOL,
    ),
    "CONTINUATION after DATA [6.10/6]": (
        headers(1) + f.frame(f.DATA, 0, 1, b"x") + f.frame(f.CONTINUATION, f.END_HEADERS, 1),
        PROTOCOL,
    ),
    "a stream's window past 2^31-1 by SETTINGS": (
        headers(1, block(p_path=SLOW))
        + f.window_update(1, 2**31 - 1 - f.DEFAULT_WINDOW)
        + f.settings_frame({f.INITIAL_WINDOW_SIZE: f.DEFAULT_WINDOW + 1}),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
}


@pytest.mark.parametrize("case", FATAL)
async def test_an_error_of_the_connection_is_sent_before_its_end(case: str) -> None:
    sent, expected = FATAL[case]
    async with serving() as bench:
        client = await bench.connect()
        client.send(sent)
        _, code, _ = await client.goaway()
        assert ErrorCode(code) is expected
        await client.ends()


OF_A_STREAM: dict[str, tuple[bytes, ErrorCode]] = {
    "HEADERS that depend on themselves [5.3.1/1]": (
        headers(1, SELF + BLOCK, f.END_HEADERS | f.PRIORITY_FLAG),
        PROTOCOL,
    ),
    "PRIORITY of an open stream that depends on itself": (
        headers(1) + f.frame(f.PRIORITY, 0, 1, SELF),
        PROTOCOL,
    ),
    "PRIORITY of four bytes on an open stream": (
        headers(1) + f.frame(f.PRIORITY, 0, 1, bytes(4)),
        SIZE,
    ),
    "WINDOW_UPDATE of nothing [6.9/2]": (headers(1) + f.window_update(1, 0), PROTOCOL),
    "a window past 2^31-1 [6.9.1/3]": (
        headers(1) + f.window_update(1, 2**31 - 1) * 2,
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
}


@pytest.mark.parametrize("case", OF_A_STREAM)
async def test_an_error_of_a_stream_ends_it_alone(case: str) -> None:
    sent, expected = OF_A_STREAM[case]
    async with serving() as bench:
        client = await bench.connect()
        client.send(sent)
        assert await reset_code(client, 1) == expected
        await client.lives()


async def test_the_largest_frame_is_taken() -> None:
    """[4.2/1]"""
    async with serving() as bench:
        client = await bench.connect()
        whole = message(bytes(16_384 - 5))
        client.ask(1, whole)
        assert (await client.answer(1))[1] == whole


async def test_padding_counts_in_the_windows_and_is_given_back() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.send(headers(1, block(p_path=SLOW)))
        for _ in range(2000):
            client.send(f.frame(f.DATA, f.PADDED, 1, padded(b"", 99)))
            await client.writer.drain()
        client.ask(3)
        assert (await client.answer(3))[0]["grpc-status"] == "0"


async def test_the_last_initial_window_of_a_frame_counts() -> None:
    """[6.5.3/1]"""
    async with serving() as bench:
        client = await bench.connect()
        values = b"\0\4" + (100).to_bytes(4, "big") + b"\0\4" + (1).to_bytes(4, "big")
        client.send(f.frame(f.SETTINGS, 0, 0, values))
        client.ask(1, message(b"x"))
        assert (await client.until(f.DATA, 1)).payload == b"\0"


async def test_a_window_of_one_byte_is_filled_byte_by_byte() -> None:
    """[6.9.1/1, 6.9.2/1]"""
    async with serving() as bench:
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=1)
        client.ask(1, message(b"xy"))
        got = b""
        while len(got) < 7:
            payload = (await client.until(f.DATA, 1)).payload
            assert len(payload) == 1
            got += payload
            client.send(f.window_update(1, 1))
        assert got == message(b"xy")
        assert (await client.until(f.HEADERS, 1)).flags & f.END_STREAM


async def test_pings_of_one_read_are_answered_in_their_order() -> None:
    """Node.js takes the answers for those of its pings, one after another."""
    async with serving() as bench:
        client = await bench.connect()
        await client.until(f.SETTINGS)
        await client.until(f.SETTINGS)
        client.send(*(f.frame(f.PING, 0, 0, bytes([number]) * 8) for number in range(3)))
        answers = [(await client.until(f.PING)).payload[0] for _ in range(3)]
        assert answers == [0, 1, 2]


async def test_a_ping_is_answered_before_the_data_of_the_same_read() -> None:
    """6.7: before other output. [6.7/1]"""
    async with serving() as bench:
        client = await bench.connect()
        await client.until(f.SETTINGS)
        await client.until(f.SETTINGS)
        client.ask(1, message(b"50000"), head=fields(p_path=LARGE))
        client.send(f.frame(f.PING, 0, 0, b"12345678"))
        first = await client.frame()
        assert first is not None
        assert (first.kind, first.flags, first.payload) == (f.PING, f.ACK, b"12345678")
        assert len((await client.answer(1))[1]) == 50_005


async def test_a_window_that_opens_after_the_request_is_used() -> None:
    """[6.9.2/1]"""
    async with serving() as bench:
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=0)
        client.ask(1, message(b"x"))
        await client.until(f.HEADERS, 1)
        client.send(f.settings_frame({f.INITIAL_WINDOW_SIZE: 1}))
        assert (await client.until(f.DATA, 1)).payload == b"\0"


async def test_an_answered_ping_is_not_answered_again() -> None:
    """[6.7/2]"""
    async with serving() as bench:
        client = await bench.connect()
        client.send(f.frame(f.PING, f.ACK, 0, b"answered"), f.frame(f.PING, 0, 0, b"question"))
        found = await client.until(f.PING)
        assert (found.flags, found.payload) == (f.ACK, b"question")
        await client.lives()


@pytest.mark.parametrize("code", [ErrorCode.NO_ERROR, 0xFF])
async def test_goaway_without_an_open_call_ends_the_connection(code: int) -> None:
    """[generic 3.8/1, 7/1]"""
    async with serving() as bench:
        client = await bench.connect()
        client.send(f.goaway(0, code, b"h2spec"))
        await client.ends()


async def test_a_reset_with_an_unknown_code_is_a_reset() -> None:
    """[generic 3.4/1, 7/2]"""
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1, head=fields(p_path=SLOW))
        await bench.until_running(1)
        client.send(f.rst_stream(1, 0xFF))
        await bench.until_running(0)
        await client.lives()
