"""A real gRPC server behind the door, and what is no proper client of it."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from netutil.agent.door.counts import DoorCounts
from netutil.agent.door.door import Door
from netutil.agent.door.entrance import Identify
from netutil.agent.door.limits import Limits
from netutil.agent.door.table import ConnectionTable
from netutil.agent.errors import AgentError, Denied, Reason, Unidentified
from netutil.agent.identity.peer import Peer
from netutil.agent.listener.unix_socket import listen

from tests.door.rig import eventually, open_descriptors, peer_of

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GARBAGE = {
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "noise": bytes(range(256)) * 64,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a frame of 16 MiB": PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(4096),
    "headers on stream 0": PREFACE + b"\x00\x00\x01\x01\x04\x00\x00\x00\x00\x82",
}
HANDSHAKE_MILLISECONDS = 300


@dataclass
class Served:
    """`refusals` holds what the handler knew of each caller, `ended` how its streams ended."""

    folder: Path
    table: ConnectionTable = field(default_factory=ConnectionTable)
    counts: DoorCounts = field(default_factory=DoorCounts)
    refusals: list[AgentError | None] = field(default_factory=list)
    ended: int = 0

    @property
    def path(self) -> str:
        return str(self.folder / "net.sock")

    @property
    def private(self) -> str:
        return str(self.folder / "private.sock")

    def door(self, path: str, table: ConnectionTable, identify: Identify) -> Door:
        listener = listen(path, mode=0o666, directory_mode=0o755)
        return Door(listener, self.private, table, identify, Limits(200, 200), self.counts)

    async def who(self, request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        try:
            self.refusals.append(self.table.of_grpc_peer(context.peer()).refusal)
        except Unidentified as error:
            self.refusals.append(error)
        return request

    async def watch(
        self, request: bytes, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[bytes]:
        del context
        try:
            yield request
            await asyncio.Event().wait()
        finally:
            self.ended += 1


@asynccontextmanager
async def served(folder: Path, identify: Identify = peer_of) -> AsyncIterator[Served]:
    it = Served(folder)
    handlers: Any = {
        "Who": grpc.unary_unary_rpc_method_handler(it.who),
        "Watch": grpc.unary_stream_rpc_method_handler(it.watch),
    }
    options = [("grpc.server_handshake_timeout_ms", HANDSHAKE_MILLISECONDS)]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", handlers),))
    server.add_insecure_port(f"unix:{it.private}")
    await server.start()
    door = it.door(it.path, it.table, identify)
    door.open()
    try:
        yield it
    finally:
        door.close()
        await server.stop(0)
        await door.drop_all()


async def ask(path: str) -> bytes:
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        call: Any = channel.unary_unary("/test/Who")
        return bytes(await call(b"who", timeout=20))


async def until_the_end(client: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(20):
            while await loop.sock_recv(client, 65536):
                pass
    except ConnectionError:
        pass


@asynccontextmanager
async def raw(path: str) -> AsyncIterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        client.connect(path)
        yield client


@pytest.mark.parametrize("kind", GARBAGE)
async def test_the_server_ends_a_connection_of_garbage(kind: str, tmp_path: Path) -> None:
    async with served(tmp_path) as it, raw(it.path) as hostile:
        await asyncio.get_running_loop().sock_sendall(hostile, GARBAGE[kind])
        await until_the_end(hostile)
        await eventually(lambda: len(it.table) == 0)
        assert await ask(it.path) == b"who"


async def test_a_peer_that_says_nothing_is_ended_by_the_server(tmp_path: Path) -> None:
    async with served(tmp_path) as it, raw(it.path) as silent:
        assert await ask(it.path) == b"who"
        await until_the_end(silent)
        await eventually(lambda: len(it.table) == 0)


async def test_a_hundred_strangers_leave_no_descriptor(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        assert await ask(it.path) == b"who"
        await eventually(lambda: len(it.table) == 0)
        before, goal = open_descriptors(), it.counts.accepted + 100
        for number in range(100):
            async with raw(it.path) as hostile:
                hostile.send(list(GARBAGE.values())[number % len(GARBAGE)])
        await eventually(lambda: it.counts.accepted == goal)
        await eventually(lambda: len(it.table) == 0)
        await eventually(lambda: open_descriptors() <= before)


async def test_a_call_around_the_door_comes_from_nobody(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        await ask(it.private)
    (refusal,) = it.refusals
    assert refusal is not None and refusal.reason is Reason.CONNECTION_UNKNOWN


async def test_a_name_of_the_callers_own_choice_is_nobodys(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        # A second door binds names as ours does, but they are not in our table.
        foreign = it.door(str(tmp_path / "foreign.sock"), ConnectionTable(), peer_of)
        foreign.open()
        await ask(str(tmp_path / "foreign.sock"))
        foreign.close()
        await foreign.drop_all()
    (refusal,) = it.refusals
    assert refusal is not None and refusal.reason is Reason.CONNECTION_UNKNOWN


async def test_the_handler_learns_why_its_caller_is_not_identified(tmp_path: Path) -> None:
    def refuse(_: socket.socket) -> Peer:
        raise Denied(Reason.NOT_A_POD, "No pod.")

    async with served(tmp_path, refuse) as it:
        assert await ask(it.path) == b"who"
    (refusal,) = it.refusals
    assert refusal is not None and refusal.reason is Reason.NOT_A_POD


async def test_a_client_that_is_killed_ends_its_stream_and_its_entry(tmp_path: Path) -> None:
    script = (
        "import grpc, sys\n"
        "channel = grpc.insecure_channel('unix:' + sys.argv[1])\n"
        "for _ in channel.unary_stream('/test/Watch')(b'x'): print('watching', flush=True)\n"
    )
    async with served(tmp_path) as it:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, it.path, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(20):
                assert await process.stdout.readline() == b"watching\n"
            (entry,) = it.table
        finally:
            process.kill()
            await process.wait()
        await eventually(lambda: len(it.table) == 0)
        await eventually(lambda: it.ended == 1)
        assert entry.peer is not None
        with pytest.raises(Unidentified):
            entry.peer.process.directory()  # closed, and not only dead
