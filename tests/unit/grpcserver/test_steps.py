"""Handlers that go on after a wait: each step in the order of the policy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import grpc
from netutil.agent.grpcserver import Connection

from tests.support import http2
from tests.support.grpcserver.policy import OpenPolicy, Work
from tests.support.grpcserver.raw import Bench, RawClient, fields, serving
from tests.support.waiting import until

_STEP_SECONDS = 0.002
_OF_THE_CALL: ContextVar[str] = ContextVar("_OF_THE_CALL", default="none")


class Turns(OpenPolicy):
    """A policy by which handlers that have waited go on when the test says so."""

    def __init__(self) -> None:
        self.work: list[Work] = []
        self.forgotten = 0
        self.seconds: list[float] = []

    def may_resume(self, connection: Connection) -> bool:
        return False

    def wait(self, connection: Connection, work: Work) -> None:
        self.work.append(work)

    def forget(self, connection: Connection, work: Work) -> None:
        self.work.remove(work)
        self.forgotten += 1

    def resumed(self, connection: Connection, seconds: float) -> None:
        self.seconds.append(seconds)

    async def due(self) -> Work:
        """Return the next work, once there is one."""
        await until(lambda: bool(self.work))
        return self.work.pop(0)


async def run_outside_of_tasks(work: Work, *checks: Callable[[], object]) -> list[object]:
    """Run work as the scheduler does; return what the checks find directly after it."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[object]] = loop.create_future()

    def run() -> None:
        try:
            work()
            found.set_result([check() for check in checks])
        except Exception as error:  # noqa: BLE001 - raised by the test
            found.set_exception(error)

    loop.call_soon(run)
    return await found


async def asked(
    bench: Bench, handler: Callable[[bytes, Any], Awaitable[bytes]], **more: str
) -> RawClient:
    handlers: dict[str, Any] = {"Answer": grpc.unary_unary_rpc_method_handler(handler)}
    bench.server.add_registered_method_handlers("test.Steps", handlers)
    client = await bench.connect()
    client.ask(1, head=fields(p_path="/test.Steps/Answer", **more))
    return client


async def test_a_woken_handler_goes_on_when_it_may_and_not_before() -> None:
    policy, gate, went_on = Turns(), asyncio.Event(), []

    async def handler(request: bytes, _: Any) -> bytes:
        _OF_THE_CALL.set("this")
        await gate.wait()
        went_on.append(_OF_THE_CALL.get())
        return request

    async with serving(policy=policy) as bench:
        client = await asked(bench, handler)
        await asyncio.sleep(0.01)
        assert not policy.work
        gate.set()
        work = await policy.due()
        await asyncio.sleep(0.01)
        assert not went_on
        assert await run_outside_of_tasks(work, went_on.copy) == [["this"]]
        assert (await client.answer(1))[0]["grpc-status"] == "0"


async def test_each_step_has_a_turn_and_is_charged() -> None:
    policy = Turns()

    async def handler(request: bytes, _: Any) -> bytes:
        for _ in range(3):
            await asyncio.sleep(0)
            end = time.perf_counter() + _STEP_SECONDS
            while time.perf_counter() < end:
                pass
        return request

    async with serving(policy=policy) as bench:
        client = await asked(bench, handler)
        for _ in range(3):
            await run_outside_of_tasks(await policy.due())
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        assert sum(seconds >= _STEP_SECONDS for seconds in policy.seconds) == 3
        assert not policy.work


async def test_the_answer_of_a_turn_is_sent_within_it() -> None:
    """So the time that this takes is the pod's, and a part of the piece of work."""
    policy = Turns()

    async def handler(request: bytes, _: Any) -> bytes:
        await asyncio.sleep(0)
        return request

    async with serving(policy=policy) as bench:
        client = await asked(bench, handler)
        work = await policy.due()
        (connection,) = bench.server.connections
        out, sent = await run_outside_of_tasks(
            work, lambda: len(connection.http2.out), lambda: connection.http2.sent_bytes
        )
        assert (out, bool(sent)) == (0, True)
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        assert connection.http2.sent_bytes == sent


async def test_a_turn_that_comes_inside_a_task_follows_it() -> None:
    policy = Turns()

    async def handler(request: bytes, _: Any) -> bytes:
        await asyncio.sleep(0)
        return request

    async with serving(policy=policy) as bench:
        client = await asked(bench, handler)
        (await policy.due())()
        assert (await client.answer(1))[0]["grpc-status"] == "0"


async def test_a_call_that_is_reset_in_the_queue_has_no_turn() -> None:
    policy, ended = Turns(), []

    async def handler(request: bytes, _: Any) -> bytes:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return request

    async with serving(policy=policy) as bench:
        client = await asked(bench, handler)
        await until(lambda: bool(policy.work))
        client.send(http2.rst_stream(1, 8))
        await until(lambda: ended == ["cancelled"])
        assert (policy.work, policy.forgotten) == ([], 1)
        await client.lives(3)


async def test_a_deadline_ends_a_call_that_waits_for_a_step() -> None:
    policy = Turns()

    async def handler(request: bytes, _: Any) -> bytes:
        await asyncio.sleep(0)
        return request

    async with serving(policy=policy) as bench:
        client = await asked(bench, handler, grpc_timeout="30m")
        assert (await client.answer(1))[0]["grpc-status"] == "4"
        await until(lambda: policy.forgotten == 1)


async def test_a_timeout_in_a_handler_ends_its_wait_for_a_turn() -> None:
    policy, ended = Turns(), []

    async def handler(request: bytes, _: Any) -> bytes:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(0)
        except TimeoutError:
            ended.append("late")
        return request

    async with serving(policy=policy) as bench:
        client = await asked(bench, handler)
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        assert ended == ["late"]


async def test_the_end_of_a_connection_ends_calls_that_wait_for_a_step() -> None:
    policy = Turns()

    async def handler(request: bytes, _: Any) -> bytes:
        await asyncio.sleep(0)
        return request

    async with serving(policy=policy) as bench:
        client = await asked(bench, handler)
        work = await policy.due()
        policy.work.append(work)
        client.writer.transport.abort()
        await until(lambda: not bench.server.connections)
        await until(lambda: policy.forgotten == 1)
        work()  # nothing is left that it could run
