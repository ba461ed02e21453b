"""Handlers that go on after a wait: each step in the order of the policy."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from typing import Any

import grpc
from netutil.agent.grpcserver import Connection, gather
from netutil.agent.grpcserver.steps import ResumedHandler

from tests.support import http2
from tests.support.grpcserver.policy import OpenPolicy, Work
from tests.support.grpcserver.raw import Bench, RawClient, fields, serving
from tests.support.waiting import busy, until

_STEP_SECONDS = 0.002
_OF_THE_CALL: ContextVar[str] = ContextVar("_OF_THE_CALL", default="none")


class Large:
    """Something large that a handler has."""

    text = b"x"


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


async def waits_once(request: bytes, _: Any) -> bytes:
    await asyncio.sleep(0)
    return request


async def asked_in_vain(bench: Bench, ended: list[str]) -> RawClient:
    """Ask; return when what the handler waits for has failed. `ended` is how its wait ends."""
    began: list[bytes] = []
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handler(request: bytes, _: Any) -> bytes:
        began.append(request)
        try:
            await asyncio.shield(failed)
        except asyncio.CancelledError as error:
            ended.append(type(error).__name__)
            raise
        except OSError as error:
            ended.append(str(error))
        return request

    client = await asked(bench, handler)
    await until(lambda: began)
    failed.set_exception(OSError("the read has failed"))
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
            busy(_STEP_SECONDS)
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

    async with serving(policy=policy) as bench:
        client = await asked(bench, waits_once)
        work = await policy.due()
        (connection,) = bench.server.connections
        out, sent = await run_outside_of_tasks(
            work, lambda: len(connection.http2.out), lambda: connection.http2.sent_bytes
        )
        assert (out, bool(sent)) == (0, True)
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        assert connection.http2.sent_bytes == sent


async def test_a_step_that_begins_with_an_error_waits_too() -> None:
    policy = Turns()
    ended: list[str] = []
    async with serving(policy=policy) as bench:
        client = await asked_in_vain(bench, ended)
        work = await policy.due()
        await asyncio.sleep(0.01)
        assert not ended
        assert await run_outside_of_tasks(work, ended.copy) == [["the read has failed"]]
        assert (await client.answer(1))[0]["grpc-status"] == "0"


async def test_a_call_is_reset_while_its_error_waits() -> None:
    policy = Turns()
    ended: list[str] = []
    async with serving(policy=policy) as bench:
        client = await asked_in_vain(bench, ended)
        await until(lambda: bool(policy.work))
        client.send(http2.rst_stream(1, 8))
        await until(lambda: bool(ended))
        assert (ended, policy.work) == (["CancelledError"], [])


async def test_handlers_may_wait_for_the_same_future_first() -> None:
    """Both begin in one read, before the task of the first has."""
    policy = OpenPolicy()
    event: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handler(request: bytes, _: Any) -> bytes:
        await event
        return request

    async with serving(policy=policy) as bench:
        client = await asked(bench, handler)
        client.ask(3, head=fields(p_path="/test.Steps/Answer"))
        await asyncio.sleep(0.01)
        event.set_result(None)
        for stream in (1, 3):
            assert (await client.answer(stream))[0]["grpc-status"] == "0"


async def test_a_handler_that_awaits_no_future_fails() -> None:
    """As in a task of its own: the error is raised in the handler, and the call ends."""

    class NoFuture:
        def __await__(self) -> Generator[Any, Any, None]:
            yield Large()

    async def handler(request: bytes, _: Any) -> bytes:
        await NoFuture()
        return request

    async with serving(policy=OpenPolicy()) as bench:
        client = await asked(bench, handler)
        assert (await client.answer(1))[0]["grpc-status"] == "2"
        await client.lives(3)


async def test_a_cancelled_call_leaves_nothing_to_the_collector() -> None:
    """It may hold an environment of megabytes, and nothing calls the collector of an idle agent."""
    policy = Turns()
    left: list[weakref.ref[Large]] = []

    async def handler(request: bytes, _: Any) -> bytes:
        large = Large()
        left.append(weakref.ref(large))
        await asyncio.sleep(0)
        return large.text

    async with serving(policy=policy) as bench:
        gc.collect()
        gc.disable()
        try:
            client = await asked(bench, handler)
            await until(lambda: bool(policy.work))
            client.send(http2.rst_stream(1, 8))
            await until(lambda: policy.forgotten == 1)
            await client.lives(3)
            assert left[0]() is None
            tasks = [one for one in gc.get_objects() if isinstance(one, ResumedHandler)]
            assert not tasks
        finally:
            gc.enable()


async def test_a_handler_keeps_nothing_of_its_first_wait() -> None:
    left: list[weakref.ref[Large]] = []
    event: asyncio.Future[Large] = asyncio.get_running_loop().create_future()

    async def handler(request: bytes, context: Any) -> bytes:
        nonlocal event
        large = await event
        left.append(weakref.ref(large))
        del large, event
        await context.started
        return request

    started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def with_start(request: bytes, context: Any) -> bytes:
        context.started = started
        return await handler(request, context)

    async with serving(policy=OpenPolicy()) as bench:
        client = await asked(bench, with_start)
        await asyncio.sleep(0.01)
        event.set_result(Large())
        await until(lambda: bool(left))
        await asyncio.sleep(0.01)
        assert left[0]() is None
        started.set_result(None)
        assert (await client.answer(1))[0]["grpc-status"] == "0"


async def test_a_turn_that_comes_inside_a_task_follows_it() -> None:
    policy = Turns()

    async with serving(policy=policy) as bench:
        client = await asked(bench, waits_once)
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

    async with serving(policy=policy) as bench:
        client = await asked(bench, waits_once, grpc_timeout="30m")
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
    policy, went_on = Turns(), []

    async def handler(request: bytes, _: Any) -> bytes:
        await asyncio.sleep(0)
        went_on.append("on")
        return request

    async with serving(policy=policy) as bench:
        client = await asked(bench, handler)
        work = await policy.due()
        policy.work.append(work)
        client.writer.transport.abort()
        await until(lambda: not bench.server.connections)
        await until(lambda: policy.forgotten == 1)
        assert await run_outside_of_tasks(work, went_on.copy) == [[]]


async def waits(gate: asyncio.Event, ended: list[str]) -> str:
    """A part of an answer that waits once."""
    try:
        await gate.wait()
    except asyncio.CancelledError:
        ended.append("cancelled")
        raise
    ended.append("done")
    return "part"


async def test_each_step_of_what_a_handler_gathers_is_in_order() -> None:
    policy, gate = Turns(), asyncio.Event()
    ended: list[str] = []

    async def handler(request: bytes, _: Any) -> bytes:
        found = await gather(waits(gate, ended), waits(gate, ended))
        return repr(found).encode()

    async with serving(policy=policy) as bench:
        client = await asked(bench, handler)
        for _ in range(2):  # they begin
            await run_outside_of_tasks(await policy.due())
        assert not policy.work
        gate.set()
        first, second = await policy.due(), await policy.due()
        assert await run_outside_of_tasks(first, ended.copy) == [["done"]]
        assert await run_outside_of_tasks(second, ended.copy) == [["done", "done"]]
        await run_outside_of_tasks(await policy.due())  # the handler itself
        found, data = await client.answer(1)
        assert (found["grpc-status"], data[5:]) == ("0", b"['part', 'part']")
        assert len(policy.seconds) >= 5


async def test_a_handler_that_waited_gathers_in_order_too() -> None:
    policy, gate = Turns(), asyncio.Event()
    gate.set()

    async def handler(request: bytes, _: Any) -> bytes:
        await asyncio.sleep(0)
        return repr(await gather(waits(gate, []))).encode()

    async with serving(policy=policy) as bench:
        client = await asked(bench, handler)
        for _ in range(3):  # the handler, the part, the handler
            await run_outside_of_tasks(await policy.due())
        assert (await client.answer(1))[1][5:] == b"['part']"


async def test_a_cancelled_handler_cancels_what_it_gathers() -> None:
    policy, gate = Turns(), asyncio.Event()
    ended: list[str] = []

    async def handler(request: bytes, _: Any) -> bytes:
        try:
            await gather(waits(gate, ended), waits(gate, ended))
        except asyncio.CancelledError:
            ended.append("handler")
            raise
        return request

    async with serving(policy=policy) as bench:
        client = await asked(bench, handler)
        await run_outside_of_tasks(await policy.due())  # one has begun, the other has not
        client.send(http2.rst_stream(1, 8))
        await until(lambda: ended[-1:] == ["handler"])
        assert ended == ["cancelled", "handler"]
        assert not policy.work


async def test_gathered_errors_are_results() -> None:
    async def fails() -> str:
        raise ValueError("a bug")

    gate = asyncio.Event()
    gate.set()
    found = await gather(waits(gate, []), fails())
    assert (found[0], repr(found[1])) == ("part", "ValueError('a bug')")
