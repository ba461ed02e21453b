"""GRPC.md sections 4 and 5: messages, and what an answer is made of."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import status_pb2
from grpc_status import rpc_status
from netutil.agent.grpcserver import frames as f
from netutil.agent.grpcserver import framing

from tests.support.grpcserver.raw import fields, serving
from tests.support.grpcserver.requests import ABORTS, METHOD, SLOW, block, headers, register
from tests.support.http2 import message


@pytest.mark.parametrize("accepted", ["gzip", "identity", None])
async def test_answers_are_never_compressed(accepted: str | None) -> None:
    """4.5: identity is always allowed."""
    async with serving() as bench:
        client = await bench.connect()
        head = fields() if accepted is None else fields(grpc_accept_encoding=accepted)
        client.ask(body=message(bytes(5000)), head=head)
        found, data = await client.answer()
        assert data == message(bytes(5000))
        assert "grpc-encoding" not in found
        assert found["grpc-accept-encoding"] == "identity,deflate,gzip"


async def test_empty_data_that_ends_a_request_brings_no_message() -> None:
    """4.7"""
    async with serving() as bench:
        client = await bench.connect()
        client.send(headers(1), f.frame(f.DATA, f.END_STREAM, 1))
        assert (await client.answer(1))[0]["grpc-status"] == "12"
        await client.lives()


async def test_empty_data_between_messages_is_nothing() -> None:
    """4.1"""
    async with serving() as bench:
        client = await bench.connect()
        client.send(headers(1))
        for byte in message(b"ab"):
            client.send(f.frame(f.DATA, 0, 1), f.frame(f.DATA, 0, 1, bytes([byte])))
        client.send(f.frame(f.DATA, 0, 1), f.frame(f.DATA, f.END_STREAM, 1))
        assert (await client.answer(1))[1] == message(b"ab")


def _refuses(data: bytes) -> Any:
    raise ValueError("a secret of the parser")


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_message_that_the_method_cannot_parse_is_internal(streaming: bool) -> None:
    """4.8: and says nothing of how the parser failed."""

    async def unary(request: bytes, context: Any) -> bytes:
        return request

    async def stream(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request

    handler: Any = (
        grpc.stream_stream_rpc_method_handler(stream, request_deserializer=_refuses)
        if streaming
        else grpc.unary_unary_rpc_method_handler(unary, request_deserializer=_refuses)
    )
    async with serving() as bench:
        register(bench, handler)
        client = await bench.connect()
        client.ask(1, message(b"\xff\xff\xff"), head=fields(p_path=METHOD))
        found, _ = await client.answer(1)
        assert found["grpc-status"] == "13" and "secret" not in found["grpc-message"]
        await client.lives()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ~ text", "plain ~ text"),
        ("100%", "100%25"),
        ("a\nb\tc\0", "a%0Ab%09c%00"),
        ("é€", "%C3%A9%E2%82%AC"),
        ("\ud800", "?"),
        ("\x7f", "%7F"),
    ],
)
def test_a_status_message_is_percent_encoded(text: str, expected: str) -> None:
    """5.4"""
    assert framing.encode_status_message(text) == expected.encode()


@pytest.mark.parametrize("before", range(4))
def test_a_long_status_message_is_cut_between_characters(before: int) -> None:
    found = framing.encode_status_message("x" * before + "\U0001f600" * 1000)
    assert len(found) < 6200
    assert found[before:] == b"%F0%9F%98%80" * (len(found) // 12)


async def test_details_agree_with_the_status_and_have_no_padding() -> None:
    """5.5: as grpcio-status makes them and reads them."""
    made = status_pb2.Status(code=8, message="too much é")
    made.details.append(any_pb2.Any(type_url="t/x", value=b"\1\2\3\4"))

    async def fails(request: bytes, context: Any) -> bytes:
        await context.abort_with_status(rpc_status.to_status(made))
        raise AssertionError

    async with serving() as bench:
        register(bench, grpc.unary_unary_rpc_method_handler(fails))
        client = await bench.connect()
        client.ask(head=fields(p_path=METHOD))
        found, _ = await client.answer()
        assert (found["grpc-status"], found["grpc-message"]) == ("8", "too much %C3%A9")
        details = found["grpc-status-details-bin"]
        assert not details.endswith("=")
        padded = details + "=" * (-len(details) % 4)
        assert status_pb2.Status.FromString(base64.b64decode(padded)) == made


async def test_trailers_stay_below_what_clients_take() -> None:
    """5.6: what is too much is left out, never the status."""

    async def fails(request: bytes, context: Any) -> bytes:
        more = tuple((f"x{number}-bin", bytes(1000)) for number in range(20))
        await context.abort(grpc.StatusCode.NOT_FOUND, "\u20ac" * 5000, more)
        raise AssertionError

    async with serving() as bench:
        register(bench, grpc.unary_unary_rpc_method_handler(fails))
        client = await bench.connect()
        client.ask(head=fields(p_path=METHOD))
        found, _ = await client.answer()
        assert found["grpc-status"] == "5" and "x0-bin" in found
        assert sum(len(name) + len(value) + 32 for name, value in found.items()) < 8192


@pytest.mark.parametrize("status", [1, 3, 16])
async def test_a_code_that_a_handler_sets_is_sent_with_its_message(status: int) -> None:
    async def sets(request: bytes, context: Any) -> bytes:
        context.set_code(status)
        context.set_details("why")
        context.set_trailing_metadata((("x", "y"),))
        return b"answer"

    async with serving() as bench:
        register(bench, grpc.unary_unary_rpc_method_handler(sets))
        client = await bench.connect()
        client.ask(head=fields(p_path=METHOD))
        found, data = await client.answer()
        assert (found["grpc-status"], found["grpc-message"], found["x"]) == (
            str(status),
            "why",
            "y",
        )
        assert data == message(b"answer")


async def test_a_handler_that_aborts_with_ok_has_failed() -> None:
    async def aborts(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.OK, "fine")
        raise AssertionError

    async with serving() as bench:
        register(bench, grpc.unary_unary_rpc_method_handler(aborts))
        client = await bench.connect()
        client.ask(head=fields(p_path=METHOD))
        assert (await client.answer())[0]["grpc-status"] == "2"


async def test_initial_metadata_comes_before_the_first_message() -> None:
    async def sends(request: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("x", "y"), ("z-bin", b"\0")))
        return b"answer"

    async with serving() as bench:
        register(bench, grpc.unary_unary_rpc_method_handler(sends))
        client = await bench.connect()
        client.ask(head=fields(p_path=METHOD))
        head = client.decoded(await client.until(f.HEADERS, 1))
        assert (head[":status"], head["x"], head["z-bin"]) == ("200", "y", "AA")
        assert (await client.answer(1))[0] == {"grpc-status": "0"}


async def test_an_answer_that_is_too_large_is_resource_exhausted() -> None:
    async with serving() as bench:
        client = await bench.connect()
        size = str(bench.server.config.messages.max_response_bytes + 1).encode()
        client.ask(1, message(size), head=fields(p_path="/test.Echo/Large"))
        assert (await client.answer(1))[0]["grpc-status"] == "8"
        await client.lives()


async def test_data_after_an_early_answer_is_dropped_and_credited() -> None:
    """5.7: also of streams that were answered a hundred answers ago."""
    async with serving() as bench:
        client = await bench.connect()
        for stream in range(1, 401, 2):
            client.send(headers(stream, block(p_path=ABORTS)))
            client.send(f.frame(f.DATA, 0, stream, message()))
            assert (await client.answer(stream))[0]["grpc-status"] == "5"
        for stream in range(1, 401, 2):
            client.send(f.frame(f.DATA, f.END_STREAM, stream, bytes(1000)))
        await client.lives(401)


async def test_a_reset_call_sends_nothing_more() -> None:
    """3.5"""
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1, head=fields(p_path=SLOW))
        await bench.until_running(1)
        client.send(f.rst_stream(1, 8))
        await bench.until_running(0)
        client.ask(3)
        while True:
            frame = await client.frame()
            assert frame is not None and frame.stream != 1
            if frame.stream == 3 and frame.flags & f.END_STREAM and frame.kind == f.HEADERS:
                break
