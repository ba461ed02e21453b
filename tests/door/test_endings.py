"""Every way in which a connection can end: what is still delivered, and that nothing is left."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import select
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from netutil.agent.door import side as room
from netutil.agent.door.limits import Limits
from netutil.agent.door.relay import Relay
from netutil.agent.door.share import Share
from netutil.agent.door.turns import Turns
from netutil.agent.errors import Denied, Reason
from netutil.agent.identity.peer import Peer

from tests.door.rig import Rig, door_before, echo, eventually, open_descriptors, peer_of

CONNECTIONS = 500
AT_ONCE = 50


@asynccontextmanager
async def relayed() -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    """The two outer ends of a relay whose sides end one by one."""
    one, left = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    right, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (one, left, right, other):
        end.setblocking(False)
    task = asyncio.create_task(
        Relay().run(left, right, Turns(math.inf).of_pod(""), Share(math.inf, lambda: None))
    )
    try:
        yield one, other
    finally:
        one.close()
        other.close()
        async with asyncio.timeout(20):
            await task


async def read(connection: socket.socket) -> bytes:
    async with asyncio.timeout(20):
        return await asyncio.get_running_loop().sock_recv(connection, 65536)


async def test_each_side_may_end_its_sending_and_still_receives() -> None:
    async with relayed() as (one, other):
        for first, second in ((one, other), (other, one)):
            first.send(b"last words")
            first.shutdown(socket.SHUT_WR)
            assert await read(second) == b"last words"
            assert await read(second) == b""
            if first is one:
                second.send(b"heard")
                assert await read(first) == b"heard"


async def test_what_a_server_sent_before_it_was_gone_is_delivered(tmp_path: Path) -> None:
    said = bytes(range(256)) * 1000

    async def say_and_go(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()

    async with door_before(say_and_go, tmp_path) as rig:
        reader, writer = await rig.connect()
        async with asyncio.timeout(20):
            assert await reader.read(-1) == said
        writer.close()


async def test_a_reset_by_the_peer_reaches_the_server_as_an_end(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def wait_for_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"unread")
        assert await reader.read(-1) == b""
        ended.set()

    async with door_before(wait_for_the_end, tmp_path) as rig:
        client = rig.connect_raw()
        await eventually(lambda: bool(select.select([client], [], [], 0)[0]))
        client.close()  # with unread data: its peer reads ECONNRESET
        async with asyncio.timeout(20):
            await ended.wait()
        await eventually(lambda: len(rig.table) == 0)


async def test_what_nobody_takes_is_given_up_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LINGER_SECONDS", 0.1)

    async def say_and_go(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(250_000))
        await writer.drain()

    async with door_before(say_and_go, tmp_path) as rig:
        client = rig.connect_raw()
        await eventually(lambda: rig.door.counts.accepted == 1)
        await eventually(lambda: len(rig.table) == 0)
        client.close()


async def test_a_relay_that_is_cancelled_waits_for_nobody_to_take_the_rest() -> None:
    one, left = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    right, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with one, other:
        for end in (one, left, right, other):
            end.setblocking(False)
        right.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        share = Share(math.inf, lambda: None)
        task = asyncio.create_task(Relay().run(left, right, Turns(math.inf).of_pod(""), share))
        one.send(bytes(50_000))  # more than that socket takes, and nobody reads it
        await eventually(lambda: share.unanswered == 50_000)
        other.shutdown(socket.SHUT_WR)
        one.close()
        await eventually(lambda: left.fileno() < 0)
        assert right.fileno() >= 0
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(room.LINGER_SECONDS / 2):
            await eventually(lambda: right.fileno() < 0)


async def test_a_connection_dropped_before_its_first_turn_leaves_nothing(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        before = open_descriptors()
        clients = [rig.connect_raw() for _ in range(10)]
        rig.door.close()
        await rig.door.drop_all()
        assert len(rig.table) == 0
        for client in clients:
            assert await read(client) == b""
            client.close()
        assert open_descriptors() < before


def refused(_: socket.socket) -> Peer:
    raise Denied(Reason.NOT_A_POD, "No pod.")


async def open_and_end(rig: Rig, number: int, *, drop: bool) -> None:
    """Open connections together; the door drops them, or their clients end them."""
    goal = rig.door.counts.accepted + number
    clients = [rig.connect_raw() for _ in range(number)]
    await eventually(lambda: rig.door.counts.accepted == goal)
    if drop:
        await rig.door.drop_all()
    for client in clients:
        client.close()
    await eventually(lambda: len(rig.table) == 0)


@pytest.mark.parametrize("ending", ["dropped", "past every limit", "refused", "server gone"])
async def test_no_descriptor_is_left_over(ending: str, tmp_path: Path) -> None:
    identify = refused if ending == "refused" else peer_of
    limits = Limits(1000, 3 if ending == "past every limit" else 1000)
    async with door_before(echo, tmp_path, identify=identify, limits=limits) as rig:
        if ending == "server gone":
            os.unlink(tmp_path / "private.sock")
        before = open_descriptors()
        gc.disable()  # what only the collector would close is a leak as well
        try:
            for _ in range(CONNECTIONS // AT_ONCE):
                await open_and_end(rig, AT_ONCE, drop=ending == "dropped")
            await eventually(lambda: open_descriptors() <= before)
        finally:
            gc.enable()
        assert rig.door.counts.accepted == CONNECTIONS


async def test_a_connection_leaves_nothing_for_the_garbage_collector() -> None:
    """All whom the agent serves wait while it collects: milliseconds, after thousands."""
    gc.collect()
    gc.disable()
    try:
        for ends_first in (0, 1) * 5:
            async with relayed() as ends:
                ends[ends_first].send(b"last words")
                ends[ends_first].close()
        left = [one for one in gc.get_objects() if isinstance(one, asyncio.Transport)]
        assert not [one for one in left if one.is_closing()]
    finally:
        gc.enable()
