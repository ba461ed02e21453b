"""What every call on a socket goes through before anything of it is read: the limits of its pod.

An interceptor of the gRPC server, so that it holds for each method: for health, reflection and
methods that do not exist as well. A call is admitted on its headers, before its message: one that
never sends any is under way like another. What is over a limit is refused with less work than an
answer takes; a pod that goes on nevertheless is not read from for as long as its refusals are ahead
of a rate of their own.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias, cast

import grpc
from netutil.agent.door.table import ConnectionTable
from netutil.agent.door.turns import STREAM_FRAMES, Turns
from netutil.agent.errors import AgentError, OverLimit, Reason
from netutil.agent.service.context import Context
from netutil.agent.service.rates import Rates
from netutil.agent.service.refusals import Refusals
from netutil.agent.service.unfinished import Unfinished
from netutil.agent.trace_context import CALLERS_TRACE, parse_traceparent

_REFUSALS_SHARE = 0.25
"""Refusals that a pod gets in a second, as a part of the calls that it may make in one."""
_SHORTEST_STOP_SECONDS = 0.05
_EXTRA_FRAMES = {"GetAll": 11 * STREAM_FRAMES}
"""What costs more than the one call that the door takes it for.

It takes as long as seven: with as much as a pod has for a turn, no second one of the pod follows
in the same.
"""
_NO_METHOD = "unknown"

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["_Handler | None"]]


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Calls of one pod: in a second, and at once after a pause."""

    calls_per_second: float = 1000.0
    burst: float = 2000.0


class Admission(grpc.aio.ServerInterceptor):
    """Admits calls to one server. With `rates` None calls are not limited by rate."""

    def __init__(
        self,
        table: ConnectionTable,
        unfinished: Unfinished,
        refusals: Refusals,
        limits: RateLimits | None = None,
        turns: Turns | None = None,
    ) -> None:
        self._turns = turns
        self._table = table
        self._unfinished = unfinished
        self._refusals = refusals
        self._rates = self._refused = None
        if limits is not None:
            rate, burst = limits.calls_per_second, limits.burst
            self._rates = Rates(rate, burst)
            self._refused = Rates(rate * _REFUSALS_SHARE, max(1.0, burst * _REFUSALS_SHARE))
        self._admitting: dict[str, _Handler] = {}
        self._unknown = self._handler(_NO_METHOD, grpc.unary_unary_rpc_method_handler(_no_method))

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> _Handler:
        """Return the method's handler behind the limits."""
        method = handler_call_details.method
        handler = self._admitting.get(method)
        if handler is None:
            found = await continuation(handler_call_details)
            if found is None:
                return self._unknown
            handler = self._admitting[method] = self._handler(_label(method), found)
        return handler

    def _handler(self, method: str, inner: _Handler) -> _Handler:
        """Return a handler that admits a call before it reads the message that `inner` takes."""
        codec: Any = (inner.request_deserializer, inner.response_serializer)
        behavior: Any  # types-grpcio knows those of the synchronous server alone
        if inner.response_streaming:
            behavior = inner.stream_stream if inner.request_streaming else inner.unary_stream

            async def stream(requests: Any, context: Context) -> None:
                await self._admit(method, context, stream=True)
                asked = requests if inner.request_streaming else await _message(context)
                if inspect.isasyncgenfunction(behavior):
                    async for response in behavior(asked, context):
                        await context.write(response)
                else:
                    await behavior(asked, context)

            return grpc.stream_stream_rpc_method_handler(cast("Any", stream), *codec)
        behavior = inner.stream_unary if inner.request_streaming else inner.unary_unary

        async def unary(requests: Any, context: Context) -> Any:
            await self._admit(method, context, stream=inner.request_streaming)
            asked = requests if inner.request_streaming else await _message(context)
            return await behavior(asked, context)

        return grpc.stream_unary_rpc_method_handler(cast("Any", unary), *codec)

    async def _admit(self, method: str, context: Context, *, stream: bool) -> None:
        """Count the call as its pod's, or abort it."""
        _enter_trace(context)
        connection = None
        try:
            connection = self._table.of_grpc_peer(context.peer())
            if self._rates is not None:
                wait_seconds = self._rates.take(connection.key)
                if wait_seconds:
                    raise _too_fast(max(wait_seconds, connection.share.stopped_seconds))
            self._unfinished.begin(connection.key, stream=stream)
        except AgentError as error:
            if connection is not None and self._refused is not None:
                debt_seconds = self._refused.charge(connection.key)
                if debt_seconds:
                    self._table.stop(connection, max(_SHORTEST_STOP_SECONDS, debt_seconds))
            await self._refusals.abort(method, context, connection, error)
        else:
            if self._turns is not None and method in _EXTRA_FRAMES:
                # One by one: the door let a dozen in at once, as the calls it took them for.
                await self._turns.of_pod(connection.key).pass_work(_EXTRA_FRAMES[method])


def _label(method: str) -> str:
    """Return what logs and metrics call a method: `GetEnv`, but `Health.Check`."""
    service, _, name = method.rpartition("/")
    service = service.rpartition(".")[2]
    return name if service in ("NetUtil", "Node") else f"{service}.{name}"


def _enter_trace(context: Context) -> None:
    """Let what is logged in this call bear the trace that the caller says it belongs to."""
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent":
            CALLERS_TRACE.set(parse_traceparent(str(value)))
            return


async def _message(context: Context) -> Any:
    message = await context.read()
    if message is grpc.aio.EOF:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The call brought no message.")
    return message


async def _no_method(_: object, context: Context) -> NoReturn:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "The agent has no such method.")


def _too_fast(wait_seconds: float) -> OverLimit:
    error = OverLimit(
        Reason.TOO_MANY_CALLS_PER_SECOND,
        "The caller's pod calls more often than it may.",
        read="the agent's table of calls",
        advice="Ask once and keep the answer, or Watch; --max-calls-per-second-per-pod sets the"
        " limit.",
    )
    error.retry_after_seconds = wait_seconds
    return error
