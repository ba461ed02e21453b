"""Acceptors that take over a path from each other, and the close of the last: no client hangs."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections import Counter
from pathlib import Path

import pytest
from netutil.agent.listener import acceptor

from tests.support.waiting import until
from tests.unit.listener.harness import EchoServer, ask, echo_server

TAKEOVERS = 50


class Client(threading.Thread):
    """Connects repeatedly and records the outcome of each connection."""

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

    async def wait_for_outcome(self) -> None:
        known = self.outcomes.total()
        await until(lambda: self.outcomes.total() > known)

    def call(self, client: socket.socket) -> str:
        try:
            client.connect(self.path)
        except OSError as error:
            return f"not connected: {error}"
        try:
            client.sendall(b"?")
            return "answered" if client.recv(1) == b"?" else "closed"
        except ConnectionError:
            return "closed"
        except TimeoutError:
            return "hangs"


def take_over(path: str) -> EchoServer:
    server = EchoServer(Path(path))
    server.acceptor.open()
    return server


async def test_acceptors_that_alternate_answer_every_client(
    tmp_path: Path,
) -> None:
    async with echo_server(tmp_path) as first:
        client = Client(first.path)
        client.start()
        servers = [first]
        try:
            for _ in range(TAKEOVERS):
                servers.append(take_over(first.path))
                servers[-2].acceptor.close()
                await client.wait_for_outcome()
        finally:
            client.stop.set()
            await asyncio.to_thread(client.join)
            for server in servers:
                await server.close()
    assert set(client.outcomes) == {"answered"}
    assert client.outcomes["answered"] >= TAKEOVERS


async def test_a_closing_acceptor_leaves_its_successors_socket(tmp_path: Path) -> None:
    async with echo_server(tmp_path) as server:
        successor = take_over(server.path)
        inode = os.lstat(server.path).st_ino
        server.acceptor.close()
        assert os.lstat(server.path).st_ino == inode
        await successor.close()
        assert os.listdir(tmp_path) == []


async def test_connections_outlive_the_acceptor(tmp_path: Path) -> None:
    async with echo_server(tmp_path) as server:
        client = server.connect()
        await until(lambda: len(server.tasks) == 1)
        server.acceptor.close()
        assert await ask(client) == b"?"


async def test_clients_in_the_queue_at_the_close_are_answered(tmp_path: Path) -> None:
    async with echo_server(tmp_path) as server:
        clients = [server.connect() for _ in range(94)]
        server.acceptor.close()
        answers = await asyncio.gather(*(ask(client) for client in clients))
    assert answers == [b"?"] * len(clients)


async def test_a_pause_ends_with_the_close_and_the_queue_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "_PAUSE_SECONDS", 0.05)
    async with echo_server(tmp_path) as server:
        server.exhaust_descriptors(failures=1)
        client = server.connect()
        await until(lambda: server.counts.accept_failures == 1)
        server.acceptor.close()
        assert await ask(client) == b"?"
        resume = server.acceptor._resume
        assert resume is not None and resume.cancelled()


async def test_clients_not_accepted_at_the_close_are_disconnected(
    tmp_path: Path,
) -> None:
    async with echo_server(tmp_path) as server:
        server.exhaust_descriptors(failures=1000)
        clients = [server.connect() for _ in range(5)]
        server.acceptor.close()
        assert await asyncio.gather(*(ask(client) for client in clients)) == [b""] * 5
