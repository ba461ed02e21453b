"""Unidentified peers: their calls get the error, all share one limit, and no pod pays for it."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest
from netutil.agent.errors import PermissionDenied, Reason
from netutil.agent.identity.host_root import HOST_ROOT
from netutil.agent.identity.peer import NO_POD, Peer
from netutil.agent.limits.limits import (
    MAX_HOST_ROOT_CONNECTIONS,
    ConnectionLimits,
    RateLimits,
)

from tests.support.grpcserver.admission import (
    POD_KEY,
    call_result,
    one_process_per_connection,
    peer_of,
    rig,
)
from tests.support.waiting import until


class Switched:
    """Identifies every peer, except while `error` is set."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def __call__(self, connection: socket.socket) -> Peer:
        if self.error is not None:
            raise self.error
        return peer_of(connection)


def no_pod() -> PermissionDenied:
    return PermissionDenied(Reason.NOT_A_POD, "No pod.")


async def test_the_calls_of_an_unidentified_peer_get_its_error(tmp_path: Path) -> None:
    async with rig(tmp_path, identify=Switched(no_pod())) as it:
        client = await it.client()
        assert [await call_result(client, stream) for stream in (1, 3)] == [Reason.NOT_A_POD] * 2
        (entry,) = it.connections()
        assert (entry.peer, entry.key) == (None, NO_POD)
        (rejection,) = it.rejections
        assert (rejection.stage, rejection.key) == ("connection", NO_POD)
        assert rejection.requester.credentials is not None
        assert rejection.requester.credentials.pid == os.getpid()
        assert it.counts.rejected == 1


async def test_unidentified_peers_share_one_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_process_per_connection(monkeypatch)
    limits = ConnectionLimits(1000, 3)
    async with rig(tmp_path, identify=Switched(no_pod()), limits=limits) as it:
        clients = [await it.client() for _ in range(5)]
        assert [await call_result(client) for client in clients] == [Reason.NOT_A_POD] * 3 + [
            "closed"
        ] * 2
        assert it.counts.accept.closed_at_once == 2


async def test_a_process_past_the_shared_limit_is_not_looked_at_again(tmp_path: Path) -> None:
    identify = Switched(no_pod())
    async with rig(tmp_path, identify=identify, limits=ConnectionLimits(1000, 1)) as it:
        for _ in range(2):
            await it.connected()
        identify.error = AssertionError("it was looked at")
        for _ in range(20):
            await it.connected()
        assert len(it.registry) == 1


async def test_a_freed_place_can_be_taken_by_another_unidentified_peer(tmp_path: Path) -> None:
    limits = ConnectionLimits(1000, 1)
    async with rig(tmp_path, identify=Switched(no_pod()), limits=limits) as it:
        for _ in range(5):
            assert await it.who() == Reason.NOT_A_POD
            await until(lambda: len(it.registry) == 0)


async def test_unidentified_peers_at_their_limit_cost_no_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_process_per_connection(monkeypatch)
    identify = Switched(no_pod())
    async with rig(tmp_path, identify=identify, limits=ConnectionLimits(1000, 2)) as it:
        for _ in range(4):
            await it.connected()
        identify.error = None
        clients = [await it.client() for _ in range(2)]
        assert [await call_result(client) for client in clients] == [POD_KEY] * 2
        assert it.errors().count(None) == 2


async def test_a_freed_place_of_all_is_a_pods_again(tmp_path: Path) -> None:
    async with rig(tmp_path, limits=ConnectionLimits(2, 1000)) as it:
        first, _, third = [await it.connected() for _ in range(3)]
        assert it.errors().count(Reason.TOO_MANY_CONNECTIONS) == 1
        first.close()
        third.close()
        await until(lambda: len(it.registry) == 1)
        await it.connected()
        assert it.errors() == [None, None]


async def test_a_failure_to_identify_ends_that_connection_only(tmp_path: Path) -> None:
    identify = Switched(OSError(errno.EIO, "Input/output error"))
    async with rig(tmp_path, identify=identify) as it:
        assert await it.who() == "closed"
        identify.error = None
        assert await it.who() == POD_KEY


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_a_shortage_while_identifying_is_the_error_of_the_calls(
    number: int, tmp_path: Path
) -> None:
    identify = Switched(OSError(number, os.strerror(number)))
    async with rig(tmp_path, identify=identify) as it:
        assert await it.who() == Reason.AGENT_OUT_OF_RESOURCES


async def test_a_kept_error_holds_no_frames(tmp_path: Path) -> None:
    async with rig(tmp_path, identify=Switched(no_pod())) as it:
        client = await it.client()
        await call_result(client)
        (entry,) = it.connections()
        assert entry.error is not None
        assert entry.error.__traceback__ is None and entry.error.__context__ is None


async def test_a_silent_peer_counts_against_the_limit_of_its_pod(tmp_path: Path) -> None:
    async with rig(tmp_path, limits=ConnectionLimits(1000, 2)) as it:
        for _ in range(3):
            await it.connected()
        assert it.errors().count(None) == 2


class OfKeys:
    """Identifies no peer; each next error has the next quota key."""

    def __init__(self, *keys: str | None) -> None:
        self._left = iter(keys)

    def __call__(self, _: socket.socket) -> Peer:
        error = no_pod()
        error.quota_key = next(self._left)
        raise error


async def test_unidentified_peers_take_no_place_of_the_hosts_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_process_per_connection(monkeypatch)
    identify = OfKeys(*[None] * 5, *[HOST_ROOT] * (MAX_HOST_ROOT_CONNECTIONS + 1), None)
    async with rig(tmp_path, identify=identify, limits=ConnectionLimits(1000, 3)) as it:
        unidentified = [await it.client() for _ in range(5)]
        assert await call_result(unidentified[4]) == "closed"
        of_root = [await it.client() for _ in range(MAX_HOST_ROOT_CONNECTIONS + 1)]
        assert [await call_result(client) for client in of_root] == [
            *[Reason.NOT_A_POD] * MAX_HOST_ROOT_CONNECTIONS,
            "closed",
        ]
        unidentified[0].writer.close()
        await until(lambda: it.registry.count(NO_POD) == 2)
        assert await it.who() == Reason.NOT_A_POD


async def test_the_hosts_root_past_its_limit_is_not_identified_again(tmp_path: Path) -> None:
    identify = OfKeys(*[HOST_ROOT] * (MAX_HOST_ROOT_CONNECTIONS + 1))
    async with rig(tmp_path, identify=identify, limits=ConnectionLimits(1000, 1)) as it:
        for _ in range(MAX_HOST_ROOT_CONNECTIONS + 20):
            await it.connected()
        assert it.registry.count(HOST_ROOT) == MAX_HOST_ROOT_CONNECTIONS
        assert it.counts.accept.closed_at_once == 20


async def test_unidentified_peers_are_not_charged_to_the_hosts_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_process_per_connection(monkeypatch)
    identify = OfKeys(*[None] * 40, HOST_ROOT)
    rates = RateLimits(cost_per_second=100)
    limits = ConnectionLimits(1000, 1)
    async with rig(tmp_path, identify=identify, limits=limits, rates=rates) as it:
        for _ in range(40):
            await it.connected()
        assert it.scheduler.is_blocked(it.scheduler.account(NO_POD))
        assert await it.who() == Reason.NOT_A_POD
