"""GRPC.md section 6, and what a handler may do: waiting, cancellation, cleaning up, its limits."""

from __future__ import annotations

import asyncio
import gc
import gzip
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest
from netutil.agent.grpcserver import Call, MessageLimits, ServerConfig, StreamLimits, Timeouts
from netutil.agent.grpcserver import frames as f
from netutil.agent.grpcserver.frames import ErrorCode

from tests.support.grpcserver.raw import fields, serving
from tests.support.grpcserver.requests import (
    ABORTS,
    BOTH,
    LARGE,
    MANY,
    METHOD,
    SLOW,
    UNREAD,
    block,
    headers,
    register,
    reset_code,
)
from tests.support.http2 import message

OWN = fields(p_path=METHOD)


async def test_messages_that_no_handler_reads_are_credited() -> None:
    async def ignores(requests: Any, context: Any) -> bytes:
        return b"done"

    async with serving() as bench:
        register(bench, grpc.stream_unary_rpc_method_handler(ignores))
        client = await bench.connect()
        for stream in range(1, 41, 2):
            client.ask(stream, message(bytes(16_000)), head=OWN)
            assert (await client.answer(stream))[1] == message(b"done")
        await client.lives()


async def test_a_message_that_stays_unfinished_is_credited() -> None:
    async with serving() as bench:
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=2**20)
        client.send(f.window_update(0, 2**20), f.frame(f.SETTINGS, f.ACK, 0))
        begun = message(b"x") + message(bytes(60_000))[:3_000]
        for stream in range(1, 61, 2):
            client.ask(stream, begun, end=False)
            assert (await client.answer(stream))[1] == message(b"x")
        whole = message(bytes(64 * 1024))
        client.send(headers(61))
        window = ServerConfig().streams.window_bytes
        for at in range(0, len(whole), 4096):
            part = whole[at : at + 4096]
            while window < len(part):
                window += int.from_bytes((await client.until(f.WINDOW_UPDATE, 61)).payload, "big")
            window -= len(part)
            last = f.END_STREAM if at + 4096 >= len(whole) else 0
            client.send(f.frame(f.DATA, last, 61, part))
        assert (await client.answer(61))[1] == whole


@pytest.mark.parametrize(
    ("rest", "flags", "status"),
    [
        (message(b"b"), 0, "12"),
        (message(b"b")[:3], f.END_STREAM, "13"),
        (b"\0\xff\xff\xff\xff", 0, "8"),
        (message(b"b", 2), 0, "13"),
    ],
    ids=["a second message", "half a message", "one too large", "a flag that is not possible"],
)
async def test_a_request_that_turns_out_malformed_cancels_its_handler(
    rest: bytes, flags: int, status: str
) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1, message(b"a"), end=False, head=fields(p_path=SLOW))
        await bench.until_running(1)
        client.send(f.frame(f.DATA, flags, 1, rest))
        assert (await client.answer(1))[0]["grpc-status"] == status
        await bench.until_running(0)
        assert bench.echo.ended == ["slow"]
        await client.lives()


async def test_a_future_cancelled_before_its_await_ends_one_call() -> None:
    async def meets(request: bytes, context: Any) -> bytes:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future
        return b""

    async with serving() as bench:
        register(bench, grpc.unary_unary_rpc_method_handler(meets))
        client = await bench.connect()
        client.ask(1, head=OWN)
        assert (await client.answer(1))[0]["grpc-status"] == "1"
        await client.lives()


async def test_a_timeout_of_zero_reaches_a_handlers_first_wait() -> None:
    inner: list[asyncio.Task[None]] = []

    async def hurries(request: bytes, context: Any) -> bytes:
        inner.append(asyncio.create_task(asyncio.sleep(60)))
        try:
            async with asyncio.timeout(0):
                await inner[0]
        except TimeoutError:
            return b"late"
        return b"never"

    async with serving() as bench:
        register(bench, grpc.unary_unary_rpc_method_handler(hurries))
        client = await bench.connect()
        client.ask(1, head=OWN)
        assert (await client.answer(1))[1] == message(b"late")
        assert inner[0].cancelled()


async def test_a_task_group_that_fails_at_once_reaches_a_first_wait() -> None:
    async def fails() -> None:
        raise ValueError

    async def groups(request: bytes, context: Any) -> bytes:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fails())
                await asyncio.sleep(60)
        except* ValueError:
            pass
        return b"caught"

    async with serving() as bench:
        register(bench, grpc.unary_unary_rpc_method_handler(groups))
        client = await bench.connect()
        client.ask(1, head=OWN)
        assert (await client.answer(1))[1] == message(b"caught")


async def test_a_generator_is_closed_before_its_call_has_ended() -> None:
    events: list[str] = []
    done = asyncio.Event()

    def note(context: Any) -> None:
        events.append("done")
        done.set()

    async def generates(request: bytes, context: Any) -> AsyncIterator[bytes]:
        context.add_done_callback(note)
        try:
            while True:
                yield bytes(1000)
        finally:
            await asyncio.sleep(0)
            events.append("closed")

    async with serving() as bench:
        register(bench, grpc.unary_stream_rpc_method_handler(generates))
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=0)
        client.ask(1, head=OWN)
        await client.until(f.HEADERS, 1)
        client.send(f.rst_stream(1, ErrorCode.CANCEL))
        async with asyncio.timeout(5):
            await done.wait()
        assert events == ["closed", "done"]


async def test_a_generator_that_fails_while_it_is_closed_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def generates(request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1000)
        finally:
            raise ValueError("while closing")

    async with serving() as bench:
        register(bench, grpc.unary_stream_rpc_method_handler(generates))
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=0)
        client.ask(1, head=OWN)
        await client.until(f.HEADERS, 1)
        client.send(f.rst_stream(1, ErrorCode.CANCEL))
        await client.lives_with_window(3)
    assert "while closing" in caplog.text


@pytest.mark.parametrize("where", ["initial", "trailing", "abort"])
async def test_metadata_that_http2_bars_is_an_error_of_the_handler(where: str) -> None:
    bad = (("not a name", "x"),)

    async def sets(request: bytes, context: Any) -> bytes:
        if where == "initial":
            await context.send_initial_metadata(bad)
        elif where == "trailing":
            context.set_trailing_metadata(bad)
        else:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no", bad)
        return b""

    async with serving() as bench:
        register(bench, grpc.unary_unary_rpc_method_handler(sets))
        client = await bench.connect()
        client.ask(1, head=OWN)
        found, _ = await client.answer(1)
        assert (found["grpc-status"], found["grpc-message"]) == (
            "2",
            "The handler failed (ValueError).",
        )
        await client.lives()


async def test_a_callback_that_fails_harms_no_call(caplog: pytest.LogCaptureFixture) -> None:
    called: list[int] = []

    def fails(context: Any) -> None:
        raise ValueError("in a callback")

    async def adds(request: bytes, context: Any) -> bytes:
        context.add_done_callback(fails)
        context.add_done_callback(lambda _: called.append(1))
        return b"x"

    async with serving() as bench:
        register(bench, grpc.unary_unary_rpc_method_handler(adds))
        client = await bench.connect()
        client.ask(1, head=OWN)
        assert (await client.answer(1))[1] == message(b"x")
        await client.lives()
    assert called == [1] and "in a callback" in caplog.text


async def test_a_synchronous_streaming_handler_is_an_error() -> None:
    def returns(request: bytes, context: Any) -> list[bytes]:
        return [b"x"]

    async with serving() as bench:
        register(bench, grpc.unary_stream_rpc_method_handler(returns))
        client = await bench.connect()
        client.ask(1, head=OWN)
        assert (await client.answer(1))[0]["grpc-status"] == "2"


ZEROS = message(gzip.compress(bytes(64 * 1024)), 1)


async def test_a_message_is_inflated_when_its_handler_reads_it() -> None:
    """640 messages fit into the window, 64 KiB each: 40 MiB, if they waited as what they become."""
    async with serving() as bench:
        client = await bench.connect()
        head = block(p_path=UNREAD, grpc_encoding="gzip")
        client.send(headers(1, head))
        await client.writer.drain()
        count = 60_000 // len(ZEROS)
        tracemalloc.start()
        try:
            many = ZEROS * count
            for at in range(0, len(many), 16_000):
                client.send(f.frame(f.DATA, 0, 1, many[at : at + 16_000]))
            await client.lives()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 * 2**20


async def test_a_call_with_too_many_unread_messages_is_refused() -> None:
    """An empty message is five bytes of the window, and an object of the server's."""
    async with serving(ServerConfig(messages=MessageLimits(max_unread=50))) as bench:
        client = await bench.connect()
        client.ask(1, message() * 51, end=False, head=fields(p_path=UNREAD))
        assert (await client.answer(1))[0]["grpc-status"] == "8"
        await bench.until_running(0)
        client.ask(3, message() * 50, end=False, head=fields(p_path=UNREAD))
        await client.lives(5)
        (connection,) = bench.server.connections
        assert list(connection.http2.streams) == [3]


async def test_each_message_is_charged() -> None:
    """Thousands fit into one frame, and each is work for the handler."""

    async def reads(requests: AsyncIterator[bytes], context: Any) -> bytes:
        return str(len([None async for _ in requests])).encode()

    async with serving(ServerConfig(messages=MessageLimits(max_unread=5000))) as bench:
        register(bench, grpc.stream_unary_rpc_method_handler(reads))
        client = await bench.connect()
        client.ask(1, message() * 2000, head=OWN)
        assert (await client.answer(1))[1] == message(b"2000")
        (connection,) = bench.server.connections
        assert connection.http2.cost >= 2000


async def test_a_handler_with_many_messages_yields_between_them() -> None:
    read: list[bytes] = []
    seen: list[int] = []

    async def reads(requests: AsyncIterator[bytes], context: Any) -> bytes:
        asyncio.get_running_loop().call_soon(lambda: seen.append(len(read)))
        async for one in requests:
            read.append(one)
        return b""

    async with serving(ServerConfig(messages=MessageLimits(max_unread=5000))) as bench:
        register(bench, grpc.stream_unary_rpc_method_handler(reads))
        client = await bench.connect()
        client.ask(1, message() * 3000, head=OWN)
        assert (await client.answer(1))[0]["grpc-status"] == "0"
    assert len(read) == 3000
    assert seen[0] <= 100


async def test_writes_of_many_streams_wait_for_their_reader() -> None:
    """With windows as large as there are; a write that needs no wait is not counted."""
    written: list[int] = []
    go = asyncio.Event()

    async def writes(request: bytes, context: Any) -> None:
        await go.wait()
        await context.write(bytes(1 << 20))
        written.append(1)

    async with serving() as bench:
        register(bench, grpc.unary_stream_rpc_method_handler(writes))
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=2**31 - 1)
        client.send(f.window_update(0, 2**31 - 1 - f.DEFAULT_WINDOW))
        for stream in range(1, 41, 2):
            client.ask(stream, head=OWN)
        await client.lives(99)
        reading = cast(asyncio.Transport, client.writer.transport)
        reading.pause_reading()
        go.set()
        await asyncio.sleep(0)
        (connection,) = bench.server.connections
        while not connection.http2.paused:  # noqa: ASYNC110 - it is the thing under test
            await asyncio.sleep(0)
        assert connection._transport is not None
        assert connection._transport.get_write_buffer_size() < 1 << 20
        assert not written
        reading.resume_reading()
        while len(written) < 20:
            await client.frame()


@pytest.mark.parametrize(("path", "body"), [(MANY, b"1000"), (LARGE, b"1000")])
async def test_a_stuck_stream_ends_at_its_deadline(path: str, body: bytes) -> None:
    """Also where its handler has ended already."""
    async with serving() as bench:
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=0)
        client.ask(1, message(body), head=fields(p_path=path, grpc_timeout="500m"))
        assert await reset_code(client, 1) == ErrorCode.CANCEL
        await bench.until_running(0)
        (connection,) = bench.server.connections
        assert not connection.http2.streams
        await client.lives_with_window(3)


async def test_a_peer_that_reads_late_gets_the_status_and_no_reset() -> None:
    """grpc-go takes a stream that ends inside of a message for INTERNAL, whatever ends it."""
    async with serving(ServerConfig(timeouts=Timeouts(late_reset=60))) as bench:
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=3)
        head = fields(p_path=MANY, grpc_timeout="100m")
        client.ask(1, message(b"1000"), head=head)
        await bench.until_running(1)
        await bench.until_running(0)
        client.send(f.window_update(1, 60_000))
        found, _ = await client.answer(1)
        assert found["grpc-status"] == "4"
        (connection,) = bench.server.connections
        assert not connection.http2.streams


async def test_requests_of_a_stuck_stream_are_credited_at_its_deadline() -> None:
    async with serving() as bench:
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=0)
        # The handler echoes until a kilobyte waits; the rest is never read.
        body = message(bytes(1000)) * 5 + message(bytes(900))[:100]
        client.ask(1, body, end=False, head=fields(p_path=BOTH, grpc_timeout="500m"))
        assert await reset_code(client, 1) == ErrorCode.CANCEL
        await bench.until_running(0)
        (connection,) = bench.server.connections
        http2 = connection.http2
        held = f.DEFAULT_WINDOW - http2._receive_window - http2._unreturned
        assert (held, connection._held_bytes) == (0, 0)


async def test_a_deadline_is_forgotten_with_the_end_of_a_late_answer() -> None:
    contexts: list[Call] = []

    async def answers(request: bytes, context: Call) -> bytes:
        contexts.append(context)
        return bytes(100)

    async with serving() as bench:
        register(bench, grpc.unary_unary_rpc_method_handler(answers))
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=0)
        client.ask(1, head=fields(p_path=METHOD, grpc_timeout="60S"))
        await client.until(f.HEADERS, 1)
        timer = contexts[0]._timer
        assert timer is not None and not timer.cancelled()
        client.send(f.window_update(1, 200))
        assert (await client.until(f.HEADERS, 1)).flags & f.END_STREAM
        assert timer.cancelled()


async def test_resets_at_any_point_of_a_call_leave_no_handler() -> None:
    async with serving(ServerConfig(streams=StreamLimits(max_errors=10**6))) as bench:
        client = await bench.connect()
        for number, stream in enumerate(range(1, 401, 2)):
            path = (SLOW, MANY, UNREAD, LARGE)[number % 4]
            parts = [
                headers(stream, block(p_path=path)),
                f.frame(f.DATA, 0, stream, message(b"3")[: number % 7]),
                f.frame(f.DATA, f.END_STREAM, stream, message(b"3")[number % 7 :]),
            ]
            client.send(*parts[: 1 + number % 3], f.rst_stream(stream, number % 14))
            if number % 5 == 0:
                await client.writer.drain()
                await asyncio.sleep(0)
        await client.lives(401)
        await bench.until_running(0)
        (connection,) = bench.server.connections
        assert not connection.http2.streams


def calls_in_memory() -> set[Call]:
    return {one for one in gc.get_objects() if isinstance(one, Call)}


@pytest.mark.parametrize("path", [LARGE, MANY, ABORTS, BOTH, "/test.Echo/Nope", SLOW])
async def test_a_call_leaves_nothing_to_the_garbage_collector(path: str) -> None:
    """It stops all calls while it runs."""
    async with serving() as bench:
        client = await bench.connect()
        gc.collect()
        of_others = calls_in_memory()  # the traceback of a test that failed has some, perhaps
        gc.disable()
        try:
            for stream in range(1, 21, 2):
                client.ask(stream, message(b"3"), head=fields(p_path=path))
                if path == SLOW:
                    await bench.until_running(1)
                    client.send(f.rst_stream(stream, ErrorCode.CANCEL))
                    await bench.until_running(0)
                else:
                    await client.answer(stream)
            await asyncio.sleep(0)
            assert not calls_in_memory() - of_others
        finally:
            gc.enable()


async def test_answers_of_one_connection_interleave_their_frames() -> None:
    async with serving() as bench:
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=2**20)
        for stream in (1, 3):
            client.ask(stream, message(b"300000"), head=fields(p_path=LARGE))
        order: list[int] = []
        client.send(f.window_update(0, 2**20))
        while len(order) < 30:
            order.append((await client.until(f.DATA)).stream)
        half = order[4:]
        assert 10 <= half.count(1) <= 16
