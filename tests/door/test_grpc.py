"""A real gRPC server behind the door: it learns who called; garbage ends one connection."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from netutil.agent.door.door import Door
from netutil.agent.door.limits import Limits
from netutil.agent.door.table import ConnectionTable
from netutil.agent.listener.unix_socket import listen

from tests.door.rig import eventually, peer_of

METHOD = "/test/Who"


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[str, ConnectionTable]]:
    table = ConnectionTable()

    async def who(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        peer = table.of_grpc_peer(context.peer()).peer
        assert peer is not None
        return b"%d %d" % (peer.credentials.pid, len(request))

    handler: Any = grpc.unary_unary_rpc_method_handler(who)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test", {"Who": handler}),)
    )
    private = str(folder / "private.sock")
    server.add_insecure_port(f"unix:{private}")
    await server.start()
    listener = listen(str(folder / "net.sock"), mode=0o666, directory_mode=0o755)
    door = Door(listener, private, table, peer_of, Limits(100, 100))
    door.open()
    try:
        yield listener.path, table
    finally:
        door.close()
        await server.stop(1)
        await door.drop_all()


async def ask(path: str, request: bytes = b"") -> bytes:
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        call: Any = channel.unary_unary(METHOD)
        return bytes(await call(request, timeout=20))


async def test_the_handler_learns_which_process_called(tmp_path: Path) -> None:
    script = (
        "import grpc, os, sys\n"
        "channel = grpc.insecure_channel('unix:' + sys.argv[1])\n"
        f"pid = channel.unary_unary('{METHOD}')(b'', timeout=20).split()[0]\n"
        "print(int(pid) == os.getpid())\n"
    )
    async with served(tmp_path) as (path, _):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, path, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    assert output == b"True\n"


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(range(256)) * 64,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 4096,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" * 4096,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["HTTP/1.1", "noise", "frames of nonsense", "a flood of settings", "TLS"],
)
async def test_garbage_ends_its_own_connection_only(garbage: bytes, tmp_path: Path) -> None:
    async with served(tmp_path) as (path, table):
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            call: Any = channel.unary_unary(METHOD)
            await call(b"", timeout=20)
            with socket.socket(socket.AF_UNIX) as hostile:
                hostile.setblocking(False)
                hostile.connect(path)
                hostile.sendall(garbage)
                hostile.shutdown(socket.SHUT_WR)
                await eventually(lambda: len(table) == 1)
            assert (await call(bytes(1000), timeout=20)).endswith(b" 1000")
        assert (await ask(path)).endswith(b" 0")
