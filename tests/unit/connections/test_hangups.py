"""A peer that has closed its socket is released at once, also while nothing is read of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from functools import partial
from itertools import chain, pairwise
from pathlib import Path

import pytest
from netutil.agent.errors import Unauthenticated
from netutil.agent.grpcserver.poller import ENDED, READABLE, Poller, peer_closed

from tests.support.grpcserver.admission import POD_KEY, Rig, call_result, rig
from tests.support.grpcserver.raw import RawClient
from tests.support.processes import open_epolls
from tests.support.waiting import until

_MANY = 64
_LONG_SECONDS = 600.0


def block(it: Rig, seconds: float) -> None:
    it.scheduler.block(it.scheduler.account(POD_KEY), seconds)


async def waiting(it: Rig) -> RawClient:
    """Return a client with a call that the scheduler of its pod has queued."""
    client = await it.client()
    assert await call_result(client) == POD_KEY
    block(it, _LONG_SECONDS)
    client.ask(3)
    before = it.scheduler.waits
    await until(lambda: it.scheduler.waits > before)
    return client


async def test_a_connection_of_a_paused_pod_ends_when_its_peer_closes(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        client = await waiting(it)
        (entry,) = it.connections()
        client.writer.close()
        await until(lambda: len(it.registry) == 0)
        assert entry.peer is not None
        with pytest.raises(Unauthenticated):
            entry.peer.process.directory()


async def test_a_paused_peer_that_only_half_closes_is_answered_later(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as it:
        client = await it.client()
        assert await call_result(client) == POD_KEY
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
        await until(lambda: it.in_flight.calls == 0 and len(it.handlers.contexts) == _MANY)
        for client in clients:
            client.writer.close()
        await until(lambda: len(it.registry) == 0)


def note(events: list[tuple[str, int]], name: str) -> Callable[[int], None]:
    return lambda seen: events.append((name, seen))


@pytest.fixture
async def poller() -> AsyncIterator[Poller]:
    one = Poller(asyncio.get_running_loop())
    yield one
    one.close()


async def test_a_reused_descriptor_is_watched_again(poller: Poller) -> None:
    events = list[tuple[str, int]]()
    one, its_peer = socket.socketpair()
    number = one.fileno()
    poller.add(number, 0, note(events, "one"))
    poller.remove(number)
    one.close()
    other, other_peer = socket.socketpair()
    assert other.fileno() == number
    poller.add(number, 0, note(events, "other"))
    its_peer.close()
    other_peer.close()
    await until(lambda: bool(events))
    assert {name for name, _ in events} == {"other"}
    other.close()


async def test_a_removed_socket_is_not_reported(poller: Poller) -> None:
    events = list[tuple[str, int]]()
    pairs = {name: socket.socketpair() for name in ("first", "second")}
    for name, (one, _) in pairs.items():
        poller.add(one.fileno(), READABLE, note(events, name))
    for _ in range(2):
        poller.remove(pairs["first"][0].fileno())
    for _, peer in pairs.values():
        peer.close()
    await until(lambda: bool(events))
    assert {name for name, _ in events} == {"second"}
    for one, _ in pairs.values():
        one.close()


async def test_a_callback_removes_a_socket_of_the_same_batch(poller: Poller) -> None:
    seen = list[int]()
    pairs = [socket.socketpair() for _ in range(2)]

    def remove_both(descriptor: int, _events: int) -> None:
        seen.append(descriptor)
        for one, _ in pairs:
            poller.remove(one.fileno())

    for one, peer in pairs:
        poller.add(one.fileno(), READABLE, partial(remove_both, one.fileno()))
        peer.send(b"data")
    await asyncio.sleep(0.02)
    assert len(seen) == 1
    for pair in pairs:
        for one in pair:
            one.close()


async def test_only_a_closed_peer_has_ended(poller: Poller) -> None:
    events = list[tuple[str, int]]()
    one, peer = socket.socketpair()
    poller.add(one.fileno(), 0, note(events, "one"))
    peer.send(b"unread")
    peer.shutdown(socket.SHUT_WR)
    await asyncio.sleep(0.02)
    assert events == []
    peer.close()
    await until(lambda: bool(events))
    assert all(seen & ENDED for _, seen in events)
    one.close()


async def test_an_error_in_one_callback_leaves_the_others(poller: Poller) -> None:
    events, failures = list[tuple[str, int]](), list[dict[str, object]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    pairs = [socket.socketpair() for _ in range(2)]

    def fail(_events: int) -> None:
        poller.remove(pairs[0][0].fileno())
        raise RuntimeError("a bug")

    poller.add(pairs[0][0].fileno(), READABLE, fail)
    poller.add(pairs[1][0].fileno(), READABLE, note(events, "other"))
    for _, peer in pairs:
        peer.send(b"data")
    await until(lambda: bool(events) and bool(failures))
    assert [str(one["exception"]) for one in failures] == ["a bug"]
    for pair in pairs:
        for one in pair:
            one.close()


async def test_sockets_that_go_on_are_reported_before_ended_ones(poller: Poller) -> None:
    seen = list[str]()
    pairs = [socket.socketpair() for _ in range(_MANY)]

    def end(descriptor: int, _events: int) -> None:
        seen.append("ended")
        poller.remove(descriptor)

    def read() -> None:
        seen.append("read")
        live.recv(100)

    for one, peer in pairs:
        poller.add(one.fileno(), READABLE, partial(end, one.fileno()))
        peer.close()
    live, its_peer = socket.socketpair()
    poller.add(live.fileno(), READABLE, lambda _: read())
    its_peer.send(b"data")
    await until(lambda: seen.count("ended") == _MANY)
    assert seen[0] == "read"
    for one, _ in pairs:
        one.close()
    live.close()
    its_peer.close()


async def test_ended_sockets_are_reported_over_iterations(poller: Poller) -> None:
    closed = list[int]()
    pairs = [socket.socketpair() for _ in range(_MANY)]

    def end(descriptor: int, _events: int) -> None:
        poller.remove(descriptor)
        closed.append(descriptor)

    for one, peer in pairs:
        poller.add(one.fileno(), 0, partial(end, one.fileno()))
        peer.close()
    counts = [0]
    while len(closed) < _MANY:
        await asyncio.sleep(0)
        counts.append(len(closed))
    assert max(after - before for before, after in pairwise(counts)) <= _MANY // 8
    assert sorted(closed) == sorted(one.fileno() for one, _ in pairs)
    for one, _ in pairs:
        one.close()


async def test_peers_that_close_at_once_are_released_over_iterations(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as it:
        clients = [await it.client() for _ in range(_MANY)]
        for client in clients:
            assert await call_result(client) == POD_KEY
        for client in clients:
            client.writer.transport.abort()
        counts = [len(it.registry)]
        async with asyncio.timeout(20):
            while len(it.registry):
                await asyncio.sleep(0)
                counts.append(len(it.registry))
        assert max(before - after for before, after in pairwise(counts)) <= _MANY // 8


async def test_a_closed_poller_reports_nothing() -> None:
    events = list[tuple[str, int]]()
    poller = Poller(asyncio.get_running_loop())
    one, peer = socket.socketpair()
    poller.add(one.fileno(), 0, note(events, "one"))
    poller.close()
    peer.close()
    await asyncio.sleep(0.05)
    assert events == []
    one.close()


def test_a_hang_up_is_known_without_a_read() -> None:
    one, peer = socket.socketpair()
    with one:
        assert not peer_closed(one.fileno())
        peer.send(b"unread")
        peer.shutdown(socket.SHUT_WR)
        assert not peer_closed(one.fileno()), "it has only ended its sending"
        peer.close()
        assert peer_closed(one.fileno())


async def test_a_poller_holds_one_descriptor() -> None:
    before = open_epolls()
    with ExitStack() as opened:
        poller = Poller(asyncio.get_running_loop())
        opened.callback(poller.close)
        for one in chain.from_iterable(socket.socketpair() for _ in range(8)):
            opened.enter_context(one)
            poller.add(one.fileno(), 0, lambda _: None)
        assert open_epolls() == before + 1
    assert open_epolls() == before
