"""A pod that costs more than its calls account for is not read for a time, over any connection."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from netutil.agent.connections import admission
from netutil.agent.connections.admission import OVERFLOW_SLOTS
from netutil.agent.connections.policy import CONNECTION_COST
from netutil.agent.errors import Reason
from netutil.agent.grpcserver import frames as f
from netutil.agent.identity.peer import NO_POD
from netutil.agent.limits.in_flight import InFlightLimits
from netutil.agent.limits.limits import ConnectionLimits, RateLimits

from tests.support.grpcserver.admission import (
    OTHER_POD,
    POD,
    POD_KEY,
    Rig,
    call_result,
    peers_of,
    rig,
)
from tests.support.grpcserver.raw import RawClient
from tests.support.http2 import message
from tests.support.waiting import until

_SLOW = RateLimits(cost_per_second=100)
"""A hundred frames are a second's budget, and may come at once."""
_SMALL = RateLimits(cost_per_second=10)
_PRIORITY = f.frame(f.PRIORITY, 0, 1, bytes([0, 0, 0, 3, 1]))


def block(it: Rig, seconds: float) -> None:
    it.scheduler.block(it.scheduler.account(POD_KEY), seconds)


async def is_answered(client: RawClient, stream: int, seconds: float = 0.3) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await call_result(client, stream) == POD_KEY
    except TimeoutError:
        return False


async def pause(it: Rig, client: RawClient) -> None:
    """Send frames that bring nothing until the pod of a client is paused."""
    client.send(_PRIORITY * 300)
    await until(lambda: it.policy.pauses > 0)


async def test_a_paused_pod_is_read_over_no_connection_old_or_new(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        old = await it.client()
        assert await call_result(old) == POD_KEY
        block(it, 1.0)
        new = await it.client()
        assert not await is_answered(old, 3)
        assert not await is_answered(new, 1)


async def test_reconnecting_does_not_end_a_pause(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        await it.who()
        await until(lambda: len(it.registry) == 0)
        block(it, 1.0)
        assert not await is_answered(await it.client(), 1)


async def test_calls_of_a_paused_pod_are_answered_afterwards(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        old = await it.client()
        assert await call_result(old) == POD_KEY
        block(it, 0.2)
        new = await it.client()
        assert await call_result(old, 3) == POD_KEY
        assert await call_result(new) == POD_KEY


async def test_frames_that_bring_nothing_pause_their_pod_once(tmp_path: Path) -> None:
    async with rig(tmp_path, rates=_SLOW) as it:
        client = await it.client()
        assert await call_result(client) == POD_KEY
        await pause(it, client)
        assert it.scheduler.is_blocked(it.scheduler.account(POD_KEY))
        (rejection,) = it.rejections
        assert rejection.reason is Reason.TOO_MUCH_OVERHEAD_OF_POD
        assert (rejection.stage, rejection.key) == ("connection", POD_KEY)
        assert rejection.requester.pod_uid == POD_KEY
        assert it.policy.pauses == 1


async def test_a_pause_is_no_other_pods(tmp_path: Path) -> None:
    identify = peers_of(POD, OTHER_POD)
    async with rig(tmp_path, identify=identify, rates=_SLOW) as it:
        hostile = await it.client()
        assert await call_result(hostile) == POD_KEY
        await pause(it, hostile)
        other = await it.client()
        for stream in range(1, 41, 2):
            assert await call_result(other, stream) == OTHER_POD.replace("-", "")


async def test_a_pod_that_only_calls_is_never_paused(tmp_path: Path) -> None:
    async with rig(tmp_path, rates=_SLOW) as it:
        client = await it.client()
        for stream in range(1, 601, 2):
            client.send(_PRIORITY)
            assert await call_result(client, stream) == POD_KEY
        assert it.policy.pauses == 0


async def test_a_call_makes_up_for_the_frames_that_came_before_it(tmp_path: Path) -> None:
    async with rig(tmp_path, rates=_SMALL) as it:
        client = await it.client()
        assert await call_result(client) == POD_KEY
        processed = 0
        for stream in range(3, 121, 2):
            client.send(_PRIORITY * 3)
            (connection,) = it.server.connections
            goal = connection.http2.cost + 3
            await until(lambda: connection.http2.cost >= goal)  # noqa: B023
            processed += 3
            assert await call_result(client, stream) == POD_KEY
        assert processed > 2 * _SMALL.cost_per_second
        assert it.policy.pauses == 0


async def test_connections_without_a_call_use_the_budget(tmp_path: Path) -> None:
    async with rig(tmp_path, rates=_SLOW) as it:
        for _ in range(2 + int(_SLOW.cost_per_second / CONNECTION_COST)):
            count = it.counts.accept.accepted
            client = it.connect_raw()
            await until(lambda count=count: it.counts.accept.accepted > count)  # type: ignore[misc]
            await until(lambda: len(it.server.connections) == 1 or it.policy.pauses > 0)
            client.close()
            await until(lambda: len(it.server.connections) == 0)
        await until(lambda: it.policy.pauses == 1)


async def test_connections_with_a_call_use_no_budget(tmp_path: Path) -> None:
    async with rig(tmp_path, rates=_SLOW) as it:
        for _ in range(4 * int(_SLOW.cost_per_second / CONNECTION_COST)):
            assert await it.who() == POD_KEY
        assert it.policy.pauses == 0


async def test_refused_calls_use_the_budget_and_fail_with_their_limit(
    tmp_path: Path,
) -> None:
    rates = RateLimits(calls_per_second=0.001, call_burst=1, cost_per_second=100)
    async with rig(tmp_path, rates=rates) as it:
        client = await it.client()
        assert await call_result(client) == POD_KEY
        client.ask(3)
        found, _ = await client.answer(3)
        assert found["grpc-status"] == "8"
        assert it.reasons() == [Reason.TOO_MANY_CALLS_PER_SECOND]
        assert it.rejections[0].stage == "call"
        for stream in range(5, 45, 2):
            client.ask(stream)
        await until(lambda: it.policy.pauses == 1)
        assert Reason.TOO_MUCH_OVERHEAD_OF_POD in it.reasons()


async def test_the_in_flight_limit_covers_all_connections_of_a_pod(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path, in_flight=InFlightLimits(calls_per_pod=2)) as it:
        clients = [await it.client() for _ in range(3)]
        for client in clients[:2]:
            # Headers alone: such a call is in flight like any other.
            client.ask(1, b"", end=False)
        await until(lambda: it.in_flight.calls == 2)
        clients[2].ask(1)
        found, _ = await clients[2].answer(1)
        assert found["grpc-status"] == "8"
        assert it.reasons() == [Reason.TOO_MANY_CALLS_OF_POD]
        clients[0].writer.close()
        await until(lambda: it.in_flight.calls == 1)
        assert await call_result(clients[2], 3) == POD_KEY


async def test_metadata_past_the_limit_is_a_rejection_of_its_call(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        client = await it.client()
        head = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/test.Echo/Unary")]
        head += [(b"te", b"trailers"), (b"content-type", b"application/grpc")]
        client.ask(1, head=[*head, (b"x-large", b"y" * 9000)])
        found, _ = await client.answer(1)
        assert found["grpc-status"] == "8"
        (rejection,) = it.rejections
        assert rejection.reason is Reason.TOO_MANY_HEADER_BYTES
        assert "--max-header-bytes" in rejection.error.advice
        assert rejection.error.retry_after_seconds is None
        assert await call_result(client, 3) == POD_KEY


async def test_a_message_past_the_limit_is_a_rejection_of_its_call(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        client = await it.client()
        # The length that precedes the message is enough.
        client.ask(1, (65 * 1024).to_bytes(5, "big"), end=False)
        found, _ = await client.answer(1)
        assert found["grpc-status"] == "8"
        (rejection,) = it.rejections
        assert rejection.reason is Reason.REQUEST_TOO_LARGE
        assert rejection.error.retry_after_seconds is None
        assert await call_result(client, 3) == POD_KEY


async def test_a_method_that_does_not_exist_is_no_rejection(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        client = await it.client()
        head = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/test.Echo/No")]
        head += [(b"te", b"trailers"), (b"content-type", b"application/grpc")]
        client.ask(1, head=head)
        assert (await client.answer(1))[0]["grpc-status"] == "12"
        assert it.rejections == []
        assert it.in_flight.calls == 0


async def test_a_large_but_allowed_message_is_answered(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        client = await it.client()
        body = message(b"x" * 60_000)
        client.send(f.window_update(0, 1_000_000))
        client.ask(1, b"", end=False)
        for at in range(0, len(body), 16_384):
            part = body[at : at + 16_384]
            end = f.END_STREAM if at + 16_384 >= len(body) else 0
            client.send(f.frame(f.DATA, end, 1, part))
        assert (await client.answer(1))[1] == body


async def test_connections_that_close_at_once_use_their_pods_budget(
    tmp_path: Path,
) -> None:
    limits = ConnectionLimits(1000, 1)
    async with rig(tmp_path, limits=limits, rates=_SMALL) as it:
        for _ in range(15):
            await it.connected()
        assert it.policy.pauses == 1
        assert it.scheduler.is_blocked(it.scheduler.account(POD_KEY))


async def test_connections_past_a_limit_use_the_budget_gradually(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "CONNECTION_COST", 0)
    rates = RateLimits(cost_per_second=1)
    async with rig(tmp_path, limits=ConnectionLimits(1000, 1), rates=rates) as it:
        for _ in range(1 + OVERFLOW_SLOTS + 1):
            await it.connected()
        assert it.policy.pauses == 0
        while not it.policy.pauses:
            assert it.counts.accept.accepted < 100
            await it.connected()


async def test_unidentified_peers_pay_from_one_budget_of_their_own(tmp_path: Path) -> None:
    limits = ConnectionLimits(1000, 1)

    def identify(_: object) -> None:
        raise OSError(24, "Too many open files")

    async with rig(tmp_path, identify=identify, limits=limits, rates=_SMALL) as it:
        for _ in range(15):
            await it.connected()
        assert it.policy.pauses == 1
        assert it.scheduler.is_blocked(it.scheduler.account(NO_POD))
        assert not it.scheduler.is_blocked(it.scheduler.account(POD_KEY))
