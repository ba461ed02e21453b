"""The admission of peers: identity, limits, and release."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from netutil.agent.connections import admission
from netutil.agent.connections.admission import OVERFLOW_SLOTS
from netutil.agent.connections.attribution import KnownPeers
from netutil.agent.errors import (
    AgentError,
    PermissionDenied,
    QuotaExceeded,
    Reason,
    Unauthenticated,
)
from netutil.agent.grpcserver.ancillary import Closer
from netutil.agent.identity.peer import Peer
from netutil.agent.limits import scheduler
from netutil.agent.limits.limits import MAX_CLOSING_CONNECTIONS, ConnectionLimits
from netutil.agent.listener import acceptor

from tests.support.grpcserver.admission import (
    OTHER_POD,
    POD,
    POD_KEY,
    Rig,
    call_result,
    one_process_per_connection,
    peer_of,
    peers_of,
    rig,
)
from tests.support.waiting import until


class Counting:
    """Identifies peers, and counts how many."""

    def __init__(self) -> None:
        self.identified = 0

    def __call__(self, connection: socket.socket) -> Peer:
        self.identified += 1
        return peer_of(connection)


async def accepted(it: Rig, number: int) -> list[socket.socket]:
    return [await it.connected() for _ in range(number)]


async def test_a_call_finds_the_peer_of_its_connection(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        client = await it.client()
        assert await call_result(client) == POD_KEY
        (entry,) = it.connections()
        assert entry.peer is not None and entry.peer.credentials.pid == os.getpid()
        assert entry.requester.pod_uid == POD_KEY


async def test_the_process_handles_of_a_peer_close_with_its_connection(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as it:
        client = await it.client()
        await call_result(client)
        (entry,) = it.connections()
        assert entry.peer is not None
        entry.peer.process.directory()
        client.writer.close()
        await until(lambda: len(it.registry) == 0)
        with pytest.raises(Unauthenticated):
            entry.peer.process.directory()


async def test_the_process_handles_close_if_data_cannot_be_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    peers: list[Peer] = []

    def identify(connection: socket.socket) -> Peer:
        peers.append(peer_of(connection))
        return peers[-1]

    async with rig(tmp_path, identify=identify) as it:
        monkeypatch.setattr(it.server.loop, "add_reader", fail)
        client = await it.connected()
        async with asyncio.timeout(20):
            assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
        monkeypatch.undo()
        assert len(it.registry) == 0
        with pytest.raises(Unauthenticated):
            peers[0].process.directory()


async def test_the_process_handles_of_a_rejected_peer_close_at_once(tmp_path: Path) -> None:
    peers: list[Peer] = []

    def identify(connection: socket.socket) -> Peer:
        peers.append(peer_of(connection))
        return peers[-1]

    async with rig(tmp_path, identify=identify, limits=ConnectionLimits(1000, 1)) as it:
        await accepted(it, 1 + OVERFLOW_SLOTS + 1)
        peers[0].process.directory()
        assert len(peers) == 1 + OVERFLOW_SLOTS + 1
        for peer in peers[1:]:
            with pytest.raises(Unauthenticated):
                peer.process.directory()


async def test_a_peer_that_closes_while_it_is_queued_is_not_served(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as it:
        it.scheduler.block(it.scheduler.account(POD_KEY), 0.2)
        client = await it.connected()
        assert len(it.registry) == 1
        client.close()
        await until(lambda: len(it.registry) == 0)
        assert it.counts.accept.aborted == 1


async def test_a_peer_that_has_closed_is_not_identified(tmp_path: Path) -> None:
    identify = Counting()
    async with rig(tmp_path, identify=identify) as it:
        client = it.connect_raw()
        client.send(b"a request")
        client.close()
        await until(lambda: it.counts.accept.aborted == 1)
        assert identify.identified == 0
        assert len(it.registry) == 0


async def test_a_peer_that_has_only_ended_its_sending_is_answered(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        client = await it.client()
        client.ask(1)
        client.writer.write_eof()
        found, _ = await client.answer(1)
        assert found["grpc-status"] == "0"
        assert it.counts.accept.aborted == 0


async def test_calls_fail_past_a_pods_limits_then_connections_close(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path, limits=ConnectionLimits(1000, 3)) as it:
        clients = await accepted(it, 3 + OVERFLOW_SLOTS + 5)
        errors = it.errors()
        assert errors.count(None) == 3
        assert errors.count(Reason.TOO_MANY_CONNECTIONS_OF_POD) == OVERFLOW_SLOTS
        assert len(errors) == 3 + OVERFLOW_SLOTS
        assert it.counts.accept.closed_at_once == 5
        for client in clients:
            client.close()
        await until(lambda: len(it.registry) == 0)
        assert await it.who() == POD_KEY


async def test_a_connection_past_the_limit_gets_the_reason(tmp_path: Path) -> None:
    async with rig(tmp_path, limits=ConnectionLimits(1000, 1)) as it:
        await it.connected()
        assert await it.who() == Reason.TOO_MANY_CONNECTIONS_OF_POD
        assert it.reasons() == [Reason.TOO_MANY_CONNECTIONS_OF_POD]
        (rejection,) = it.rejections
        assert (rejection.stage, rejection.key, rejection.method) == ("connection", POD_KEY, "")
        assert rejection.requester.pod_uid == POD_KEY
        assert it.counts.rejected == 1


async def test_a_connection_past_a_limit_ends_when_its_peer_may_retry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QuotaExceeded, "retry_after_seconds", 0.1)
    async with rig(tmp_path, limits=ConnectionLimits(1000, 1)) as it:
        first = await it.connected()
        rejected = await it.client()
        assert await call_result(rejected) == Reason.TOO_MANY_CONNECTIONS_OF_POD
        first.close()
        assert (await rejected.goaway())[1] == 0
        await rejected.ends()
        assert await it.who() == POD_KEY


async def test_a_connection_whose_error_stays_is_kept(tmp_path: Path) -> None:
    def identify(_: socket.socket) -> Peer:
        raise PermissionDenied(Reason.NOT_A_POD, "No pod.")

    async with rig(tmp_path, identify=identify) as it:
        client = await it.client()
        assert await call_result(client) == Reason.NOT_A_POD
        await asyncio.sleep(0.2)
        assert await call_result(client, 3) == Reason.NOT_A_POD


async def test_calls_fail_past_all_limits_then_connections_close(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path, limits=ConnectionLimits(4, 1000)) as it:
        await accepted(it, 4 + OVERFLOW_SLOTS + 5)
        errors = [error for error in it.errors() if error is not None]
        assert errors == [Reason.TOO_MANY_CONNECTIONS] * OVERFLOW_SLOTS
        assert len(it.registry) == 4 + OVERFLOW_SLOTS
        assert it.counts.accept.closed_at_once == 5


async def test_the_limit_of_one_pod_is_not_that_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_process_per_connection(monkeypatch)
    identify = peers_of(*[POD] * 20, OTHER_POD)
    async with rig(tmp_path, identify=identify, limits=ConnectionLimits(1000, 2)) as it:
        await accepted(it, 20)
        assert await it.who() == OTHER_POD.replace("-", "")


async def test_a_pod_past_its_limits_is_not_identified_again(tmp_path: Path) -> None:
    identify = Counting()
    async with rig(tmp_path, identify=identify, limits=ConnectionLimits(1000, 2)) as it:
        await accepted(it, 100)
        assert len(it.registry) == 2 + OVERFLOW_SLOTS
        # Once more than are admitted, and again each second.
        assert identify.identified < len(it.registry) + 20
        assert it.counts.accept.closed_at_once == 100 - len(it.registry)


async def test_a_process_past_a_limit_is_identified_after_others_close(tmp_path: Path) -> None:
    async with rig(tmp_path, limits=ConnectionLimits(1000, 1)) as it:
        clients = await accepted(it, 1 + OVERFLOW_SLOTS + 3)
        assert it.counts.accept.closed_at_once == 3
        for client in clients:
            client.close()
        await until(lambda: len(it.registry) == 0)
        assert await it.who() == POD_KEY


async def test_a_process_past_a_limit_is_remembered_for_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_OVER_LIMIT_SECONDS", 0.05)
    known = KnownPeers()
    async with rig(tmp_path, limits=ConnectionLimits(1000, 1), known=known) as it:
        await accepted(it, 1 + OVERFLOW_SLOTS + 1)
        assert list(known.over_limit) == [os.getpid()]
        await until(lambda: not known.over_limit)


async def test_low_memory_rejects_a_peer_before_it_is_identified(tmp_path: Path) -> None:
    low = [True]

    def check() -> AgentError | None:
        return QuotaExceeded(Reason.AGENT_MEMORY_LOW, "Memory is low.") if low else None

    identify = Counting()
    async with rig(tmp_path, identify=identify, check_capacity=check) as it:
        assert await it.who() == Reason.AGENT_MEMORY_LOW
        assert identify.identified == 0
        low.clear()
        assert await it.who() == POD_KEY


async def test_low_memory_ends_no_connection_that_is_open(tmp_path: Path) -> None:
    low: list[bool] = []

    def check() -> AgentError | None:
        return QuotaExceeded(Reason.AGENT_MEMORY_LOW, "Memory is low.") if low else None

    async with rig(tmp_path, check_capacity=check) as it:
        client = await it.client()
        assert await call_result(client) == POD_KEY
        low.append(True)
        assert await call_result(client, 3) == POD_KEY


async def test_silent_peers_hold_only_their_own_connections(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        await accepted(it, 50)
        assert await it.who() == POD_KEY
        assert len(it.registry) >= 50


async def test_peers_in_the_queue_of_a_closing_socket_are_admitted(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        clients = [it.connect_raw() for _ in range(10)]
        it.acceptor.close()  # before the loop had a chance to accept
        assert "net.sock" not in os.listdir(tmp_path)
        assert len(it.registry) == len(clients)


async def test_connections_over_many_rounds_leave_no_descriptor(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        for _ in range(30):
            assert await it.who() == POD_KEY
        await until(lambda: len(it.registry) == 0)
        assert it.in_flight.calls == 0


async def test_identifying_a_peer_is_loop_time_of_its_pod(tmp_path: Path) -> None:
    def identify(connection: socket.socket) -> Peer:
        time.sleep(0.02)
        return peer_of(connection)

    async with rig(tmp_path, identify=identify) as it:
        await it.connected()
        assert it.scheduler.account(POD_KEY).used(time.perf_counter()) > 0.001
        assert it.scheduler.account(OTHER_POD).used(time.perf_counter()) == 0


async def test_a_connection_waits_only_for_its_own_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_process_per_connection(monkeypatch)
    async with rig(tmp_path, identify=peers_of(POD, OTHER_POD)) as it:
        it.scheduler.block(it.scheduler.account(POD_KEY), 0.3)
        first = await it.client()
        assert await it.who() == OTHER_POD.replace("-", "")
        assert await call_result(first) == POD_KEY


OTHER_KEY = OTHER_POD.replace("-", "")
PID, OTHER_PID = 5001, 5002


class Busy:
    """Pods on a kernel that pins peers, whose identification takes more than a round of the loop.

    `pid` is the PID that admission sees of each connection that is accepted next.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known = KnownPeers(are_pinned=True)
        self.known.recent[PID], self.known.recent[OTHER_PID] = POD_KEY, OTHER_KEY
        self.pid = PID
        self.identified: list[str] = []
        monkeypatch.setattr(acceptor, "BURST_SECONDS", 5.0)
        monkeypatch.setattr(admission, "peer_pid", lambda _: self.pid)

    def __call__(self, connection: socket.socket) -> Peer:
        time.sleep(2 * scheduler.SLICE_SECONDS)
        peer = peer_of(connection, POD if self.pid == PID else OTHER_POD)
        self.identified.append(peer.pod_key)
        return peer


async def connected_at_once(it: Rig, number: int) -> None:
    """Let so many connections come, and return when all have been accepted."""
    goal = it.counts.accept.accepted + number
    for _ in range(number):
        it.connect_raw()
    await until(lambda: it.counts.accept.accepted == goal, pause_seconds=0.0)


async def test_new_connections_of_a_process_wait_with_its_pods_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = Busy(monkeypatch)
    async with rig(tmp_path, identify=busy, known=busy.known) as it:
        await connected_at_once(it, 20)
        assert len(busy.identified) <= 2, "to accept is not to identify"
        await until(lambda: len(it.registry) == 20)
        assert it.counts.deferred == 20


async def test_a_pod_with_one_connection_goes_before_a_pod_with_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = Busy(monkeypatch)
    async with rig(tmp_path, identify=busy, known=busy.known) as it:
        await connected_at_once(it, 20)
        busy.pid = OTHER_PID
        await connected_at_once(it, 1)
        assert busy.identified.index(OTHER_KEY) <= 5
        busy.pid = PID
        await until(lambda: len(it.registry) == 21)


async def test_the_first_connection_of_a_process_is_identified_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = Busy(monkeypatch)
    busy.pid = 5003
    async with rig(tmp_path, identify=busy, known=busy.known) as it:
        await connected_at_once(it, 5)
        assert len(busy.identified) == 5 and it.counts.deferred == 0


async def test_a_peer_without_a_pidfd_is_identified_at_once(tmp_path: Path) -> None:
    known = KnownPeers()
    async with rig(tmp_path, known=known) as it:
        await accepted(it, 5)
        assert not known.recent and it.counts.deferred == 0


@pytest.mark.parametrize("places", [0, 3])
async def test_connections_past_a_full_queue_are_identified_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: int
) -> None:
    monkeypatch.setattr(admission, "MAX_DEFERRED_CONNECTIONS", places)
    busy = Busy(monkeypatch)
    async with rig(tmp_path, identify=busy, known=busy.known) as it:
        await connected_at_once(it, 10)
        assert len(busy.identified) >= 10 - places
        assert it.counts.deferred <= places
        await until(lambda: len(it.registry) == 10)


async def test_connections_that_wait_take_no_more_than_the_free_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = Busy(monkeypatch)
    limits = ConnectionLimits(total=4, per_pod=100)
    async with rig(tmp_path, identify=busy, known=busy.known, limits=limits) as it:
        await connected_at_once(it, 10)
        assert it.counts.deferred <= 4


async def test_a_peer_that_closes_before_it_is_identified_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = Busy(monkeypatch)
    async with rig(tmp_path, identify=busy, known=busy.known) as it:
        await connected_at_once(it, 20)
        it.clients.pop().close()
        await until(lambda: it.counts.accept.aborted == 1)
        await until(lambda: len(it.registry) == 19)
        assert len(busy.identified) == 19


async def test_connections_that_wait_are_served_when_the_socket_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = Busy(monkeypatch)
    async with rig(tmp_path, identify=busy, known=busy.known) as it:
        await connected_at_once(it, 10)
        it.acceptor.close()
        assert len(it.registry) == 10


class FullCloser(Closer):
    """As many sockets wait to be closed as may."""

    def __init__(self) -> None:
        self.is_full = True

    @property
    def waiting(self) -> int:
        return MAX_CLOSING_CONNECTIONS if self.is_full else MAX_CLOSING_CONNECTIONS - 1

    def release(self, connection: socket.socket, when_closed: Callable[[], None]) -> bool:
        return False


async def test_no_connection_is_accepted_while_many_wait_to_be_closed(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        it.server.closer = closer = FullCloser()
        connecting = asyncio.create_task(it.client())
        await until(lambda: it.counts.accept.pauses >= 3)
        assert it.counts.accept.accepted == 0
        closer.is_full = False
        assert await call_result(await connecting) == POD_KEY
