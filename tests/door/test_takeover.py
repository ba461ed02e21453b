"""One door after another at the same path, and the last one's close: no client is left hanging."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections import Counter
from pathlib import Path

import pytest
from netutil.agent.door import accepting as room
from netutil.agent.door.door import Door
from netutil.agent.door.limits import Limits
from netutil.agent.door.listener import listen
from netutil.agent.door.table import ConnectionTable

from tests.door.rig import Rig, door_before, echo, eventually, peer_of
from tests.door.test_door import Exhausted

TAKEOVERS = 50


class Caller(threading.Thread):
    """Connects again and again, and notes how each connection went."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.outcomes: Counter[str] = Counter()
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(20)
                self.outcomes[self.call(client)] += 1

    async def another(self) -> None:
        """Wait until one more connection went somehow."""
        known = self.outcomes.total()
        await eventually(lambda: self.outcomes.total() > known)

    def call(self, client: socket.socket) -> str:
        try:
            client.connect(self.path)
        except OSError as error:
            return f"not connected: {error}"
        try:
            client.sendall(b"?")
            return "answered" if client.recv(1) == b"?" else "ended"
        except ConnectionError:
            return "ended"
        except TimeoutError:
            return "hangs"


def next_door(rig: Rig, folder: Path) -> Door:
    """Open another door at the same path, before the same server."""
    listener = listen(rig.path, mode=0o666, directory_mode=0o755)
    private = str(folder / "private.sock")
    door = Door(listener, private, ConnectionTable(), peer_of, Limits(100, 100))
    door.open()
    return door


async def test_doors_that_take_over_from_each_other_answer_every_client(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        caller = Caller(rig.path)
        caller.start()
        doors = [rig.door]
        try:
            for _ in range(TAKEOVERS):
                doors.append(next_door(rig, tmp_path))
                doors[-2].close()
                await caller.another()
        finally:
            caller.stop.set()
            await asyncio.to_thread(caller.join)
            for door in doors:
                door.close()
                await door.drop_all()
    assert set(caller.outcomes) == {"answered"}
    assert caller.outcomes["answered"] >= TAKEOVERS


async def test_a_door_that_closes_leaves_its_successors_socket(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        successor = next_door(rig, tmp_path)
        inode = os.lstat(rig.path).st_ino
        rig.door.close()
        assert os.lstat(rig.path).st_ino == inode
        successor.close()
        assert "net.sock" not in os.listdir(tmp_path)


async def test_connections_outlive_the_door_that_let_them_in(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        reader, writer = await rig.connect()
        await eventually(lambda: len(rig.names) == 1)
        rig.door.close()
        writer.write(b"still there")
        async with asyncio.timeout(20):
            assert await reader.readexactly(11) == b"still there"
        writer.close()


async def test_who_waits_in_the_queue_at_the_close_is_answered(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        clients = [rig.connect_raw() for _ in range(94)]
        rig.door.close()
        answers = await asyncio.gather(*(ask(client) for client in clients))
    assert answers == [b"?"] * len(clients)


async def test_a_pause_does_not_outlive_the_close_and_the_queue_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_PAUSE_SECONDS", 0.05)
    async with door_before(echo, tmp_path) as rig:
        exhausted = Exhausted(rig.listener.connection, failures=1)
        object.__setattr__(rig.listener, "connection", exhausted)
        client = rig.connect_raw()
        await eventually(lambda: rig.door.counts.accept_failures == 1)
        rig.door.close()
        assert await ask(client) == b"?"
        resume = rig.door._acceptor._resume
        assert resume is not None and resume.cancelled()


async def test_who_cannot_be_accepted_at_the_close_is_ended(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        exhausted = Exhausted(rig.listener.connection, failures=1000)
        object.__setattr__(rig.listener, "connection", exhausted)
        clients = [rig.connect_raw() for _ in range(5)]
        rig.door.close()
        assert await asyncio.gather(*(ask(client) for client in clients)) == [b""] * 5


async def ask(client: socket.socket) -> bytes:
    """Return what comes back for a question: b"" if the connection was ended."""
    loop = asyncio.get_running_loop()
    with client, contextlib.suppress(ConnectionError):
        async with asyncio.timeout(20):
            await loop.sock_sendall(client, b"?")
            return await loop.sock_recv(client, 1)
    return b""
