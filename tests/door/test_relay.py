"""Bytes pass unchanged, sides end one by one, and nobody makes the relay hold much."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from pathlib import Path
from typing import Any

import pytest
from netutil.agent.door import side as room

from tests.door.rig import door_before, echo, eventually, open_descriptors


async def test_bytes_arrive_unchanged_and_in_order(tmp_path: Path) -> None:
    chance = random.Random(7)  # noqa: S311 - the same bytes each time
    sent = chance.randbytes(5 * 1024 * 1024)
    async with door_before(echo, tmp_path) as rig:
        reader, writer = await rig.connect()

        async def send() -> None:
            position = 0
            while position < len(sent):
                size = chance.choice((1, 7, 4096, 65536, 65537, 300_000))
                writer.write(sent[position : position + size])
                await writer.drain()
                position += size
            writer.write_eof()

        _, received = await asyncio.gather(send(), reader.read(-1))
        assert received == sent
        writer.close()


async def test_a_client_that_ends_its_sending_still_gets_the_answer(tmp_path: Path) -> None:
    async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.read(-1)
        writer.write(question[::-1])
        await writer.drain()
        writer.close()

    async with door_before(answer_at_the_end, tmp_path) as rig:
        reader, writer = await rig.connect()
        writer.write(b"question")
        writer.write_eof()
        assert await reader.read(-1) == b"noitseuq"
        writer.close()


async def test_the_end_of_the_servers_sending_ends_the_connection(tmp_path: Path) -> None:
    async def say_goodbye(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"goodbye")
        writer.write_eof()
        await asyncio.sleep(60)

    async with door_before(say_goodbye, tmp_path) as rig:
        reader, writer = await rig.connect()
        assert await reader.read(-1) == b"goodbye"
        await eventually(lambda: len(rig.table) == 0)
        writer.close()


async def test_a_peer_that_never_reads_is_not_buffered_for_and_holds_nobody_up(
    tmp_path: Path,
) -> None:
    written = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        if await reader.read(1) == b"e":
            writer.write(b"e")
            await echo(reader, writer)
            return
        writer.transport.set_write_buffer_limits(high=0)
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            written += 65536

    async with door_before(pour, tmp_path) as rig:
        greedy = rig.connect_raw()
        greedy.send(b"g")
        last = -1
        while written != last:  # until back-pressure has reached the server
            last = written
            await asyncio.sleep(0.3)
        assert 0 < written < 2 * 1024 * 1024
        reader, writer = await rig.connect()
        writer.write(b"echo")
        assert await reader.readexactly(4) == b"echo"
        writer.close()
        greedy.close()


async def test_a_server_that_never_reads_holds_its_client_back(tmp_path: Path) -> None:
    async def ignore(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        await asyncio.sleep(60)

    async with door_before(ignore, tmp_path) as rig:
        client = rig.connect_raw()
        sent = 0
        idle = 0
        while idle < 5:
            try:
                sent += client.send(bytes(65536))
                idle = 0
            except BlockingIOError:
                idle += 1
                await asyncio.sleep(0.05)
        assert 0 < sent < 2 * 1024 * 1024
        client.close()


async def test_odd_endings_leave_no_descriptor(tmp_path: Path) -> None:
    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wish = await reader.read(1)
        if wish == b"e":
            await echo(reader, writer)
        elif wish == b"a":
            writer.transport.abort()
        elif wish == b"p":
            writer.write(bytes(1_000_000))
            await writer.drain()

    async with door_before(odd, tmp_path) as rig:
        before = open_descriptors()
        for number in range(500):
            client = rig.connect_raw()
            wish = b"eap-"[number % 4 : number % 4 + 1]
            if wish != b"-":  # the fourth says nothing at all
                client.send(wish + b"tail")
                await asyncio.sleep(0)
            client.close()  # with unread data: the peer is reset
            if number % 50 == 0:
                await eventually(lambda: len(rig.table) == 0)
        await eventually(lambda: len(rig.table) == 0)
        await eventually(lambda: open_descriptors() <= before)


async def test_a_side_that_was_slow_to_take_the_end_is_not_closed_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LINGER_SECONDS", 1.0)
    loop = asyncio.get_running_loop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: failures.append(context))
    # More than a socket holds, so that the relay holds the rest when the end comes; what a
    # socket holds is the kernel's to say.
    sizes = [1024 * kib for kib in range(32, 353, 16)]

    async def pour_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(1024 * int(await reader.readline())))
        writer.close()

    async with door_before(pour_and_close, tmp_path) as rig:
        clients = [rig.connect_raw() for _ in sizes]
        for client, size in zip(clients, sizes, strict=True):
            client.send(b"%d\n" % (size // 1024))
        await asyncio.sleep(0.3)
        for client, size in zip(clients, sizes, strict=True):
            received = 0
            while data := await loop.sock_recv(client, 65536):
                received += len(data)
            assert received == size
            client.close()
        await eventually(lambda: len(rig.table) == 0)
        await asyncio.sleep(1.5)  # past the time after which a side is closed by force
    assert failures == []


async def test_a_connection_that_ended_is_freed_at_once(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        reader, writer = await rig.connect()
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        (entry,) = rig.table
        share = weakref.ref(entry.share)
        del entry
        gc.disable()
        try:
            writer.close()
            await eventually(lambda: len(rig.table) == 0)
            await eventually(lambda: share() is None)
        finally:
            gc.enable()
