"""The begin of a connection: its first read is part of accepting it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from netutil.agent.grpcserver import Connection, Server, ServerConfig, Timeouts

from tests.support import http2
from tests.support.grpcserver.engine import kinds
from tests.support.grpcserver.policy import OpenPolicy
from tests.support.grpcserver.raw import Bench, RawClient, fields, serving
from tests.support.http2 import message

_SECONDS = 20.0


def first_request(**changed: str | None) -> bytes:
    """Return what a client sends at once: its preface, SETTINGS and a request."""
    block = http2.block(fields(**changed))
    data = http2.frame(http2.DATA, http2.END_STREAM, 1, message())
    return http2.PREFACE + http2.settings({}) + http2.header_frames(1, block) + data


def connected(sent: bytes) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    for one in (ours, theirs):
        one.setblocking(False)
    ours.send(sent)
    return ours, theirs


async def in_the_loop(server: Server, accepted: socket.socket) -> None:
    """Serve a connection as a listener's callback does, outside of a task."""
    asyncio.get_running_loop().call_soon(server.serve, accepted, None)
    await asyncio.sleep(0)


async def test_a_request_that_is_there_is_answered_in_one_write() -> None:
    async with serving() as bench:
        ours, theirs = connected(first_request())
        await in_the_loop(bench.server, theirs)
        assert kinds(ours.recv(65_536)) == [
            http2.SETTINGS,
            http2.SETTINGS,
            http2.HEADERS,
            http2.DATA,
            http2.HEADERS,
        ]
        ours.close()


async def test_a_client_that_has_sent_nothing_gets_the_settings() -> None:
    async with serving() as bench:
        ours, theirs = connected(b"")
        await in_the_loop(bench.server, theirs)
        assert kinds(ours.recv(65_536)) == [http2.SETTINGS]
        ours.close()


async def test_a_connection_that_a_task_accepts_is_served() -> None:
    async with serving() as bench:
        ours, theirs = connected(first_request())
        bench.server.serve(theirs, None)
        await asyncio.sleep(0)
        assert http2.DATA in kinds(ours.recv(65_536))
        ours.close()


async def test_a_connection_accepted_just_before_the_stop_is_answered() -> None:
    async with serving() as bench:
        ours, theirs = connected(first_request())
        bench.server.serve(theirs, None)
        stopping = asyncio.create_task(bench.server.stop(_SECONDS))
        client = RawClient(*await asyncio.open_connection(sock=ours))
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        client.writer.close()
        await stopping


async def test_a_client_that_connects_during_the_stop_is_answered() -> None:
    async with serving() as bench:
        busy = await bench.connect()
        busy.ask(1, head=fields(p_path="/test.Echo/Slow"))
        await bench.until_running(1)
        stopping = asyncio.create_task(bench.server.stop(_SECONDS))
        await asyncio.sleep(0.01)
        ours, theirs = connected(b"")
        await in_the_loop(bench.server, theirs)
        client = RawClient(*await asyncio.open_connection(sock=ours))
        client.send(first_request())
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        client.writer.close()
        bench.echo.gate.set()
        assert (await busy.answer(1))[0]["grpc-status"] == "0"
        busy.writer.close()
        await stopping


async def test_a_connection_after_the_stop_is_closed() -> None:
    async with serving() as bench:
        await bench.server.stop(0)
        ours, theirs = connected(first_request())
        await in_the_loop(bench.server, theirs)
        assert theirs.fileno() < 0
        ours.close()


async def closed_with_a_handler(bench: Bench, *, ends_sending_first: bool) -> None:
    client = await bench.connect()
    client.ask(1, head=fields(p_path="/test.Echo/Slow"))
    await bench.until_running(1)
    if ends_sending_first:
        client.writer.write_eof()
        await asyncio.sleep(0.01)
        assert bench.echo.running == 1
    client.writer.close()
    await bench.until_running(0)
    async with asyncio.timeout(_SECONDS):
        while bench.server.connections:  # noqa: ASYNC110 - it is the thing under test
            await asyncio.sleep(0.001)


async def test_a_peer_that_closes_has_its_handlers_cancelled() -> None:
    async with serving() as bench:
        await closed_with_a_handler(bench, ends_sending_first=False)


async def test_a_peer_that_closes_after_half_close_cancels_its_calls() -> None:
    async with serving() as bench:
        await closed_with_a_handler(bench, ends_sending_first=True)


async def test_a_client_that_sends_no_preface_is_closed_in_time() -> None:
    async with serving(ServerConfig(timeouts=Timeouts(preface=0.05))) as bench:
        silent, theirs = connected(b"")
        speaking, its = connected(first_request())
        for one in (theirs, its):
            await in_the_loop(bench.server, one)
        client = RawClient(*await asyncio.open_connection(sock=silent))
        async with asyncio.timeout(_SECONDS):
            await client.ends()
        client.writer.close()
        other = RawClient(*await asyncio.open_connection(sock=speaking))
        await other.lives(3)
        other.writer.close()


class BrokenPolicy(OpenPolicy):
    """Raises where the server asks it, as a bug would."""

    def may_process(self, connection: Connection) -> bool:
        raise ValueError("a bug")


async def test_a_bug_ends_its_connection_and_is_reported() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, found: reported.append(found))
    async with serving(policy=BrokenPolicy()) as bench:
        ours, theirs = connected(first_request())
        await in_the_loop(bench.server, theirs)
        await asyncio.sleep(0)
        assert theirs.fileno() < 0
        assert [str(one["exception"]) for one in reported] == ["a bug"]
        assert not bench.server.connections
        ours.close()
