"""A body that does not wait is answered without a coroutine, and otherwise as one that does."""

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
from netutil.agent.limits.in_flight import InFlightLimits
from netutil.agent.messages.encode import Answer
from netutil.agent.observability.call_stats import CallFeed, CallStats, PodCalls
from netutil.agent.observability.log_setup import CALLERS_TRACE, TraceContext
from netutil.v1alpha import netutil_pb2 as api

from tests.support.grpcserver.admission import POD_KEY, Rig, rig
from tests.support.grpcserver.raw import RawClient, fields
from tests.support.waiting import until

Body = Callable[..., Answer | Awaitable[Answer]]
PATH = "/test.Answer/Get"
LARGE = api.PodResponse(name="x" * 50_000)
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Frame:
    """A method whose body a test gives, and what was recorded of its calls."""

    def __init__(self, it: Rig, body: Body) -> None:
        self.log = CallStats()
        self.observed: list[tuple[str, str, str]] = []
        self.refused: list[str] = []
        self.coroutines = 0
        tracing = CallFeed()
        recorder = CallRecorder(self.log, lambda *call: self.observed.append(call[:3]), tracing)
        refusals = Rejections(recorder, lambda *refusal: self.refused.append(refusal[3]))
        answering = CallRunner(recorder, refusals, it.in_flight, it.scheduler)

        def get(request: bytes, context: Any) -> Any:
            found = answering.answer("Get", context, body, request)
            self.coroutines += asyncio.iscoroutine(found)
            return found

        handler: Any = grpc.unary_unary_rpc_method_handler(get)
        it.server.add_registered_method_handlers("test.Answer", {"Get": handler})

    @property
    def calls(self) -> PodCalls:
        return self.log.by_pod[POD_KEY]


@asynccontextmanager
async def framed(
    directory: Path, body: Body, in_flight: InFlightLimits | None = None
) -> AsyncIterator[tuple[Rig, Frame]]:
    async with rig(directory, in_flight=in_flight) as it:
        yield it, Frame(it, body)


async def ask(client: RawClient, stream: int = 1, **head: str) -> tuple[str, bytes]:
    client.ask(stream, head=fields(p_path=PATH, **head))
    found, body = await client.answer(stream)
    return found["grpc-status"], body[5:]


def waits(body: Body) -> Body:
    """Return a body that does the same in a coroutine."""

    async def later(*arguments: Any) -> Answer:
        await asyncio.sleep(0)
        found = body(*arguments)
        assert isinstance(found, api.PodResponse | EncodedMessage)
        return found

    return later


def answers(_: Connection, __: bytes) -> Answer:
    return api.PodResponse(name="web")


def misses(_: Connection, __: bytes) -> Answer:
    raise NotFound(Reason.VARIABLE_NOT_SET, "No such variable.")


def lacks_descriptors(_: Connection, __: bytes) -> Answer:
    raise OSError(errno.EMFILE, "Too many open files")


def fails(_: Connection, __: bytes) -> Answer:
    raise KeyError("surprise")


@pytest.mark.parametrize(
    ("body", "code", "name", "reason"),
    [
        (answers, "0", "OK", ""),
        (misses, "5", "NOT_FOUND", "VARIABLE_NOT_SET"),
        (lacks_descriptors, "8", "RESOURCE_EXHAUSTED", "AGENT_OUT_OF_RESOURCES"),
        (fails, "13", "INTERNAL", "KeyError"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_each_end_is_its_status_and_is_recorded_once(
    tmp_path: Path, body: Body, code: str, name: str, reason: str, at_once: bool
) -> None:
    async with framed(tmp_path, body if at_once else waits(body)) as (it, frame):
        assert (await ask(await it.client()))[0] == code
        assert frame.observed == [("Get", name, reason)]
        last_error = "" if name == "NOT_FOUND" else reason  # of a refused or failed call
        assert (frame.calls.calls, frame.calls.last_error) == (1, last_error)
        is_refused = name in ("NOT_FOUND", "RESOURCE_EXHAUSTED")
        assert frame.refused == (["Get"] if is_refused else [])
        assert frame.coroutines == (0 if at_once and code == "0" else 1)


async def test_the_words_of_a_bug_are_in_the_log_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with framed(tmp_path, fails) as (it, _):
        client = await it.client()
        client.ask(1, head=fields(p_path=PATH))
        found, _ = await client.answer(1)
        assert "Get" in found["grpc-message"] and "surprise" not in found["grpc-message"]
    assert "surprise" in caplog.text


async def test_an_answer_that_is_kept_encoded_is_sent_each_time(tmp_path: Path) -> None:
    kept = EncodedMessage(b"as it is")
    async with framed(tmp_path, lambda *_: kept) as (it, _):
        client = await it.client()
        assert [await ask(client, stream) for stream in (1, 3)] == [("0", b"as it is")] * 2


async def test_a_large_immediate_answer_counts_until_it_is_read(
    tmp_path: Path,
) -> None:
    limits = InFlightLimits(bytes_per_pod=LARGE.ByteSize() + 10)
    async with framed(tmp_path, lambda *_: LARGE, limits) as (it, frame):
        client = await it.client()
        client.send(f.settings_frame({f.INITIAL_WINDOW_SIZE: 10}))
        client.ask(1, head=fields(p_path=PATH))
        await until(lambda: it.in_flight.bytes == LARGE.ByteSize())
        assert (await ask(await it.client()))[0] == "8"
        assert frame.calls.last_error == Reason.TOO_MANY_UNREAD_ANSWERS
        client.send(f.window_update(1, 100_000))
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        await until(lambda: it.in_flight.bytes == 0)


async def test_a_call_cancelled_while_it_waits_is_recorded_as_such(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def body(*_: object) -> Answer:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with framed(tmp_path, body) as (it, frame):
        client = await it.client()
        client.ask(1, head=fields(p_path=PATH))
        await begun.wait()
        client.send(f.rst_stream(1, 8))
        await until(lambda: frame.observed == [("Get", "CANCELLED", "")])


async def test_the_trace_of_a_call_is_that_call_s_alone(tmp_path: Path) -> None:
    seen: list[TraceContext | None] = []

    def body(*_: object) -> Answer:
        seen.append(CALLERS_TRACE.get())
        return api.PodResponse()

    async with framed(tmp_path, body) as (it, _):
        client = await it.client()
        await ask(client, 1, traceparent=f"00-{TRACE}-{SPAN}-01")
        await ask(client, 3)
    assert seen == [TraceContext(TRACE, SPAN), None]
