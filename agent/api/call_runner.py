"""Runs the body of each method, records the call once, and turns errors into statuses."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message
from netutil.agent.connections.policy import RecordRejection
from netutil.agent.connections.registry import Connection, connection_of
from netutil.agent.errors import AgentError, resource_exhausted
from netutil.agent.grpcserver import Call, EncodedMessage, Status, call_of
from netutil.agent.identity.peer import Peer, requester_of
from netutil.agent.limits.in_flight import SMALL_ANSWER_BYTES, InFlight
from netutil.agent.limits.scheduler import FairScheduler
from netutil.agent.messages.encode import Answer, Send, encode
from netutil.agent.messages.status import code_of, trailing_metadata, truncate_utf8
from netutil.agent.observability.call_stats import CallFeed, CallStats, Event
from netutil.agent.observability.log_setup import enter_trace
from netutil.agent.pods.directory import MAX_LIST_WAIT_SECONDS

_LOG = logging.getLogger(__name__)


Context = grpc.aio.ServicerContext[Any, Any]


Observe = Callable[[str, str, str, float], None]
"""Called with method, code, reason and seconds of each call."""
_SHARE_FOR_WAITING = 0.9


class CallRecorder:
    """Records each call once: in the statistics of its pod, the metrics, and the trace streams."""

    def __init__(self, log: CallStats, observe: Observe, call_feed: CallFeed) -> None:
        self._log = log
        self._observe = observe
        self._call_feed = call_feed

    def answered(
        self,
        method: str,
        connection: Connection,
        code: str,
        reason: str,
        seconds: float,
        event: Event = "answered",
    ) -> None:
        """Record a call that has ended; `reason` is "" for one that was answered."""
        self._log.record(connection.key, code, reason, seconds)
        self._observe(method, code, reason, seconds)
        if self._call_feed.subscribers:
            self._call_feed.notify(method, event, connection, code, reason, seconds)

    def began(self, method: str, connection: Connection, seconds: float) -> None:
        """Publish to trace streams that a stream has sent its first message."""
        if self._call_feed.subscribers:
            self._call_feed.notify(method, "began", connection, "OK", "", seconds)


class Rejections:
    """Records rejected calls, and returns their statuses."""

    def __init__(self, recorder: CallRecorder, record_rejection: RecordRejection) -> None:
        self._recorder = recorder
        self._record_rejection = record_rejection

    def record(self, method: str, connection: Connection, error: AgentError) -> None:
        """Record a rejected call in the audit log."""
        self._record_rejection("call", connection.requester, connection.key, method, error)

    def record_part(self, part: str, peer: Peer, error: AgentError) -> None:
        """Record a part of an answer that was rejected, in the audit log."""
        self._record_rejection("part", requester_of(peer), peer.pod_key, part, error)

    def reject(self, connection: Connection, method: str, call: Call, error: AgentError) -> Status:
        """Record a call that is rejected before its handler runs; return its status."""
        contextvars.copy_context().run(self._reject, connection, method, call, error)
        return Status(code_of(error), truncate_utf8(error.message), trailing_metadata(error))

    def _reject(self, connection: Connection, method: str, call: Call, error: AgentError) -> None:
        enter_trace(call.header(b"traceparent"))
        self.record(method, connection, error)
        self._recorder.answered(method, connection, code_of(error).name, error.reason, 0.0)


class CallRunner:
    """Runs the body of a method for the connection of a call, and turns errors into statuses.

    For calls that were admitted: `in_flight` has counted them.
    """

    def __init__(
        self,
        recorder: CallRecorder,
        rejections: Rejections,
        in_flight: InFlight,
        scheduler: FairScheduler,
    ) -> None:
        self._recorder = recorder
        self._rejections = rejections
        self._in_flight = in_flight
        self._scheduler = scheduler

    def answer(
        self,
        method: str,
        context: Context,
        body: Callable[..., Answer | Awaitable[Answer]],
        *arguments: object,
    ) -> Any:
        """Return what `body` returns for the connection and the arguments, as a handler may.

        That is an encoded message, or a coroutine that returns one, or aborts the call with the
        status of what was raised. Only what waits, or fails, takes a coroutine.
        """
        began, call = perf_counter(), call_of(context)
        connection: Connection = call.connection.peer
        traceparent = call.head.fields.get(b"traceparent")
        if traceparent is not None:
            enter_trace(traceparent)
        try:
            found = body(connection, *arguments)
            if not isinstance(found, EncodedMessage | Message):
                return self._later(method, context, found, began)
            encoded = self._encoded(context, connection, found)
        except Exception as error:  # noqa: BLE001 - answered as what it is
            return self._failed(method, context, error, perf_counter() - began)
        self._recorder.answered(method, connection, "OK", "", perf_counter() - began)
        return encoded

    async def answer_scheduled(
        self,
        method: str,
        context: Context,
        body: Callable[[Connection], Awaitable[Answer]],
        loop_seconds: float = 0.0,
    ) -> EncodedMessage:
        """Return what `body` returns, or abort the call, as `answer` does.

        `loop_seconds` is given for a method that takes much more of the loop's time than others:
        its calls begin in the order of the pods.
        """

        async def run() -> Answer:
            connection = connection_of(call_of(context))
            if loop_seconds:
                account = self._scheduler.account(connection.key)
                await self._scheduler.acquire(account, loop_seconds)
            return await body(connection)

        began = perf_counter()
        enter_trace(call_of(context).header(b"traceparent"))
        return await self._later(method, context, run(), began)

    async def stream(
        self,
        method: str,
        context: Context,
        body: Callable[[Connection, Send], Awaitable[None]],
    ) -> None:
        """Run `body`, which sends messages; if it raises, abort the call as `answer` does.

        A message that its reader does not take keeps `body` waiting, and counts as an answer
        in the send buffer. The observed time is the time to the first message.
        """
        began = perf_counter()
        first_seconds: float | None = None
        connection = connection_of(call_of(context))
        enter_trace(call_of(context).header(b"traceparent"))

        async def send(message: Answer) -> None:
            nonlocal first_seconds
            if first_seconds is None:
                first_seconds = perf_counter() - began
                self._recorder.began(method, connection, first_seconds)
            release = self._in_flight.reserve(connection.key, message.ByteSize())
            try:
                await context.write(message)
            finally:
                release()

        def seconds() -> float:
            return perf_counter() - began if first_seconds is None else first_seconds

        try:
            await body(connection, send)
        except asyncio.CancelledError:
            self._recorder.answered(method, connection, "CANCELLED", "", seconds(), "ended")
            raise
        except Exception as error:  # noqa: BLE001 - answered as what it is
            await self._failed(method, context, error, seconds(), "ended")
        self._recorder.answered(method, connection, "OK", "", seconds(), "ended")

    def _encoded(self, context: Context, connection: Connection, answer: Answer) -> EncodedMessage:
        """Return an answer encoded. A large one counts as unread until its reader has taken it."""
        encoded = answer if isinstance(answer, EncodedMessage) else encode(answer)
        if len(encoded.framed) > SMALL_ANSWER_BYTES:
            release = self._in_flight.reserve(connection.key, encoded.ByteSize())
            call_of(context).when_sent(release)
        return encoded

    async def _later(
        self, method: str, context: Context, answer: Awaitable[Answer], began: float
    ) -> EncodedMessage:
        connection = connection_of(call_of(context))
        try:
            encoded = self._encoded(context, connection, await answer)
        except asyncio.CancelledError:
            seconds = perf_counter() - began
            self._recorder.answered(method, connection, "CANCELLED", "", seconds)
            raise
        except Exception as error:  # noqa: BLE001 - answered as what it is
            await self._failed(method, context, error, perf_counter() - began)
        self._recorder.answered(method, connection, "OK", "", perf_counter() - began)
        return encoded

    async def _failed(
        self,
        method: str,
        context: Context,
        error: Exception,
        seconds: float,
        event: Event = "answered",
    ) -> NoReturn:
        """Abort a call with the status of an error. What is no `AgentError` is a bug, and logged.

        `AgentError` is also what the agent lacks for an answer: descriptors or memory.
        """
        connection = connection_of(call_of(context))
        if isinstance(error, OSError):
            error = (
                resource_exhausted(error, str(error.filename or "what the call asks for")) or error
            )
        if isinstance(error, AgentError):
            error.with_traceback(None)  # its frames hold what was read, a whole environment perhaps
            code = code_of(error)
            self._rejections.record(method, connection, error)
            self._recorder.answered(method, connection, code.name, error.reason, seconds, event)
            await context.abort(code, truncate_utf8(error.message), trailing_metadata(error))
        reason = type(error).__name__
        _LOG.error("%s of pod %s failed", method, connection.key or "-", exc_info=error)
        self._recorder.answered(method, connection, "INTERNAL", reason, seconds, event)
        await context.abort(
            grpc.StatusCode.INTERNAL,
            f"The agent failed to answer {method} ({reason}); its log on the node says where.",
        )


def wait_seconds(context: Context) -> float:
    """Return how long a call may wait for the pod list: at most five seconds.

    A tenth of its deadline is left for the answer, which would else come too late.
    """
    remaining = context.time_remaining()
    if remaining is None:
        return MAX_LIST_WAIT_SECONDS
    return min(MAX_LIST_WAIT_SECONDS, remaining * _SHARE_FOR_WAITING)
