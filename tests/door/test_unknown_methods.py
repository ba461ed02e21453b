"""No request ends the server, whatever method it names."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from netutil.agent.door.door import Door
from netutil.agent.door.limits import Limits
from netutil.agent.door.listener import listen
from netutil.agent.door.table import ConnectionTable
from netutil.agent.serving import served

from tests.door.rig import eventually, keeper_of, peer_of, unlimited
from tests.support import http2

NOT_UTF_8 = http2.block(http2.request_fields(b"/v1alpha.NetUti\xe2/x"))


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[tuple[str, ConnectionTable]]:
    table = ConnectionTable()
    path = str(tmp_path / "net.sock")
    listener = listen(path, mode=0o666, directory_mode=0o755)
    door = Door(listener, str(tmp_path / "private.sock"), table, peer_of, Limits(100, 100))
    async with served(
        tmp_path / "private.sock", door, keeper_of(door), lambda _: (), unlimited(table)
    ):
        yield path, table


async def healthy(path: str) -> bool:
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@pytest.mark.parametrize("cut_off", [False, True], ids=["answered", "reset at once"])
async def test_a_path_that_is_not_utf_8_ends_nothing_but_its_call(
    cut_off: bool, front: tuple[str, ConnectionTable]
) -> None:
    path, table = front
    asked = http2.request(1, NOT_UTF_8)
    if cut_off:
        asked = http2.header_frames(1, NOT_UTF_8) + http2.rst_stream(1)

    def send() -> None:
        with http2.connect(path) as hostile:
            hostile.sendall(http2.opening() + asked)
            hostile.shutdown(socket.SHUT_WR)
            while hostile.recv(65536):
                pass

    for _ in range(3):
        await asyncio.wait_for(asyncio.to_thread(send), 20)
    await eventually(lambda: len(table) == 0)
    assert await healthy(path)


async def test_a_method_that_does_not_exist_is_unimplemented(
    front: tuple[str, ConnectionTable],
) -> None:
    path, _ = front
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        for method in ("/v1alpha.NetUtil/GetMore", "/grpc.health.v1.Health/No"):
            call: Any = channel.unary_unary(method)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"", timeout=20)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert await healthy(path)
