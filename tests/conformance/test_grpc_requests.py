"""GRPC.md sections 2 and 3: fields of requests, metadata, deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from netutil.agent.grpcserver import frames as f
from netutil.agent.grpcserver.frames import ErrorCode

from tests.support.grpcserver.raw import RawClient, fields, serving
from tests.support.grpcserver.requests import METHOD, SLOW, block, headers, register
from tests.support.http2 import message


async def test_a_request_without_te_is_taken() -> None:
    """2.3: it would only show a proxy."""
    async with serving() as bench:
        client = await bench.connect()
        client.ask(head=fields(te=None))
        assert (await client.answer())[0]["grpc-status"] == "0"


@pytest.mark.parametrize(
    ("scheme", "status"),
    [("http", "0"), ("https", "0"), ("x", "13"), ("HTTP", "13"), ("", "13")],
)
async def test_the_schemes_of_the_web_are_taken_alone(scheme: str, status: str) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(head=fields(p_scheme=scheme))
        assert (await client.answer())[0]["grpc-status"] == status
        await client.lives()


@pytest.mark.parametrize("value", ["!!!", "A", "AQI=A", "AQ I", "\u00e9"])
async def test_metadata_that_is_not_base64_fails_only_its_reader(value: str) -> None:
    async def reads(request: bytes, context: Any) -> bytes:
        context.invocation_metadata()
        return b""

    async with serving() as bench:
        register(bench, grpc.unary_unary_rpc_method_handler(reads))
        client = await bench.connect()
        for stream, path, status in ((1, METHOD, "13"), (3, "/test.Echo/Unary", "0")):
            head = [*fields(p_path=path), (b"a-bin", value.encode())]
            client.ask(stream, head=head)
            assert (await client.answer(stream))[0]["grpc-status"] == status


@pytest.mark.parametrize(
    ("value", "expected"), [("", b""), ("AA", b"\0"), ("AA==", b"\0"), (" AQI ", b"\1\2")]
)
async def test_binary_metadata_may_be_empty_padded_and_between_blanks(
    value: str, expected: bytes
) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(head=[*fields(), (b"a-bin", value.encode())])
        await client.answer()
        assert bench.echo.contexts[0].invocation_metadata() == (("a-bin", expected),)


async def test_an_answer_repeats_nothing_of_the_request() -> None:
    """2.10"""
    async with serving() as bench:
        client = await bench.connect()
        client.ask(head=[*fields(), (b"x-mine", b"secret"), (b"x-mine-bin", b"AQI")])
        found, _ = await client.answer()
        assert set(found) == {":status", "content-type", "grpc-accept-encoding", "grpc-status"}


async def test_a_call_without_a_timeout_has_no_deadline() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask()
        await client.answer()
        assert bench.echo.contexts[0].time_remaining() is None


async def test_the_longest_timeout_is_one_that_a_handler_can_wait_with() -> None:
    """3.1: eleven thousand years."""
    async with serving() as bench:
        client = await bench.connect()
        client.ask(head=fields(p_path=SLOW, grpc_timeout="99999999H"))
        await bench.until_running(1)
        bench.echo.gate.set()
        assert (await client.answer())[0]["grpc-status"] == "0"


async def test_two_timeouts_are_an_error() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(head=[*fields(grpc_timeout="1S"), (b"grpc-timeout", b"2S")])
        assert (await client.answer())[0]["grpc-status"] == "13"


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("2H", 7200), ("2M", 120), ("2S", 2), ("2000m", 2), ("2000000u", 2), ("2000000n", 0.002)],
)
async def test_a_timeout_has_the_length_that_its_unit_says(given: str, seconds: float) -> None:
    left: list[float] = []

    async def notes(request: bytes, context: Any) -> bytes:
        left.append(context.time_remaining())
        return b""

    async with serving() as bench:
        register(bench, grpc.unary_unary_rpc_method_handler(notes))
        client = await bench.connect()
        client.ask(head=fields(p_path=METHOD, grpc_timeout=given))
        await client.answer()
        if seconds > 1:
            assert seconds - 60 < left[0] <= seconds
        else:
            assert not left or left[0] <= seconds


async def streams(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request
    await asyncio.sleep(60)


async def waits(requests: AsyncIterator[bytes], context: Any) -> bytes:
    await context.read()
    await asyncio.sleep(60)
    return b""


@pytest.mark.parametrize(
    "handler",
    [
        grpc.stream_stream_rpc_method_handler(streams),
        grpc.stream_unary_rpc_method_handler(waits),
    ],
    ids=["both stream", "the request streams"],
)
@pytest.mark.parametrize("half_closed", [True, False])
async def test_a_streaming_call_ends_at_its_deadline(handler: Any, half_closed: bool) -> None:
    """3.4: with trailers; and its stream is freed, if the client has not ended it."""
    async with serving() as bench:
        register(bench, handler)
        client = await bench.connect()
        client.send(headers(1, block(p_path=METHOD, grpc_timeout="50m")))
        client.send(f.frame(f.DATA, f.END_STREAM if half_closed else 0, 1, message(b"x")))
        found, _ = await client.answer(1)
        assert found["grpc-status"] == "4"
        (connection,) = bench.server.connections
        assert not connection.http2.streams
        await client.lives()


async def test_a_reset_after_the_answer_is_no_error() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1)
        await client.answer(1)
        client.send(f.rst_stream(1, ErrorCode.CANCEL))
        await client.lives(3)


async def test_a_refused_stream_has_done_no_work() -> None:
    """3.6: REFUSED_STREAM says that the call may be sent again."""
    async with serving() as bench:
        client = await bench.connect()
        for stream in range(1, 131, 2):
            client.ask(stream, head=fields(p_path=SLOW))
        reset = await client.until(f.RST_STREAM)
        assert (reset.stream, reset.payload[3]) == (129, ErrorCode.REFUSED_STREAM)
        assert bench.echo.running == 64
        bench.echo.gate.set()
        await all_answered(client, range(1, 129, 2))
        assert len(bench.echo.ended) == 64


async def all_answered(client: RawClient, wanted: range) -> None:
    left = set(wanted)
    while left:
        frame = await client.until(f.HEADERS)
        if frame.flags & f.END_STREAM:
            left.remove(frame.stream)
