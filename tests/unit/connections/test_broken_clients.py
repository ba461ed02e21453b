"""Peers that are no proper gRPC clients end no connection but their own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from netutil.agent.grpcserver import Timeouts, protocol
from netutil.agent.grpcserver import frames as f
from netutil.agent.grpcserver.headers import encode_block

from tests.support.grpcserver.admission import open_descriptors, rig, serving
from tests.support.grpcserver.raw import fields
from tests.support.http2 import message
from tests.support.waiting import until

GARBAGE = {
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "noise": bytes(range(256)) * 64,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(16),
    "a frame of 16 MiB": f.PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(4096),
    "headers on stream 0": f.PREFACE + b"\x00\x00\x01\x01\x04\x00\x00\x00\x00\x82",
}
_MAX_BLOCK_BYTES = 16 * 1024 * 1024


async def healthy(path: Path) -> bool:
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def exchange(path: Path, data: bytes) -> bytes:
    """Send, end the sending, and return all that comes before the agent closes."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    received = b""
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(20):
            while block := await reader.read(65536):
                received += block
    writer.close()
    return received


@pytest.mark.parametrize("kind", GARBAGE)
async def test_garbage_ends_its_connection_only(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    async with serving(path) as registry:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(GARBAGE[kind])
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(20):
                while await reader.read(65536):
                    pass
        await until(lambda: len(registry) == 0)
        writer.close()
        assert await healthy(path)


async def test_a_peer_that_sends_nothing_is_closed_after_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as it:
        config = replace(it.server.config, timeouts=Timeouts(preface=0.1))
        monkeypatch.setattr(it.server, "config", config)
        client = await it.connected()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(20):
                while await asyncio.get_running_loop().sock_recv(client, 4096):
                    pass
        await until(lambda: len(it.registry) == 0)


async def test_a_hundred_broken_clients_leave_no_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    async with serving(path) as registry:
        assert await healthy(path)
        await until(lambda: len(registry) == 0)
        before = open_descriptors()
        for number in range(100):
            with socket.socket(socket.AF_UNIX) as client:
                client.setblocking(False)
                client.connect(str(path))
                client.send(list(GARBAGE.values())[number % len(GARBAGE)])
            if number % 10 == 0:
                await asyncio.sleep(0)
        assert await healthy(path)
        await until(lambda: len(registry) == 0)
        await until(lambda: open_descriptors() <= before)


async def test_a_killed_client_ends_its_call_and_its_connection(tmp_path: Path) -> None:
    script = (
        "import grpc, sys\n"
        "channel = grpc.insecure_channel('unix:' + sys.argv[1])\n"
        "channel.unary_unary('/test.Echo/Slow')(b'x')\n"
    )
    async with rig(tmp_path) as it:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, it.path)
        try:
            await until(lambda: it.handlers.running == 1)
        finally:
            process.kill()
            await process.wait()
        await until(lambda: len(it.registry) == 0)
        assert it.handlers.ended == ["slow"]
        assert it.in_flight.calls == 0


@pytest.mark.parametrize("reset", [False, True], ids=["answered", "reset at once"])
async def test_a_path_that_is_not_utf_8_ends_only_its_call(reset: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    head = [
        (name, b"/v1alpha.NetUti\xe2/x" if name == b":path" else value) for name, value in fields()
    ]
    asked = (
        f.PREFACE + f.settings_frame({}) + f.header_frames(1, encode_block(head), end_stream=False)
    )
    end = f.rst_stream(1, 8) if reset else f.frame(f.DATA, f.END_STREAM, 1, message())
    async with serving(path) as registry:
        for _ in range(3):
            assert await exchange(path, asked + end)
        await until(lambda: len(registry) == 0)
        assert await healthy(path)


async def test_a_method_that_does_not_exist_is_unimplemented(tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    async with serving(path):
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            for method in ("/v1alpha.NetUtil/GetMore", "/grpc.health.v1.Health/No"):
                call: Any = channel.unary_unary(method)
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call(b"", timeout=20)
                assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert await healthy(path)


async def test_a_header_block_without_an_end_closes_its_connection(tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    block = encode_block([(b"x-more", b"y" * 100)] * 100)
    async with serving(path) as registry:
        _reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(f.PREFACE + f.settings_frame({}))
        writer.write(f.frame(f.HEADERS, 0, 1, encode_block(list(fields()))))
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < _MAX_BLOCK_BYTES:
                writer.write(f.frame(f.CONTINUATION, 0, 1, block))
                sent += len(block)
                await writer.drain()
                await asyncio.sleep(0)
        assert sent < _MAX_BLOCK_BYTES
        await until(lambda: len(registry) == 0)
        writer.close()
        assert await healthy(path)


async def test_many_header_blocks_within_the_limit_are_answered(tmp_path: Path) -> None:
    head = [*fields(), (b"x-large", b"y" * 6000)]
    async with rig(tmp_path) as it:
        client = await it.client()
        for stream in range(1, 41, 2):
            block = encode_block(head)
            client.send(
                f.frame(f.HEADERS, 0, stream, block[:3000]),
                f.frame(f.CONTINUATION, f.END_HEADERS, stream, block[3000:]),
                f.frame(f.DATA, f.END_STREAM, stream, message()),
            )
            assert (await client.answer(stream))[0]["grpc-status"] == "0"
        assert it.rejections == []


async def test_more_requests_than_one_portion_takes_are_all_answered(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        client = await it.client()
        block = encode_block(list(fields()))
        asked = b"".join(
            f.header_frames(stream, block, end_stream=False)
            + f.frame(f.DATA, f.END_STREAM, stream, message())
            for stream in range(1, 121, 2)
        )
        assert len(asked) < protocol.READ_BYTES
        client.send(asked)
        for stream in range(1, 121, 2):
            assert (await client.answer(stream))[0]["grpc-status"] == "0"
