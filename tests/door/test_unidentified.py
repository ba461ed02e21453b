"""Peers that nobody can name: let in to be told so, all under one limit, at nobody else's cost."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path

import pytest
from netutil.agent.door.limits import Limits
from netutil.agent.errors import Denied, OverLimit, Reason
from netutil.agent.identity.peer import Peer

from tests.door.rig import (
    Rig,
    door_before,
    each_from_a_process_of_its_own,
    echo,
    eventually,
    peer_of,
)


class Doorkeeper:
    """Knows every peer, except while `stranger` is set."""

    def __init__(self) -> None:
        self.stranger: Exception | None = None

    def __call__(self, connection: socket.socket) -> Peer:
        if self.stranger is not None:
            raise self.stranger
        return peer_of(connection)


def no_pod() -> Denied:
    return Denied(Reason.NOT_A_POD, "No pod.")


async def answer_of(client: socket.socket) -> bytes:
    """Return what comes back for a byte, b"" if the door ended the connection."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(20):
            await loop.sock_sendall(client, b"?")
            return await loop.sock_recv(client, 1)
    except ConnectionError:
        return b""


async def connect(rig: Rig) -> socket.socket:
    """Return a client that the door has seen: so it is known who came first."""
    goal = rig.door.counts.accepted + 1
    client = rig.connect_raw()
    await eventually(lambda: rig.door.counts.accepted == goal)
    return client


async def connected(rig: Rig, number: int) -> list[socket.socket]:
    return [await connect(rig) for _ in range(number)]


async def test_strangers_share_one_limit_and_past_it_the_door_closes(tmp_path: Path) -> None:
    keeper = Doorkeeper()
    keeper.stranger = no_pod()
    async with door_before(echo, tmp_path, identify=keeper, limits=Limits(1000, 3)) as rig:
        clients = await connected(rig, 5)
        assert [await answer_of(client) for client in clients] == [b"?"] * 3 + [b""] * 2
        assert rig.door.counts.closed_at_once == 2
        for client in clients:
            client.close()


async def test_a_strangers_freed_place_can_be_taken(tmp_path: Path) -> None:
    keeper = Doorkeeper()
    keeper.stranger = no_pod()
    async with door_before(echo, tmp_path, identify=keeper, limits=Limits(1000, 1)) as rig:
        for _ in range(5):
            client = await connect(rig)
            assert await answer_of(client) == b"?"
            client.close()
            await eventually(lambda: len(rig.table) == 0)


async def test_strangers_at_their_limit_take_nothing_from_a_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each_from_a_process_of_its_own(monkeypatch)
    keeper = Doorkeeper()
    async with door_before(echo, tmp_path, identify=keeper, limits=Limits(1000, 2)) as rig:
        keeper.stranger = no_pod()
        strangers = await connected(rig, 4)
        keeper.stranger = None
        known = await connected(rig, 2)
        assert [await answer_of(client) for client in known] == [b"?"] * 2
        assert [entry.refusal for entry in rig.table].count(None) == 2
        for client in strangers + known:
            client.close()


async def test_a_freed_place_of_all_is_a_pods_again(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path, limits=Limits(2, 1000)) as rig:
        first, _, third = clients = await connected(rig, 3)
        assert sum(entry.refusal is not None for entry in rig.table) == 1
        first.close()
        third.close()
        await eventually(lambda: len(rig.table) == 1)
        clients += await connected(rig, 1)
        assert [entry.refusal for entry in rig.table] == [None, None]
        for client in clients:
            client.close()


async def test_a_failure_to_identify_ends_that_connection_only(tmp_path: Path) -> None:
    keeper = Doorkeeper()
    async with door_before(echo, tmp_path, identify=keeper) as rig:
        keeper.stranger = OSError(errno.EIO, "Input/output error")
        failed = await connected(rig, 1)
        keeper.stranger = None
        served = await connected(rig, 1)
        assert await answer_of(failed[0]) == b""
        assert await answer_of(served[0]) == b"?"
        assert len(rig.table) == 1
        for client in failed + served:
            client.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_a_peer_that_cannot_be_looked_at_for_a_shortage_is_told(
    number: int, tmp_path: Path
) -> None:
    keeper = Doorkeeper()
    async with door_before(echo, tmp_path, identify=keeper) as rig:
        keeper.stranger = OSError(number, os.strerror(number))
        (told,) = await connected(rig, 1)
        (entry,) = rig.table
        assert isinstance(entry.refusal, OverLimit)
        assert entry.refusal.reason is Reason.AGENT_OUT_OF_RESOURCES
        told.close()


async def test_a_silent_peer_is_counted_against_its_pods_limit(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path, limits=Limits(1000, 2)) as rig:
        silent = await connected(rig, 2)
        late = await connected(rig, 1)
        assert [entry.refusal is None for entry in rig.table] == [True, True, False]
        for client in silent + late:
            client.close()
