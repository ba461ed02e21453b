"""Handlers that return their answer without waiting, and messages that were encoded before."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from netutil.agent.grpcserver import Call, EncodedMessage, MessageLimits, ServerConfig, Status

from tests.support.grpcserver.policy import OpenPolicy
from tests.support.grpcserver.raw import Bench, RawClient, fields, serving

PATH = "/test.Plain/Answer"
Handler = Callable[[bytes, Any], Any]


async def started(bench: Bench, handler: Handler, *, stream: bool = False) -> RawClient:
    make: Any = grpc.unary_stream_rpc_method_handler if stream else None
    made: Any = (make or grpc.unary_unary_rpc_method_handler)(
        handler, response_serializer=lambda message: b"serialized " + message
    )
    bench.server.add_registered_method_handlers("test.Plain", {"Answer": made})
    return await bench.connect()


async def answered(client: RawClient, stream: int = 1) -> tuple[str, bytes]:
    client.ask(stream, head=fields(p_path=PATH))
    found, body = await client.answer(stream)
    return found["grpc-status"], body[5:]


async def test_a_handler_may_return_its_answer_at_once() -> None:
    async with serving() as bench:
        client = await started(bench, lambda _, __: b"now")
        assert await answered(client) == ("0", b"serialized now")
        assert await answered(client, 3) == ("0", b"serialized now")


async def test_a_handler_may_return_the_coroutine_of_another_function() -> None:
    async def later() -> bytes:
        return b"later"

    async with serving() as bench:
        assert await answered(await started(bench, lambda _, __: later())) == (
            "0",
            b"serialized later",
        )


async def test_an_encoded_message_is_sent_as_it_is_each_time() -> None:
    kept = EncodedMessage(b"as it is")
    async with serving() as bench:
        client = await started(bench, lambda _, __: kept)
        for stream in (1, 3, 5):
            assert await answered(client, stream) == ("0", b"as it is")
    assert (kept.body, kept.ByteSize()) == (b"as it is", 8)


async def test_a_coroutine_may_return_an_encoded_message_too() -> None:
    async def handler(_: bytes, __: Any) -> EncodedMessage:
        return EncodedMessage(b"as it is")

    async with serving() as bench:
        assert await answered(await started(bench, handler)) == ("0", b"as it is")


async def test_an_encoded_message_may_be_written_to_a_stream() -> None:
    async def handler(_: bytes, context: Any) -> None:
        await context.write(EncodedMessage(b"as it is"))
        await context.write(b"it")

    async with serving() as bench:
        client = await started(bench, handler, stream=True)
        client.ask(1, head=fields(p_path=PATH))
        found, body = await client.answer(1)
    assert found["grpc-status"] == "0"
    assert body == EncodedMessage(b"as it is").framed + EncodedMessage(b"serialized it").framed


@pytest.mark.parametrize(("size", "code"), [(100, "0"), (101, "8")])
async def test_an_encoded_message_past_the_limit_is_refused(size: int, code: str) -> None:
    async with serving(ServerConfig(messages=MessageLimits(max_response_bytes=100))) as bench:
        client = await started(bench, lambda _, __: EncodedMessage(bytes(size)))
        assert (await answered(client))[0] == code


async def test_an_error_of_a_handler_is_a_status_without_its_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def handler(_: bytes, __: Any) -> bytes:
        raise ValueError("a secret of the handler")

    async with serving() as bench:
        client = await started(bench, handler)
        client.ask(1, head=fields(p_path=PATH))
        found, _ = await client.answer(1)
        assert found["grpc-status"] == "2" and "secret" not in found["grpc-message"]
        await client.lives()
    assert "a secret of the handler" in caplog.text


async def test_a_request_that_is_not_what_the_method_takes_is_refused() -> None:
    def parse(_: bytes) -> bytes:
        raise ValueError("no message")

    async with serving() as bench:
        made: Any = grpc.unary_unary_rpc_method_handler(lambda _, __: b"", parse)
        bench.server.add_registered_method_handlers("test.Plain", {"Answer": made})
        assert (await answered(await bench.connect()))[0] == "13"


async def test_status_and_trailers_that_were_set_go_with_the_answer() -> None:
    def handler(_: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("set by the handler")
        context.set_trailing_metadata((("kind", "plain"),))
        return b"answer"

    async with serving() as bench:
        client = await started(bench, handler)
        client.ask(1, head=fields(p_path=PATH))
        found, body = await client.answer(1)
    assert (found["grpc-status"], found["grpc-message"]) == ("5", "set by the handler")
    assert (found["kind"], body[5:]) == ("plain", b"serialized answer")


async def test_a_handlers_context_changes_nothing_for_the_next_call() -> None:
    variable: contextvars.ContextVar[bytes] = contextvars.ContextVar("variable", default=b"unset")

    def handler(_: bytes, __: Any) -> bytes:
        before = variable.get()
        variable.set(b"set")
        return before

    async with serving() as bench:
        client = await started(bench, handler)
        assert await answered(client) == ("0", b"serialized unset")
        assert await answered(client, 3) == ("0", b"serialized unset")


async def test_done_callbacks_are_called_after_an_answer_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    called: list[str] = []

    def fail(_: Any) -> None:
        called.append("first")
        raise RuntimeError("of the callback")

    def handler(_: bytes, context: Any) -> bytes:
        context.add_done_callback(fail)
        context.add_done_callback(lambda _: called.append("second"))
        return b""

    with caplog.at_level(logging.ERROR):
        async with serving() as bench:
            await answered(await started(bench, handler))
    assert called == ["first", "second"] and "of the callback" in caplog.text


class _Counting(OpenPolicy):
    """A policy that counts the calls that it admits and those that end."""

    def __init__(self) -> None:
        self.admitted = self.done = 0

    def admit(self, call: Call) -> Status | None:
        self.admitted += 1
        return None

    def finished(self, call: Call) -> None:
        self.done += 1


async def test_the_policy_sees_the_end_of_each_call_once() -> None:
    policy = _Counting()

    def handler(request: bytes, _: Any) -> bytes:
        if policy.admitted == 2:
            raise ValueError
        return request

    async with serving(policy=policy) as bench:
        client = await started(bench, handler)
        for stream in (1, 3, 5):
            await answered(client, stream)
        assert (policy.admitted, policy.done) == (3, 3)


async def test_a_handler_cancelled_at_once_ends_its_own_call_only() -> None:
    """As one does that asks for the result of a task that was cancelled."""

    def cancelled(_: bytes, __: Any) -> bytes:
        raise asyncio.CancelledError

    policy = _Counting()
    async with serving(policy=policy) as bench:
        client = await started(bench, cancelled)
        assert (await answered(client))[0] == "1"
        await client.lives(3)
        assert (policy.admitted, policy.done) == (2, 2)
