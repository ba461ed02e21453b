"""An acceptor in front of an echo server, both on the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from netutil.agent.identity.pidfd import choose_pin
from netutil.agent.listener.acceptor import AcceptCounts, Acceptor
from netutil.agent.listener.ownership import ListenerHolder, SocketHealth, SocketWatch
from netutil.agent.listener.unix_socket import Listener, listen

_TIMEOUT_SECONDS = 20.0


def start(path: Path, *, mode: int = 0o666, directory_mode: int = 0o755) -> Listener:
    return listen(str(path), mode=mode, directory_mode=directory_mode)


class EchoServer:
    """Sends back what each accepted connection receives, until the peer stops sending."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.counts = AcceptCounts()
        self.bursts = 0
        self.is_drained = False
        self.full = False
        self.acceptor = Acceptor(start(path), self, self.counts)
        self.tasks: set[asyncio.Task[None]] = set()

    def exhaust_descriptors(self, failures: int) -> ExhaustedSocket:
        """Let the next accepts of the current listener fail with EMFILE."""
        listener = self.acceptor.listener
        exhausted = ExhaustedSocket(listener.connection, failures)
        object.__setattr__(listener, "connection", exhausted)
        return exhausted

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        client.connect(self.path)
        return client

    async def close(self) -> None:
        self.acceptor.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def take(self, descriptor: int) -> None:
        if _peer_closed(descriptor):
            self.counts.aborted += 1
            os.close(descriptor)
            return
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptor)
        connection.setblocking(False)
        task = asyncio.create_task(_echo(connection))
        self.tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            connection.close()
            self.tasks.discard(task)

        task.add_done_callback(ended)

    def is_full(self) -> bool:
        return self.full

    def burst_ended(self) -> None:
        self.bursts += 1

    def drained(self) -> None:
        self.is_drained = True


class ExhaustedSocket:
    """A listening socket whose first few accepts fail with EMFILE."""

    def __init__(self, inner: socket.socket, failures: int) -> None:
        self.inner = inner
        self.failures = failures
        self.attempts = 0

    def _accept(self) -> Any:
        self.attempts += 1
        if self.attempts <= self.failures:
            raise OSError(errno.EMFILE, "Too many open files")
        return self.inner._accept()  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def _peer_closed(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))


async def _echo(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while data := await loop.sock_recv(connection, 65536):
            await loop.sock_sendall(connection, data)


@asynccontextmanager
async def echo_server(directory: Path) -> AsyncIterator[EchoServer]:
    """Serve at `net.sock` below a directory within the block."""
    server = EchoServer(directory / "net.sock")
    server.acceptor.open()
    try:
        yield server
    finally:
        await server.close()


def watch_of(holder: ListenerHolder) -> tuple[SocketWatch, SocketHealth]:
    pin, _ = choose_pin()
    health = SocketHealth()
    return SocketWatch(holder, pin, health), health


async def ask(client: socket.socket) -> bytes:
    """Return the answer to one byte, b"" if the connection was closed; close the client."""
    loop = asyncio.get_running_loop()
    with client, contextlib.suppress(ConnectionError):
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            await loop.sock_sendall(client, b"?")
            return await loop.sock_recv(client, 1)
    return b""
