"""GRPC.md section 7 and 1.10: pings, GOAWAY, half-closed and silent peers, and slow readers."""

from __future__ import annotations

import asyncio

import pytest
from netutil.agent.grpcserver import ServerConfig, Timeouts
from netutil.agent.grpcserver import frames as f
from netutil.agent.grpcserver.frames import ErrorCode
from netutil.agent.grpcserver.http2 import Stream

from tests.support.grpcserver.engine import Echoing, kinds
from tests.support.grpcserver.raw import fields, serving
from tests.support.grpcserver.requests import BOTH, LARGE, SLOW, block, headers
from tests.support.http2 import message

PING = f.frame(f.PING, 0, 0, b"12345678")
HELLO = f.PREFACE + f.settings_frame({f.INITIAL_WINDOW_SIZE: f.MAX_WINDOW})


def watched() -> tuple[Echoing, Stream]:
    """An engine with a stream that stays open, as `Watch` does, and lasting windows."""
    echo = Echoing()
    echo.http2.receive(HELLO + f.window_update(0, 2**30) + headers(1))
    echo.take()
    return echo, echo.http2.streams[1]


@pytest.mark.parametrize("seconds", [1.0, 10.0, 20.0])
def test_keepalive_pings_never_end_an_idle_watch(seconds: float) -> None:
    """7.2: grpcio, grpc-go and grpc-js send one in 10 seconds, at most."""
    echo, _ = watched()
    for number in range(10_000):
        echo.http2.now = number * seconds
        echo.http2.receive(PING)
        assert kinds(echo.take()) == [f.PING]


def test_pings_that_measure_bandwidth_never_end_a_large_answer() -> None:
    """grpc-go and C core send one with the first data after the answer to the last one."""
    echo, stream = watched()
    for number in range(1000):
        echo.http2.now = number * 0.001
        echo.http2.send_data(stream, bytes(40_000))
        assert f.DATA in kinds(echo.take())
        echo.http2.receive(PING)
        assert kinds(echo.take()) == [f.PING]


def test_keepalive_and_measuring_together_never_end_a_watch() -> None:
    """A ping every 10 seconds, and one with the news that comes at the same time."""
    echo, stream = watched()
    for number in range(1000):
        echo.http2.now = number * 10.0
        echo.http2.receive(PING)
        echo.http2.send_data(stream, message(b"news"))
        echo.take()
        echo.http2.now += 0.01
        echo.http2.receive(PING)
        assert kinds(echo.take()) == [f.PING]


def test_pings_that_nothing_is_sent_between_end_the_connection() -> None:
    echo, _ = watched()
    for number in range(3):
        echo.http2.now = number * 0.5
        echo.http2.receive(PING)
        assert not echo.http2.closing
    echo.http2.receive(PING)
    assert echo.http2.closing
    assert echo.take().endswith(b"too_many_pings")


async def test_calls_after_the_clients_goaway_are_served() -> None:
    """7.6"""
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1, head=fields(p_path=SLOW))
        await bench.until_running(1)
        client.send(f.goaway(0, 0))
        client.ask(3)
        assert (await client.answer(3))[0]["grpc-status"] == "0"
        bench.echo.gate.set()
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        await client.ends()


async def test_a_goaway_without_open_calls_closes_the_connection() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.ask(1)
        await client.answer(1)
        client.send(f.goaway(0, 0))
        await client.ends()


async def test_a_peer_that_does_not_read_is_not_read_from() -> None:
    """1.10: what is held for it has an end, and all of it comes once it reads."""
    async with serving() as bench:
        client = await bench.connect()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        settings = f.settings_frame({}) * 1000
        sent = 0
        async with asyncio.timeout(20):
            while client.writer.transport.get_write_buffer_size() < 2**20:
                client.send(settings)
                sent += 1000
                await asyncio.sleep(0)
        (connection,) = bench.server.connections
        transport = connection._transport
        assert transport is not None
        assert not transport.is_reading()
        held = transport.get_write_buffer_size() + sum(map(len, connection.http2.out))
        assert held < 2 * 65_536
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        acknowledged = 0
        while acknowledged < sent:
            frame = await client.until(f.SETTINGS)
            acknowledged += frame.flags == f.ACK
        await client.lives()


async def test_a_preface_a_byte_at_a_time_is_too_late_all_the_same() -> None:
    """7.9"""
    async with serving(ServerConfig(timeouts=Timeouts(preface=0.2))) as bench:
        client = await bench.connect(hello=False)
        ended = asyncio.create_task(client.ends())
        for byte in f.PREFACE[:-1]:
            client.send(bytes([byte]))
            await asyncio.sleep(0.02)
            if ended.done():
                break
        await ended


async def test_a_half_closed_client_gets_its_whole_answer() -> None:
    """7.7: also one that takes longer than the windows."""
    async with serving() as bench:
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=f.MAX_WINDOW)
        client.send(f.window_update(0, 2**30))
        client.ask(1, message(b"1000000"), head=fields(p_path=LARGE))
        client.writer.write_eof()
        assert len((await client.answer(1))[1]) == 1_000_005
        await client.ends()


async def test_a_half_closed_client_ends_its_streams() -> None:
    """No message can follow: a request that has not ended is as if it were reset."""
    async with serving() as bench:
        client = await bench.connect()
        client.send(headers(1, block(p_path=BOTH)), f.frame(f.DATA, 0, 1, message(b"a")))
        assert (await client.until(f.DATA, 1)).payload == message(b"a")
        client.writer.write_eof()
        await client.ends()


async def test_a_fatal_error_ends_the_handlers_of_the_connection() -> None:
    async with serving() as bench:
        client = await bench.connect()
        for stream in (1, 3):
            client.ask(stream, head=fields(p_path=SLOW))
        await bench.until_running(2)
        client.send(f.frame(f.PING, 0, 1, bytes(8)))
        last, code, _ = await client.goaway()
        assert (last, code) == (3, ErrorCode.PROTOCOL_ERROR)
        await bench.until_running(0)
        assert bench.echo.ended == ["slow"] * 2
