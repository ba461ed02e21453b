"""How a flood of connections is accepted: who is in goes first, and few may stand before others."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from netutil.agent.door import accepting as room
from netutil.agent.door import pace
from netutil.agent.door.listener import BACKLOG, BACKLOG_IN_FLOOD

from tests.door.rig import Rig, door_before, echo, eventually

HUNG_UP = 3000


class Clock:
    """Stands still, but for what is said to take time. An idle round of the loop takes 10 µs."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        self.now += 0.00001
        return self.now


def connect_and_die(path: str, times: int) -> None:
    for _ in range(times):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)


async def places(rig: Rig) -> int:
    """Return how many fit into the queue while the loop does nothing, and let them be accepted."""
    accepted, fitting = rig.door.counts.accepted, 0
    with ExitStack() as stack, suppress(BlockingIOError):
        while fitting < 2 * BACKLOG:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect(rig.path)
            fitting += 1
    await eventually(lambda: rig.door.counts.accepted == accepted + fitting)
    return fitting


async def test_in_a_flood_few_may_stand_before_whoever_connects_and_many_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "USELESS_PER_SECOND", 50.0)
    async with door_before(echo, tmp_path) as rig:
        # The kernel lets one more wait than it was told (unix_recvq_full of net/unix/af_unix.c).
        assert await places(rig) == BACKLOG + 1
        await asyncio.to_thread(connect_and_die, rig.path, HUNG_UP)
        await eventually(lambda: rig.door.counts.accepted == BACKLOG + 1 + HUNG_UP)
        assert await places(rig) == BACKLOG_IN_FLOOD + 1
        assert rig.door.counts.floods == 1
        monkeypatch.setattr(pace, "CALM_SECONDS", 0.0)
        monkeypatch.setattr(pace, "USELESS_PER_SECOND", 1e9)
        await asyncio.to_thread(connect_and_die, rig.path, 1)
        await eventually(
            lambda: rig.door.counts.accepted > BACKLOG + HUNG_UP + BACKLOG_IN_FLOOD + 2
        )
        assert await places(rig) == BACKLOG + 1
        assert rig.door.counts.floods == 1


def ask(path: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.settimeout(20)
        connection.sendall(b"?")
        return connection.recv(1)


async def test_those_who_wait_for_a_place_in_a_flood_are_all_answered(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        floods = [asyncio.to_thread(connect_and_die, rig.path, HUNG_UP) for _ in range(2)]
        asking = [asyncio.to_thread(ask, rig.path) for _ in range(50)]
        answers = await asyncio.gather(*floods, *asking)
        assert answers == [None] * len(floods) + [b"?"] * len(asking)


async def test_who_is_in_goes_before_those_who_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, bursts = Clock(), 0
    async with door_before(echo, tmp_path) as rig:
        acceptor = rig.door._acceptor
        ended = acceptor._burst_ended

        def burst_ended() -> None:
            nonlocal bursts
            bursts += 1
            ended()

        monkeypatch.setattr(room, "time", clock)
        monkeypatch.setattr(acceptor, "_burst_ended", burst_ended)
        connect_and_die(rig.path, BACKLOG)
        for _ in range(20):  # nobody else works, and so it is learnt what a round takes
            await asyncio.sleep(0)
        idle, bursts = bursts, 0
        for _ in range(20):
            clock.now += pace.LONGEST_WAIT_SECONDS / 10
            await asyncio.sleep(0)
    assert idle >= 18
    assert 1 <= bursts <= 4
