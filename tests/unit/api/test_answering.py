"""The frame of every method: statuses of errors, the count of large answers, the order of calls."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from netutil.agent.api.call_runner import CallRecorder, CallRunner, Rejections
from netutil.agent.connections.registry import Connection
from netutil.agent.errors import NotFound, Reason
from netutil.agent.grpcserver import EncodedMessage
from netutil.agent.grpcserver import frames as f
from netutil.agent.limits.in_flight import SMALL_ANSWER_BYTES, InFlightLimits
from netutil.agent.limits.scheduler import SLICE_SECONDS
from netutil.agent.observability.call_stats import CallFeed, CallStats, PodCalls
from netutil.v1alpha import netutil_pb2 as api

from tests.support.grpcserver.admission import POD_KEY, Rig, rig
from tests.support.grpcserver.raw import RawClient, fields
from tests.support.waiting import busy, until

Body = Callable[[Connection], Awaitable[api.PodResponse]]
LARGE = api.PodResponse(name="x" * 50_000)
PATH = "/test.Answer/Get"


@asynccontextmanager
async def answering(
    directory: Path,
    body: Body,
    *,
    loop_seconds: float = 0.0,
    in_flight: InFlightLimits | None = None,
) -> AsyncIterator[tuple[Rig, CallStats]]:
    async with rig(directory, in_flight=in_flight) as it:
        log, tracing = CallStats(), CallFeed()
        recorder = CallRecorder(log, lambda *_: None, tracing)
        refusals = Rejections(recorder, lambda *_: None)
        frame = CallRunner(recorder, refusals, it.in_flight, it.scheduler)

        async def get(_: bytes, context: Any) -> EncodedMessage:
            return await frame.answer_scheduled("Get", context, body, loop_seconds)

        handler: Any = grpc.unary_unary_rpc_method_handler(
            get, response_serializer=api.PodResponse.SerializeToString
        )
        it.server.add_registered_method_handlers("test.Answer", {"Get": handler})
        yield it, log


def calls_of(log: CallStats) -> PodCalls:
    found: PodCalls = log.by_pod[POD_KEY]
    return found


async def status_of(client: RawClient, stream: int = 1) -> tuple[str, str]:
    client.ask(stream, head=fields(p_path=PATH))
    found, _ = await client.answer(stream)
    return found["grpc-status"], found.get("grpc-message", "")


async def test_a_bug_of_the_agent_is_answered_as_internal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(_: Connection) -> api.PodResponse:
        raise KeyError("surprise")

    async with answering(tmp_path, body) as (it, _):
        code, details = await status_of(await it.client())
    assert int(code) == grpc.StatusCode.INTERNAL.value[0]
    assert "Get" in details and "surprise" not in details
    assert "KeyError" in caplog.text


async def test_an_error_is_its_status_and_is_counted_for_the_pod(tmp_path: Path) -> None:
    async def body(_: Connection) -> api.PodResponse:
        raise NotFound(Reason.VARIABLE_NOT_SET, "No such variable.")

    async with answering(tmp_path, body) as (it, log):
        assert await status_of(await it.client()) == ("5", "No such variable.")
        assert (calls_of(log).not_found, calls_of(log).refused) == (1, 0)


async def test_a_large_answer_counts_as_unread_until_it_is_read(
    tmp_path: Path,
) -> None:
    async def body(_: Connection) -> api.PodResponse:
        return LARGE

    async with answering(tmp_path, body) as (it, _):
        client = await it.client()
        client.send(f.settings_frame({f.INITIAL_WINDOW_SIZE: 10}))
        client.ask(1, head=fields(p_path=PATH))
        await until(lambda: it.in_flight.bytes == LARGE.ByteSize())
        client.send(f.window_update(1, 100_000))
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        await until(lambda: it.in_flight.bytes == 0)


async def test_a_large_answer_to_a_peer_that_has_closed_is_not_counted(tmp_path: Path) -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def body(_: Connection) -> api.PodResponse:
        begun.set()
        await goes_on.wait()
        return LARGE

    async with answering(tmp_path, body) as (it, _):
        client = await it.client()
        client.ask(1, head=fields(p_path=PATH))
        await begun.wait()
        client.writer.close()
        goes_on.set()
        await until(lambda: len(it.registry) == 0)
        await until(lambda: it.in_flight.calls == 0)
        assert it.in_flight.bytes == 0


async def test_unread_answers_past_the_limit_are_an_error(tmp_path: Path) -> None:
    async def body(_: Connection) -> api.PodResponse:
        return LARGE

    limits = InFlightLimits(bytes_per_pod=LARGE.ByteSize() + 10)
    async with answering(tmp_path, body, in_flight=limits) as (it, log):
        client = await it.client()
        client.send(f.settings_frame({f.INITIAL_WINDOW_SIZE: 10}))
        client.ask(1, head=fields(p_path=PATH))
        await until(lambda: it.in_flight.bytes > 0)
        code, _ = await status_of(await it.client())
        assert int(code) == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert calls_of(log).last_error == Reason.TOO_MANY_UNREAD_ANSWERS


async def test_small_answers_are_not_counted(tmp_path: Path) -> None:
    small = api.PodResponse(name="x" * (SMALL_ANSWER_BYTES - 10))
    seen: list[int] = []

    async def body(_: Connection) -> api.PodResponse:
        return small

    limits = InFlightLimits(bytes_per_pod=1, bytes=1)
    async with answering(tmp_path, body, in_flight=limits) as (it, _):
        client = await it.client()
        for stream in range(1, 21, 2):
            assert (await status_of(client, stream))[0] == "0"
            seen.append(it.in_flight.bytes)
    assert set(seen) == {0}


async def rounds_of_calls(directory: Path, loop_seconds: float) -> list[int]:
    """Ask three times in one write; return the scheduler's round in which each call began."""
    begun: list[int] = []

    async def body(_: Connection) -> api.PodResponse:
        begun.append(it.scheduler._round)
        busy(3 * loop_seconds)  # longer than the longest round: a call that has waited ends one
        return api.PodResponse()

    async with answering(directory, body, loop_seconds=loop_seconds) as (it, _):
        client = await it.client()
        await status_of(client)
        begun.clear()
        for stream in range(3, 9, 2):
            client.ask(stream, head=fields(p_path=PATH))
        for stream in range(3, 9, 2):
            assert (await client.answer(stream))[0]["grpc-status"] == "0"
    return begun


async def test_calls_that_take_much_loop_time_begin_one_a_round(tmp_path: Path) -> None:
    begun = await rounds_of_calls(tmp_path, 2 * SLICE_SECONDS)
    assert len(set(begun)) == len(begun) == 3


async def test_usual_calls_begin_together(tmp_path: Path) -> None:
    begun = await rounds_of_calls(tmp_path, 0.0)
    assert len(set(begun)) < len(begun) == 3


async def test_a_call_that_is_cancelled_in_the_queue_begins_nothing(tmp_path: Path) -> None:
    begun: list[str] = []

    async def body(connection: Connection) -> api.PodResponse:
        begun.append(connection.key)
        return api.PodResponse()

    async with answering(tmp_path, body, loop_seconds=SLICE_SECONDS) as (it, _):
        client = await it.client()
        await status_of(client)
        account = it.scheduler.account(POD_KEY)
        client.ask(3, head=fields(p_path=PATH), end=False, body=b"")
        await until(lambda: it.in_flight.calls == 1)
        it.scheduler.block(account, 0.3)
        client.send(f.frame(f.DATA, f.END_STREAM, 3, bytes(5)), f.rst_stream(3, 8))
        await until(lambda: it.in_flight.calls == 0)
        assert begun == [POD_KEY]


async def test_a_shortage_of_the_agent_is_an_error_of_its_own(tmp_path: Path) -> None:
    async def body(_: Connection) -> api.PodResponse:
        raise OSError(errno.EMFILE, "Too many open files")

    async with answering(tmp_path, body) as (it, log):
        assert (await status_of(await it.client()))[0] == "8"
        assert calls_of(log).last_error == Reason.AGENT_OUT_OF_RESOURCES
