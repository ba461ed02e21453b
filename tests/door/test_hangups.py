"""Who has hung up is let go at once, whatever its frames wait for and however many they are."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import AsyncIterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from netutil.agent.door.hangups import Hangups
from netutil.agent.door.turns import PodTurns, Turns

from tests.door.rig import Rig, door_before, echo, eventually, open_descriptors
from tests.support import http2

PER_SECOND = 500.0
"""What a connection floods, 9000 frames and more, takes a minute to pass."""
CROWD = 64
PINGS = http2.frame(http2.PING, http2.ACK, 0, bytes(8)) * 900


async def ask_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read, and say how much it was at the end alone: writing would find out who is gone."""
    size = 0
    while data := await reader.read(65536):
        size += len(data)
    writer.write(b"%d" % size)
    writer.close()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with door_before(ask_nothing, tmp_path, turns=Turns(PER_SECOND)) as it:
        yield it


async def relayed(rig: Rig) -> socket.socket:
    """Return a connection that has reached the server."""
    client, seen = rig.connect_raw(), len(rig.names)
    await eventually(lambda: len(rig.names) > seen)
    return client


async def flooding(rig: Rig) -> socket.socket:
    """Return a connection whose queue is full of frames."""
    client = await relayed(rig)
    client.send(http2.opening())
    full = 0
    while full < 10:  # the door takes some once more
        try:
            client.send(PINGS)
        except BlockingIOError:
            full += 1
            await asyncio.sleep(0.01)
    return client


async def test_frames_that_wait_for_their_turn_keep_nobody_who_has_hung_up(rig: Rig) -> None:
    before = open_descriptors()
    clients = [await flooding(rig) for _ in range(3)]
    for client in clients:
        client.close()
    await eventually(lambda: len(rig.table) == 0)
    await eventually(lambda: open_descriptors() <= before)


async def test_a_connection_that_waits_to_be_let_in_ends_when_it_is_hung_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()

    async def wait(*_: object) -> None:
        await never.wait()

    monkeypatch.setattr(PodTurns, "pass_work", wait)
    client = rig.connect_raw()
    await eventually(lambda: len(rig.table) == 1)
    client.close()
    await eventually(lambda: len(rig.table) == 0)
    assert rig.names == []


async def test_a_pod_that_is_stopped_keeps_nobody_who_has_hung_up(rig: Rig) -> None:
    client = await relayed(rig)
    (entry,) = rig.table
    rig.table.stop(entry, 60)
    client.send(b"never read")
    client.close()
    await eventually(lambda: len(rig.table) == 0)


async def test_a_peer_that_has_ended_its_sending_alone_has_not_hung_up(rig: Rig) -> None:
    client = await relayed(rig)
    (entry,) = rig.table
    client.send(b"question")
    rig.table.stop(entry, 0.3)
    client.shutdown(socket.SHUT_WR)
    async with asyncio.timeout(20):
        assert await asyncio.get_running_loop().sock_recv(client, 64) == b"8"
    client.close()
    await eventually(lambda: len(rig.table) == 0)


async def test_who_has_a_number_that_was_anothers_is_looked_after_all_the_same() -> None:
    """A relay closes its sockets, and their numbers are given away, before they are forgotten."""
    hangups, told = Hangups(), list[str]()
    one, its_peer = socket.socketpair()
    number = one.fileno()
    hangups.watch(one, "one", lambda: told.append("one"))
    one.close()
    other, others_peer = socket.socketpair()
    assert other.fileno() == number
    hangups.watch(other, "other", lambda: told.append("other"))
    hangups.forget("one")
    others_peer.close()
    await eventually(lambda: told == ["other"])
    its_peer.close()
    other.close()


async def test_who_is_forgotten_is_not_told() -> None:
    hangups, told = Hangups(), list[str]()
    pairs = [socket.socketpair() for _ in range(2)]
    for name, (one, _) in zip(("first", "second"), pairs, strict=True):
        hangups.watch(one, name, partial(told.append, name))
    hangups.forget("first")
    hangups.forget("first")
    for _, peer in pairs:
        peer.close()
    await eventually(lambda: bool(told))
    assert told == ["second"]
    for one, _ in pairs:
        one.close()


async def test_a_crowd_that_hangs_up_is_not_read_from_at_once_and_let_go_a_few_at_a_time() -> None:
    hangups, told, stopped = Hangups(), list[str](), list[str]()
    pairs = {f"{number}": socket.socketpair() for number in range(CROWD)}
    for name, (one, _) in pairs.items():
        hangups.watch(one, name, partial(told.append, name))
        hangups.stop_first(name, partial(stopped.append, name))
    for _, peer in pairs.values():
        peer.close()
    counts = list[int]()
    while len(told) < CROWD:
        await asyncio.sleep(0)
        counts.append(len(told))
        if told:
            assert len(stopped) == CROWD
    assert told == list(pairs)
    assert max(after - before for before, after in pairwise([0, *counts])) <= CROWD // 16
    for one, _ in pairs.values():
        one.close()


async def test_a_hang_up_is_known_before_it_was_looked_for() -> None:
    hangups, told = Hangups(), list[str]()
    one, peer = socket.socketpair()
    hangups.watch(one, "one", lambda: told.append("one"))
    assert not hangups.is_gone("one")
    peer.shutdown(socket.SHUT_WR)
    assert not hangups.is_gone("one"), "it has only ended its sending"
    peer.close()
    assert hangups.is_gone("one")
    await eventually(lambda: told == ["one"])
    assert not hangups.is_gone("another")
    one.close()


async def test_who_leaves_with_answers_unread_is_let_go_like_others(tmp_path: Path) -> None:
    """The door's recv gets ECONNRESET then (unix_release_sock of net/unix/af_unix.c)."""
    async with door_before(echo, tmp_path) as rig:
        before = open_descriptors()
        clients = [rig.connect_raw() for _ in range(CROWD)]
        for client in clients:
            client.send(b"question")
        await eventually(lambda: len(select.select(clients, [], [], 0)[0]) == CROWD)
        for client in clients:
            client.close()
        await eventually(lambda: len(rig.table) == 0)
        await eventually(lambda: open_descriptors() <= before)
