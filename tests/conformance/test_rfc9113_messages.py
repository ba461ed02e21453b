"""RFC 9113, section 8: what a request must be, its content and its trailers."""

from __future__ import annotations

import pytest
from netutil.agent.grpcserver import frames as f
from netutil.agent.grpcserver.frames import ErrorCode
from netutil.agent.grpcserver.headers import Field, encode_block

from tests.support.grpcserver.raw import fields, serving
from tests.support.grpcserver.requests import block, headers, reset_code
from tests.support.http2 import message


def with_field(name: str, value: str) -> list[Field]:
    return [*fields(), (name.encode(), value.encode())]


MALFORMED: dict[str, list[Field]] = {
    "no :method [8.1.2.3/2]": fields(p_method=None),
    "no :scheme [8.1.2.3/3]": fields(p_scheme=None),
    "no :path [8.1.2.3/4]": fields(p_path=None),
    ":path twice [8.1.2.3/7]": [(b":path", b"/"), *fields()],
    "an unknown pseudo-header [8.1.2.1/1]": [(b":x", b"/"), *fields()],
    ":status in a request [8.1.2.1/2]": [(b":status", b"200"), *fields()],
    "a late pseudo-header [8.1.2.1/4]": [*fields(p_path=None), (b":path", b"/")],
    "an upper-case name [8.1.2/1]": with_field("Abc", "x"),
    "an empty name": with_field("", "x"),
    "NUL in a name": with_field("a\0", "x"),
    "a value with a line's end": with_field("a", "x\r\n"),
    "te: gzip": fields(te="gzip"),
    "a content-length that is too small [8.1.2.6/1]": fields(content_length="4"),
    "a content-length that is too large": fields(content_length="6"),
    "a content-length that is no number": fields(content_length="x"),
    "two content-lengths": [*fields(content_length="5"), (b"content-length", b"6")],
    ":method twice [8.1.2.3/5]": [(b":method", b"POST"), *fields()],
    ":scheme twice [8.1.2.3/6]": [(b":scheme", b"http"), *fields()],
    ":authority twice": [(b":authority", b"x"), *fields()],
    "CONNECT, which has no path": fields(p_method="CONNECT", p_path=None, p_scheme=None),
    ":protocol, which was not announced": [(b":protocol", b"websocket"), *fields()],
    **{
        f"{name} [8.1.2.2/1]": with_field(name, "x")
        for name in (
            "connection",
            "keep-alive",
            "proxy-connection",
            "transfer-encoding",
            "upgrade",
        )
    },
    "te with more than trailers [8.1.2.2/2]": fields(te="trailers, deflate"),
    "NUL in :path": fields(p_path="/a\0b"),
    "CR in :path": fields(p_path="/a\rb"),
    "LF in :authority": fields(p_authority="a\nb"),
    "NUL in a value": with_field("a", "x\0y"),
    "a blank in a name": with_field("a b", "x"),
    "a colon within a name": with_field("a:b", "x"),
    "a name that is not ASCII": with_field("é", "x"),
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_request_that_is_malformed_ends_its_stream_alone(case: str) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1, head=MALFORMED[case])
        assert await reset_code(client, 1) == ErrorCode.PROTOCOL_ERROR
        await client.lives()


async def test_content_in_several_frames_has_the_length_that_was_said() -> None:
    """[8.1.2.6/2]"""
    async with serving() as bench:
        client = await bench.connect()
        client.send(headers(1, block(content_length="6")))
        for byte in message(b"x"):
            client.send(f.frame(f.DATA, 0, 1, bytes([byte])))
        client.send(f.frame(f.DATA, f.END_STREAM, 1))
        assert (await client.answer(1))[1] == message(b"x")
        client.send(headers(3, block(content_length="7")))
        client.send(f.frame(f.DATA, 0, 3, message(b"x")[:3]))
        client.send(f.frame(f.DATA, f.END_STREAM, 3, message(b"x")[3:]))
        while (frame := await client.until(f.RST_STREAM, 3)).payload[3] == ErrorCode.NO_ERROR:
            pass
        assert int.from_bytes(frame.payload, "big") == ErrorCode.PROTOCOL_ERROR
        await client.lives()


async def test_padding_is_no_part_of_the_content() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.send(headers(1, block(content_length="6")))
        data = b"\4" + message(b"x") + bytes(4)
        client.send(f.frame(f.DATA, f.PADDED | f.END_STREAM, 1, data))
        assert (await client.answer(1))[1] == message(b"x")


@pytest.mark.parametrize("length", ["0", "1"])
async def test_headers_that_end_the_stream_have_no_content(length: str) -> None:
    async with serving() as bench:
        client = await bench.connect()
        head = block(content_length=length)
        client.send(headers(1, head, f.END_HEADERS | f.END_STREAM))
        found, _ = await client.answer(1)
        assert found == {"reset": "1"} if length == "1" else found["grpc-status"] == "12"
        await client.lives()


TRAILERS: dict[str, tuple[list[Field], int, bool]] = {
    "end the request [generic 4/4]": ([(b"x", b"y")], f.END_STREAM, True),
    "are ignored, whatever gRPC would make of them": (
        [(b"grpc-timeout", b"0n"), (b"grpc-status", b"9")],
        f.END_STREAM,
        True,
    ),
    "may be empty": ([], f.END_STREAM, True),
    "do not go on [8.1/1]": ([(b"x", b"y")], 0, False),
    "have no pseudo-header [8.1.2.1/3]": ([(b":path", b"/")], f.END_STREAM, False),
    "have no upper-case names": ([(b"X", b"y")], f.END_STREAM, False),
    "are not of a connection": ([(b"connection", b"y")], f.END_STREAM, False),
}


@pytest.mark.parametrize("case", TRAILERS)
async def test_trailers(case: str) -> None:
    sent, flags, good = TRAILERS[case]
    async with serving() as bench:
        client = await bench.connect()
        collect = block(p_path="/test.Echo/Collect")
        client.send(headers(1, collect), f.frame(f.DATA, 0, 1, message(b"x")))
        client.send(headers(1, encode_block(sent), f.END_HEADERS | flags))
        found, data = await client.answer(1)
        if good:
            assert (found["grpc-status"], data) == ("0", message(b"x"))
        else:
            assert found == {"reset": "1"}
        await client.lives()


async def test_trailers_before_all_content_are_an_error() -> None:
    async with serving() as bench:
        client = await bench.connect()
        head = block(p_path="/test.Echo/Collect", content_length="9")
        client.send(headers(1, head), f.frame(f.DATA, 0, 1, message(b"x")))
        client.send(headers(1, b"", f.END_HEADERS | f.END_STREAM))
        assert await reset_code(client, 1) == ErrorCode.PROTOCOL_ERROR
        await client.lives()
