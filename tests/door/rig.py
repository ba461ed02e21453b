"""A door with a byte server behind it, both on the test's own event loop."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from netutil.agent.door import door as door_room
from netutil.agent.door.door import Door
from netutil.agent.door.entrance import Identify, Refused
from netutil.agent.door.limits import Limits
from netutil.agent.door.table import ConnectionTable
from netutil.agent.door.turns import Turns
from netutil.agent.identity.peer import Peer
from netutil.agent.identity.pinning import choose_pin, peer_credentials, pin_pid
from netutil.agent.listener.ownership import SocketHealth, SocketWatch
from netutil.agent.listener.unix_socket import Listener, listen
from netutil.agent.parsers.cgroup import identify as identify_cgroups
from netutil.agent.service.admission import Admission
from netutil.agent.service.call_log import CallLog
from netutil.agent.service.refusals import Refusals
from netutil.agent.service.tracing import Tracing
from netutil.agent.service.unfinished import Unfinished, UnfinishedLimits

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
POD = "11111111-2222-3333-4444-555555555555"
_PATIENCE_SECONDS = 20.0
_WIDE = Limits(connections=100, connections_per_pod=100)


def peer_of(connection: socket.socket, pod_uid: str = POD) -> Peer:
    """Return the other end as a process of a pod."""
    credentials = peer_credentials(connection)
    cgroups = identify_cgroups(f"0::/kubepods/pod{pod_uid}/{'a' * 64}\n")
    return Peer(credentials, pin_pid(credentials.pid), cgroups, pod_uid.replace("-", ""))


def each_from_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the door see another number for each connection, since one test plays several pods."""
    numbers = itertools.count(1)
    monkeypatch.setattr(door_room, "peer_pid", lambda _: next(numbers))


@dataclass
class Rig:
    """`names` holds what the server saw as its peers' names, in order."""

    door: Door
    listener: Listener
    table: ConnectionTable
    path: str
    names: list[str] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)

    def connect_raw(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        connection.connect(self.path)
        return connection


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, and end when the client has ended."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def door_before(
    serve: Serve,
    folder: Path,
    *,
    identify: Identify = peer_of,
    limits: Limits = _WIDE,
    turns: Turns | None = None,
    refused: Refused = lambda *_: None,
    unanswered_bytes: float = math.inf,
) -> AsyncIterator[Rig]:
    tasks: set[asyncio.Task[None]] = set()
    rig: Rig

    async def serving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rig.names.append(writer.get_extra_info("peername").decode().lstrip("\0"))
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    private, path = str(folder / "private.sock"), str(folder / "net.sock")
    server = await asyncio.start_unix_server(serving, private)
    listener = listen(path, mode=0o666, directory_mode=0o755)
    table = ConnectionTable(unanswered_bytes)
    door = Door(listener, private, table, identify, limits, refused=refused, turns=turns)
    rig = Rig(door, listener, table, path)
    door.open()
    try:
        yield rig
    finally:
        door.close()
        await door.drop_all()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.005)


def unlimited(table: ConnectionTable) -> Admission:
    """Return what lets every call in, for `served`."""
    refusals = Refusals(CallLog(), lambda *_: None, lambda *_: None, Tracing())
    return Admission(table, Unfinished(UnfinishedLimits()), refusals)


def socket_watch_of(door: Door) -> SocketWatch:
    """Return the watch of the door's path, for `served`."""
    pin, _ = choose_pin()
    return SocketWatch(door, pin, SocketHealth())


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
