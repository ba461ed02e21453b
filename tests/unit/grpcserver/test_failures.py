"""An unexpected error while a connection is written to ends that connection, and no other."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

import pytest
from netutil.agent.grpcserver.protocol import Connection

from tests.support import http2
from tests.support.grpcserver.raw import Bench, RawClient, fields, serving
from tests.support.http2 import message
from tests.support.waiting import until

_LARGE_BYTES = 4 * 1024 * 1024
_WINDOW_BYTES = 8 * 1024 * 1024


def fail(*_: object) -> Any:
    raise ValueError("a bug")


def reported() -> list[str]:
    """Return the errors that the loop's exception handler gets from now on."""
    found: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: found.append(str(context["exception"])))
    return found


async def opened(bench: Bench) -> tuple[RawClient, Connection]:
    """Connect; return the client, and its connection on the server."""
    before = set(bench.server.connections)
    client = await bench.connect(hello=False)
    client.hello(INITIAL_WINDOW_SIZE=_WINDOW_BYTES)
    client.send(http2.window_update(0, _WINDOW_BYTES))
    await client.lives(1)
    (connection,) = bench.server.connections - before
    return client, connection


@pytest.mark.interpreted
@pytest.mark.parametrize(
    ("method", "is_paused"), [("taken", False), ("send_waiting", False), ("send_waiting", True)]
)
async def test_a_failed_send_is_logged_and_ends_its_connection_only(
    method: str, is_paused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as bench:
        errors = reported()
        other, _ = await opened(bench)
        failing, connection = await opened(bench)
        body = message(str(_LARGE_BYTES).encode())
        reading = cast(asyncio.ReadTransport, failing.writer.transport)
        reading.pause_reading()
        if not is_paused:
            monkeypatch.setattr(connection.http2, method, fail)
        failing.ask(3, body, head=fields(p_path="/test.Echo/Large"))
        if is_paused:
            await until(lambda: connection.http2.paused)
            monkeypatch.setattr(connection.http2, method, fail)
        reading.resume_reading()
        await failing.ends()
        await until(lambda: connection not in bench.server.connections)
        await other.lives(3)
        assert errors == ["a bug"]


@pytest.mark.interpreted
async def test_an_error_at_a_deadline_ends_its_connection_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as bench:
        errors = reported()
        other, _ = await opened(bench)
        failing, connection = await opened(bench)
        monkeypatch.setattr(connection.http2, "send_trailers", fail)
        failing.ask(3, head=fields(p_path="/test.Echo/Slow", grpc_timeout="50m"))
        await failing.ends()
        await until(lambda: connection not in bench.server.connections)
        await other.lives(3)
        assert errors == ["a bug"]


@pytest.mark.interpreted
async def test_an_error_at_the_end_of_an_age_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as bench:
        errors = reported()
        ours, theirs = socket.socketpair()
        with ours:
            theirs.setblocking(False)
            bench.server.serve(theirs, "peer", 0.05)
            await until(lambda: bool(bench.server.connections))
            (connection,) = bench.server.connections
            monkeypatch.setattr(connection.http2, "shut_down", fail)
            await until(lambda: not bench.server.connections)
        assert errors == ["a bug"]


@pytest.mark.interpreted
async def test_one_failed_connection_does_not_prevent_the_shutdown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as bench:
        errors = reported()
        clients = [await opened(bench) for _ in range(3)]
        for _, connection in clients[:2]:
            monkeypatch.setattr(connection.http2, "taken", fail)
        await bench.server.stop(20)
        assert not bench.server.connections
        assert errors == ["a bug"] * 2
        for client, _ in clients:
            await client.ends()


async def test_one_failed_callback_does_not_prevent_the_others() -> None:
    async with serving() as bench:
        errors = reported()
        client, connection = await opened(bench)
        called: list[str] = []
        connection.when_sent(fail)
        connection.when_sent(lambda: called.append("next"))
        await client.ends()
        await until(lambda: not bench.server.connections)
        assert called == ["next"]
        assert errors == ["a bug"]


@pytest.mark.interpreted
async def test_a_call_that_ignores_its_cancel_keeps_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as bench:
        errors = reported()
        client, connection = await opened(bench)
        monkeypatch.setattr(connection.http2, "close_streams", fail)
        client.writer.close()
        await until(lambda: not bench.server.connections)
        assert errors == ["a bug"]
