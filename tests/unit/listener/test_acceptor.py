"""Floods of connections: open connections go first, and the kernel queues fewer new ones."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path

import pytest
from netutil.agent.listener import acceptor
from netutil.agent.listener.acceptor import FLOOD_BACKLOG
from netutil.agent.listener.unix_socket import BACKLOG

from tests.support.waiting import until
from tests.unit.listener.harness import EchoServer, ask, echo_server

ABORTED = 3000


class Clock:
    """Advances by a step at each call."""

    def __init__(self, step_seconds: float) -> None:
        self._now, self._step_seconds = 1000.0, step_seconds

    def monotonic(self) -> float:
        self._now += self._step_seconds
        return self._now


def connect_and_close(path: str, times: int) -> None:
    for _ in range(times):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)


async def queue_places(server: EchoServer) -> int:
    """Return how many connections the kernel queues, and let them be accepted."""
    accepted, places = server.counts.accepted, 0
    with ExitStack() as stack, suppress(BlockingIOError):
        while places < 2 * BACKLOG:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect(server.path)
            places += 1
    await until(lambda: server.counts.accepted == accepted + places)
    return places


async def test_the_backlog_is_short_in_a_flood_and_long_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "FLOOD_CONNECTIONS_PER_SECOND", 50.0)
    async with echo_server(tmp_path) as server:
        # The kernel queues one more than its backlog (unix_recvq_full of net/unix/af_unix.c).
        assert await queue_places(server) == BACKLOG + 1
        await asyncio.to_thread(connect_and_close, server.path, ABORTED)
        await until(lambda: server.counts.accepted == BACKLOG + 1 + ABORTED)
        assert await queue_places(server) == FLOOD_BACKLOG + 1
        assert server.counts.floods == 1
        monkeypatch.setattr(acceptor, "CALM_SECONDS", 0.0)
        monkeypatch.setattr(acceptor, "FLOOD_CONNECTIONS_PER_SECOND", 1e9)
        await asyncio.to_thread(connect_and_close, server.path, 1)
        await until(lambda: server.counts.accepted > BACKLOG + ABORTED + FLOOD_BACKLOG + 2)
        assert await queue_places(server) == BACKLOG + 1
        assert server.counts.floods == 1


def ask_blocking(path: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.settimeout(20)
        connection.sendall(b"?")
        return connection.recv(1)


async def test_clients_that_wait_for_a_queue_place_are_answered(tmp_path: Path) -> None:
    async with echo_server(tmp_path) as server:
        floods = [asyncio.to_thread(connect_and_close, server.path, ABORTED) for _ in range(2)]
        clients = [asyncio.to_thread(ask_blocking, server.path) for _ in range(50)]
        answers = await asyncio.gather(*floods, *clients)
        assert answers == [None] * len(floods) + [b"?"] * len(clients)


async def test_the_acceptor_leaves_time_for_other_work_each_iteration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with echo_server(tmp_path) as server:
        monkeypatch.setattr(acceptor, "time", Clock(acceptor.BURST_SECONDS / 4))
        connect_and_close(server.path, 20)
        counts = [server.counts.accepted]
        while server.counts.accepted < 20:
            await asyncio.sleep(0)
            counts.append(server.counts.accepted)
    accepted = [after - before for before, after in pairwise(counts) if after > before]
    assert max(accepted) == 4
    assert server.bursts == len(accepted)


async def test_the_acceptor_pauses_without_descriptors_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "_PAUSE_SECONDS", 0.05)
    async with echo_server(tmp_path) as server:
        exhausted = server.exhaust_descriptors(failures=3)
        assert await ask(server.connect()) == b"?"
        assert server.counts.accept_failures == 3
        assert exhausted.attempts < 50  # it did not spin meanwhile


async def test_a_closed_acceptor_removes_its_socket_and_closes_again(tmp_path: Path) -> None:
    async with echo_server(tmp_path) as server:
        clients = [server.connect() for _ in range(10)]
        server.acceptor.close()  # before the loop could accept
        assert os.listdir(tmp_path) == []
        assert server.counts.accepted == len(clients)
        assert server.is_drained
        server.acceptor.close()
        for client in clients:
            client.close()


async def test_a_rebound_acceptor_serves_the_old_queue_and_new_path(
    tmp_path: Path,
) -> None:
    async with echo_server(tmp_path) as server:
        waiting = server.connect()
        old = server.acceptor.listener
        server.acceptor.rebind(old.rebind(replacing=old.file_id))
        assert old.connection.fileno() < 0
        assert server.acceptor.listener.still_ours()
        assert await ask(waiting) == b"?"
        assert await ask(server.connect()) == b"?"


async def test_a_full_receiver_pauses_the_acceptor(tmp_path: Path) -> None:
    async with echo_server(tmp_path) as server:
        server.full = True
        client = server.connect()
        await until(lambda: server.counts.pauses >= 3)
        assert server.counts.accepted == 0
        server.full = False
        assert await ask(client) == b"?"
        assert server.counts.pauses < 1000


async def test_a_look_accepts_one_connection_and_then_none_for_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor, "LOOK_SECONDS", 0.1)
    async with echo_server(tmp_path) as server:
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(socket.socket(socket.AF_UNIX)).connect(server.path)
            counts = []
            for _ in range(3):
                server.acceptor.look()
                counts.append(server.counts.accepted)
            time.sleep(0.1)  # noqa: ASYNC251 - the loop is not to accept meanwhile
            server.acceptor.look()
            assert [*counts, server.counts.accepted] == [1, 1, 1, 2]
            await until(lambda: server.counts.accepted == 3)


async def test_a_look_accepts_nothing_while_the_acceptor_waits(tmp_path: Path) -> None:
    async with echo_server(tmp_path) as server:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(server.path)
            server.full = True
            server.acceptor.look()
            assert server.counts.accepted == 0
            server.full = False
            server.acceptor._pause(60.0)
            server.acceptor._next_look = 0.0
            server.acceptor.look()
            assert server.counts.accepted == 0
            server.acceptor.open()
            await until(lambda: server.counts.accepted == 1)


async def test_a_look_accepts_nothing_in_a_flood_or_after_the_end(tmp_path: Path) -> None:
    async with echo_server(tmp_path) as server:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(server.path)
            server.acceptor._backlog = FLOOD_BACKLOG
            server.acceptor.look()
            assert server.counts.accepted == 0
            server.acceptor.close()
            server.acceptor._backlog = BACKLOG
            accepted = server.counts.accepted
            server.acceptor.look()
            assert (server.counts.accepted, server.counts.accept_failures) == (accepted, 0)
