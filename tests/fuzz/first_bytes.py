"""The first bytes of a connection, sent to the agent's server as it is served.

One server (acceptor, admission, gRPC with the agent's own configuration) runs on a thread; each
input is what a client sends. Whatever it was, the connection leaves the registry, nothing of it
stays open, and the next client is answered.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from netutil.agent.connections.registry import ConnectionRegistry

from tests.fuzz.target import Target
from tests.support import http2
from tests.support.grpcserver.admission import open_descriptors, serving

_TIMEOUT_SECONDS = 30.0
_ASKED_EVERY = 50
"""After so many inputs a client that means well asks."""


class _Front:
    """A served socket, for the life of this process."""

    def __init__(self) -> None:
        self.inputs = 0
        self._folder = tempfile.TemporaryDirectory(prefix="netutil-fuzz-")
        self.path = str(Path(self._folder.name) / "net.sock")
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True)
        self._thread.start()
        if not self._ready.wait(_TIMEOUT_SECONDS):
            raise TimeoutError("the server does not start")
        self.ask()
        self.descriptors = open_descriptors()

    async def _serve(self) -> None:
        async with serving(Path(self.path)) as registry:
            self.registry: ConnectionRegistry = registry
            self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
            self._ready.set()
            await self._ending.wait()

    def close(self) -> None:
        """Stop serving, and leave nothing."""
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(_TIMEOUT_SECONDS)
        self._folder.cleanup()

    def ask(self) -> None:
        """Raise unless a client is answered."""
        with grpc.insecure_channel(f"unix:{self.path}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        self.settle()

    def settle(self, most_descriptors: int | None = None) -> None:
        """Return once no connection is left; raise if one stays."""
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while len(self.registry) or (most_descriptors and open_descriptors() > most_descriptors):
            assert time.monotonic() < deadline, (
                f"{len(self.registry)} connections and {open_descriptors()} descriptors stay"
            )
            time.sleep(0.001)


_front = cache(_Front)


def close() -> None:
    """End what the first input has started."""
    if _front.cache_info().currsize:
        _front().close()
        _front.cache_clear()


def _send(data: bytes) -> bytes:
    front = _front()
    front.inputs += 1
    received = bytearray()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_TIMEOUT_SECONDS)
        client.connect(front.path)
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while block := client.recv(65536):
                received += block
        except (BrokenPipeError, ConnectionResetError):
            pass  # broken off: that is an answer to garbage
    front.settle(front.descriptors)
    if front.inputs % _ASKED_EVERY == 0:
        front.ask()
    return bytes(received)


def targets() -> tuple[Target, ...]:
    opening = http2.PREFACE + http2.settings({})
    headers = http2.header_frames(1, http2.block(http2.request_fields(http2.path_of("GetCPUInfo"))))
    body = http2.frame(http2.DATA, http2.END_STREAM, 1, http2.message())
    values = {
        http2.INITIAL_WINDOW_SIZE: 0,
        http2.HEADER_TABLE_SIZE: 2**32 - 1,
        http2.MAX_FRAME_SIZE: http2.MAX_FRAME_BYTES,
    }
    seeds = (
        opening,
        opening + headers + body,
        http2.PREFACE + http2.settings(values) + headers,
        opening + headers + http2.rst_stream(1) * 20,
        opening
        + http2.frame(http2.PING, 0, 0, bytes(8)) * 20
        + http2.window_update(0, http2.MAX_WINDOW),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        http2.frame(http2.DATA, http2.END_STREAM, 1, bytes(64)),
    )
    words = (
        http2.PREFACE,
        http2.settings({}),
        headers,
        body,
        http2.frame(http2.HEADERS, 0, 3),
        http2.frame(http2.CONTINUATION, http2.END_HEADERS, 1, http2.indexed(8)),
    )
    # What the server answers to garbage is GOAWAY, and to a PING its echo.
    return (Target("first-bytes", _send, seeds, (), words=words, most_more=65536, slow=True),)
