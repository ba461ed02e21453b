"""The poller: what is looked at while the loop has no time for an iteration."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from netutil.agent.grpcserver import poller as poller_module
from netutil.agent.grpcserver.poller import READABLE, Poller

from tests.support.waiting import until


class Sockets:
    """Connected sockets that a poller watches, and the events that came of each."""

    def __init__(self) -> None:
        self.poller = Poller(asyncio.get_running_loop())
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.events: list[int] = []
        """Which of them had an event, in order."""

    def add(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        number = len(self.pairs)
        self.pairs.append((ours, theirs))

        def on_events(_: int) -> None:
            self.events.append(number)
            self.poller.remove(theirs.fileno())

        self.poller.add(theirs.fileno(), READABLE, on_events)
        return ours

    def close(self) -> None:
        self.poller.close()
        for pair in self.pairs:
            for one in pair:
                one.close()


@pytest.fixture
async def sockets() -> AsyncIterator[Sockets]:
    found = Sockets()
    yield found
    found.close()


async def test_a_look_handles_what_has_come(sockets: Sockets) -> None:
    for _ in range(3):
        sockets.add()
    sockets.pairs[1][0].send(b"x")
    sockets.poller.look()
    assert sockets.events == [1]


async def test_a_look_releases_no_connection_that_has_ended(sockets: Sockets) -> None:
    """An iteration releases a few: looks in it would release more."""
    for _ in range(3):
        sockets.add().close()
    sockets.poller.look()
    assert not sockets.events
    await until(lambda: sorted(sockets.events) == [0, 1, 2])


async def test_a_look_is_short_however_much_has_come(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller_module, "_MAX_LOOKED_AT", 2)
    for _ in range(5):
        sockets.add().send(b"x")
    sockets.poller.look()
    assert len(sockets.events) == 2
    sockets.poller.look()
    sockets.poller.look()
    assert sorted(sockets.events) == [0, 1, 2, 3, 4]


async def test_a_look_at_nothing_or_after_the_end_does_nothing(sockets: Sockets) -> None:
    sockets.poller.look()
    sockets.add().send(b"x")
    sockets.poller.close()
    sockets.poller.look()
    assert not sockets.events
