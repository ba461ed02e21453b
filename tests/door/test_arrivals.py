"""A process that connects dozens of times at once is looked at a little at a time."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from netutil.agent.door import arrivals as room
from netutil.agent.door import door as door_room
from netutil.agent.door.arrivals import Arrivals
from netutil.agent.door.turns import Turns
from netutil.agent.identity.peer import Peer

from tests.door.rig import door_before, echo, eventually, peer_of

CROWD = 11
IN_A_TURN = 2
FRAMES_PER_SECOND = IN_A_TURN * 24 / 0.005
"""A new connection counts as 24 frames, and a turn lasts 5 ms."""


async def test_few_connections_of_a_process_are_looked_at_in_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "TURN_SECONDS", 600)
    admitted: list[int] = []
    arrivals = Arrivals(lambda _, pid: admitted.append(pid), IN_A_TURN)
    with socket.socket() as connection:
        for pid in (7, 7, 7, 7, 8):
            arrivals.add(connection, pid)
        assert admitted == [7] * IN_A_TURN + [8]
        assert arrivals.waiting == 4 - IN_A_TURN
        arrivals.flush()
        assert (len(admitted), arrivals.waiting) == (5, 0)


async def test_whoever_waits_is_looked_at_in_the_order_of_coming(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "TURN_SECONDS", 0.001)
    admitted: list[socket.socket] = []
    arrivals = Arrivals(lambda connection, _: admitted.append(connection), IN_A_TURN)
    connections = [socket.socket() for _ in range(CROWD)]
    for connection in connections:
        arrivals.add(connection, 7)
    assert len(admitted) == IN_A_TURN
    await eventually(lambda: admitted == connections)
    assert arrivals.waiting == 0
    for connection in connections:
        connection.close()


async def test_no_more_wait_than_a_limit_and_nobody_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "TURN_SECONDS", 600)
    monkeypatch.setattr(room, "MOST_WAITING", 3)
    admitted: list[int] = []
    arrivals = Arrivals(lambda _, pid: admitted.append(pid), IN_A_TURN)
    with socket.socket() as connection:
        for _ in range(CROWD):
            arrivals.add(connection, 7)
        assert (len(admitted), arrivals.waiting) == (CROWD - 3, 3)
        arrivals.flush()


async def test_a_crowd_is_answered_and_another_process_does_not_stand_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[int] = []
    numbers = iter([1] * CROWD + [2])
    monkeypatch.setattr(door_room, "peer_pid", lambda _: next(numbers))

    def identify(connection: socket.socket) -> Peer:
        looked_at.append(connection.fileno())
        return peer_of(connection)

    monkeypatch.setattr(room, "TURN_SECONDS", 0.1)
    async with door_before(
        echo, tmp_path, identify=identify, turns=Turns(FRAMES_PER_SECOND)
    ) as rig:
        crowd = [await rig.connect() for _ in range(CROWD)]
        last = await rig.connect()
        last[1].write(b"x")
        async with asyncio.timeout(20):
            assert await last[0].readexactly(1) == b"x"
        assert len(looked_at) < CROWD
        for reader, writer in crowd:
            writer.write(b"y")
            async with asyncio.timeout(20):
                assert await reader.readexactly(1) == b"y"
        for _, writer in (*crowd, last):
            writer.close()


async def test_who_hangs_up_while_it_waits_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "TURN_SECONDS", 0.1)
    async with door_before(echo, tmp_path, turns=Turns(FRAMES_PER_SECOND)) as rig:
        crowd = [rig.connect_raw() for _ in range(CROWD)]
        await eventually(lambda: rig.door.counts.accepted == CROWD)
        for connection in crowd:
            connection.close()
        await eventually(lambda: rig.door.counts.hung_up >= CROWD - IN_A_TURN)
        await eventually(lambda: len(rig.table) == 0)


async def test_at_the_close_whoever_waits_is_let_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "TURN_SECONDS", 600)
    async with door_before(echo, tmp_path, turns=Turns(FRAMES_PER_SECOND)) as rig:
        crowd = [rig.connect_raw() for _ in range(CROWD)]
        await eventually(lambda: rig.door.counts.accepted == CROWD)
        assert len(rig.table) == IN_A_TURN
        rig.door.close()
        assert len(rig.table) == CROWD
        for connection in crowd:
            connection.close()
