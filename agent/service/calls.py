"""What every call goes through: from the peer's name to the caller, from an error to a status."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import grpc
from google.protobuf.message import Message
from netutil.agent.connections.registry import Connection, connection_of
from netutil.agent.errors import AgentError, shortage
from netutil.agent.grpcserver import call_of
from netutil.agent.limits.in_flight import SMALL_ANSWER_BYTES, InFlight
from netutil.agent.limits.scheduler import FairScheduler
from netutil.agent.service.call_log import CallLog
from netutil.agent.service.caller import LONGEST_WAIT_SECONDS
from netutil.agent.service.context import Context
from netutil.agent.service.refusals import Observe, Refusals
from netutil.agent.service.status import code_of, cut, trailing_metadata
from netutil.agent.service.tracing import Event, Tracing
from netutil.agent.trace_context import enter_trace

_LOG = logging.getLogger(__name__)
T = TypeVar("T", bound=Message)
R = TypeVar("R")
Send = Callable[[Message], Awaitable[None]]
"""Sends one message of a stream; returns when gRPC has taken it."""


class _Timer:
    """Seconds from its making to its first stop."""

    __slots__ = ("_seconds", "_started")

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._seconds: float | None = None

    @property
    def runs(self) -> bool:
        """Return whether it was not stopped yet."""
        return self._seconds is None

    def stop(self) -> float:
        if self._seconds is None:
            self._seconds = time.perf_counter() - self._started
        return self._seconds


class Answering:
    """Runs the body of a method for the caller of a connection, and turns errors into statuses.

    For calls that were admitted: `in_flight` has counted them.
    """

    def __init__(
        self,
        log: CallLog,
        observe: Observe,
        in_flight: InFlight,
        refusals: Refusals,
        tracing: Tracing,
        scheduler: FairScheduler,
    ) -> None:
        self._scheduler = scheduler
        self._in_flight = in_flight
        self._log = log
        self._observe = observe
        self._refusals = refusals
        self._tracing = tracing

    async def answer(
        self,
        method: str,
        context: Context,
        body: Callable[[Connection], Awaitable[T]],
        loop_seconds: float = 0.0,
    ) -> T:
        """Return what `body` returns, or abort the call with the status of what it raises.

        `loop_seconds` is given for a method that takes much more of the loop's time than others:
        its calls begin in the order of the pods.
        """

        async def run(connection: Connection) -> T:
            if loop_seconds:
                account = self._scheduler.account(connection.key)
                await self._scheduler.wait_turn(account, loop_seconds)
            answer = await body(connection)
            size = answer.ByteSize()
            if size > SMALL_ANSWER_BYTES:
                call_of(context).when_sent(self._in_flight.reserve(connection.key, size))
            return answer

        return await self._run(method, context, run, _Timer())

    async def stream(
        self,
        method: str,
        context: Context,
        body: Callable[[Connection, Send], Awaitable[None]],
    ) -> None:
        """Run `body`, which sends messages; if it raises, abort the call as `answer` does.

        A message that its reader does not take keeps `body` waiting, and counts as an answer
        that nobody has read. The time that is observed is that to the first message.
        """
        timer = _Timer()

        async def run(connection: Connection) -> None:
            async def send(message: Message) -> None:
                if timer.runs and self._tracing:
                    self._tracing.tell(method, "began", connection, "OK", "", timer.stop())
                timer.stop()
                with self._in_flight.reserved(connection.key, message.ByteSize()):
                    await context.write(message)

            await body(connection, send)

        await self._run(method, context, run, timer, event="ended")

    async def _run(
        self,
        method: str,
        context: Context,
        run: Callable[[Connection], Awaitable[R]],
        timer: _Timer,
        event: Event = "answered",
    ) -> R:
        call = call_of(context)
        connection, code, reason = connection_of(call), "OK", ""
        enter_trace(call.header(b"traceparent"))
        try:
            return await _told_of_shortage(run(connection))
        except AgentError as error:
            error.with_traceback(None)  # its frames hold what was read, a whole environment perhaps
            code, reason = code_of(error).name, error.reason
            self._refusals.told(method, connection, error)
            await _abort(context, error)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:  # noqa: BLE001 - a bug of the agent, answered and logged as such
            code, reason = "INTERNAL", type(error).__name__
            _LOG.exception("%s of pod %s failed", method, connection.key or "-")
            await context.abort(
                grpc.StatusCode.INTERNAL,
                f"The agent failed to answer {method} ({reason}); its log on the node says where.",
            )
        finally:
            seconds = timer.stop()
            self._log.record(connection.key, reason, seconds)
            self._observe(method, code, reason, seconds)
            if self._tracing:
                self._tracing.tell(method, event, connection, code, reason, seconds)


_SHARE_FOR_WAITING = 0.9


def wait_seconds(context: Context) -> float:
    """Return how long a call may wait for the pod list, five seconds at the most.

    A tenth of its deadline is left for the answer, which would else come too late.
    """
    remaining = context.time_remaining()
    if remaining is None:
        return LONGEST_WAIT_SECONDS
    return min(LONGEST_WAIT_SECONDS, remaining * _SHARE_FOR_WAITING)


async def _told_of_shortage(answer: Awaitable[R]) -> R:
    """Return an answer. Raises `OverLimit` where what it needs could not be read for a shortage."""
    try:
        return await answer
    except OSError as error:
        raise shortage(error, str(error.filename or "what the call asks for")) or error from None


async def _abort(context: Context, error: AgentError) -> NoReturn:
    await context.abort(code_of(error), cut(error.sentence), trailing_metadata(error))
