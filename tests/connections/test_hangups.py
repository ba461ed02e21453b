"""A peer that has closed its socket is released at once, also while nothing is read of it."""

from __future__ import annotations

import asyncio
import os
import socket
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from netutil.agent.errors import Unauthenticated
from netutil.agent.grpcserver.hangup import HangupMonitor, is_hung_up

from tests.connections.harness import POD_KEY, Rig, eventually, rig, told
from tests.grpcserver.raw import RawClient

_MANY = 64
_LONG_SECONDS = 600.0


def block(it: Rig, seconds: float) -> None:
    it.scheduler.block(it.scheduler.account(POD_KEY), seconds)


async def waiting(it: Rig) -> RawClient:
    """Return a client with a call that waits for its pod's turn."""
    client = await it.client()
    assert await told(client) == POD_KEY
    block(it, _LONG_SECONDS)
    client.ask(3)
    before = it.scheduler.waits
    await eventually(lambda: it.scheduler.waits > before)
    return client


async def test_a_connection_whose_pod_is_paused_ends_when_its_peer_closes(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        client = await waiting(it)
        (entry,) = it.connections()
        client.writer.close()
        await eventually(lambda: len(it.registry) == 0)
        assert entry.peer is not None
        with pytest.raises(Unauthenticated):
            entry.peer.process.directory()


async def test_a_paused_peer_that_has_only_ended_its_sending_is_answered_later(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as it:
        client = await it.client()
        assert await told(client) == POD_KEY
        block(it, 0.3)
        client.ask(3)
        client.writer.write_eof()
        assert (await client.answer(3))[0]["grpc-status"] == "0"


async def test_peers_that_close_with_answers_unread_are_released(tmp_path: Path) -> None:
    """The next recv of the agent gets ECONNRESET (unix_release_sock, net/unix/af_unix.c)."""
    async with rig(tmp_path) as it:
        clients = [await it.client() for _ in range(_MANY)]
        for client in clients:
            client.ask(1)
        await eventually(lambda: it.in_flight.calls == 0 and len(it.handlers.contexts) == _MANY)
        for client in clients:
            client.writer.close()
        await eventually(lambda: len(it.registry) == 0)


async def test_a_descriptor_that_is_used_again_is_watched_for_its_new_connection() -> None:
    loop = asyncio.get_running_loop()
    monitor, closed = HangupMonitor(loop), list[str]()
    one, its_peer = socket.socketpair()
    number = one.fileno()
    monitor.watch(number, partial(closed.append, "one"))
    monitor.forget(number)
    one.close()
    other, other_peer = socket.socketpair()
    assert other.fileno() == number
    monitor.watch(number, partial(closed.append, "other"))
    its_peer.close()
    other_peer.close()
    await eventually(lambda: closed == ["other"])
    other.close()
    monitor.close()


async def test_a_forgotten_connection_is_not_reported() -> None:
    monitor, closed = HangupMonitor(asyncio.get_running_loop()), list[str]()
    pairs = {name: socket.socketpair() for name in ("first", "second")}
    for name, (one, _) in pairs.items():
        monitor.watch(one.fileno(), partial(closed.append, name))
    for _ in range(2):
        monitor.forget(pairs["first"][0].fileno())
    for _, peer in pairs.values():
        peer.close()
    await eventually(lambda: bool(closed))
    assert closed == ["second"]
    monitor.close()
    for one, _ in pairs.values():
        one.close()


async def test_many_peers_that_close_at_once_are_released_over_several_iterations() -> None:
    monitor, closed = HangupMonitor(asyncio.get_running_loop()), list[int]()
    pairs = [socket.socketpair() for _ in range(_MANY)]
    for one, _ in pairs:
        monitor.watch(one.fileno(), partial(closed.append, one.fileno()))
    for _, peer in pairs:
        peer.close()
    counts = [0]
    while len(closed) < _MANY:
        await asyncio.sleep(0)
        counts.append(len(closed))
    assert max(after - before for before, after in pairwise(counts)) <= _MANY // 8
    assert sorted(closed) == sorted(one.fileno() for one, _ in pairs)
    monitor.close()
    for one, _ in pairs:
        one.close()


async def test_few_connections_are_released_at_once_in_a_short_time() -> None:
    now = [0.0]
    monitor = HangupMonitor(asyncio.get_running_loop(), lambda: now[0])
    assert [monitor.may_release() for _ in range(10)] == [True] * 8 + [False] * 2
    now[0] += 0.001
    assert not monitor.may_release()
    now[0] += 0.001
    assert [monitor.may_release() for _ in range(10)] == [True] * 8 + [False] * 2
    monitor.close()


async def test_peers_that_close_at_once_are_released_over_several_iterations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(tmp_path) as it:
        clients = [await it.client() for _ in range(_MANY)]
        for client in clients:
            assert await told(client) == POD_KEY
        monkeypatch.setattr(it.server.hangups, "may_release", lambda: False)
        for client in clients:
            client.writer.close()
        counts = [len(it.registry)]
        async with asyncio.timeout(20):
            while len(it.registry):
                await asyncio.sleep(0)
                counts.append(len(it.registry))
        assert max(before - after for before, after in pairwise(counts)) <= _MANY // 8


async def test_a_closed_monitor_reports_nothing() -> None:
    monitor, closed = HangupMonitor(asyncio.get_running_loop()), list[str]()
    one, peer = socket.socketpair()
    monitor.watch(one.fileno(), partial(closed.append, "one"))
    monitor.close()
    peer.close()
    await asyncio.sleep(0.05)
    assert closed == []
    one.close()


def test_a_hang_up_is_known_without_a_read() -> None:
    one, peer = socket.socketpair()
    with one:
        assert not is_hung_up(one.fileno())
        peer.send(b"unread")
        peer.shutdown(socket.SHUT_WR)
        assert not is_hung_up(one.fileno()), "it has only ended its sending"
        peer.close()
        assert is_hung_up(one.fileno())


async def test_a_monitor_holds_one_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    monitor = HangupMonitor(asyncio.get_running_loop())
    pairs = [socket.socketpair() for _ in range(8)]
    for one, _ in pairs:
        monitor.watch(one.fileno(), lambda: None)
    assert len(os.listdir("/proc/self/fd")) == before + 16 + 1
    monitor.close()
    for pair in pairs:
        for one in pair:
            one.close()
