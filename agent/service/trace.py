"""The stream of calls that an operator is shown."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from netutil.agent.errors import Reason, Unavailable
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.service.calls import Send
from netutil.agent.service.tracing import TracedCall, Tracing
from netutil.v1alpha import node_pb2 as api

_TOGETHER_SECONDS = 0.05
"""Calls of so long a time are sent as one message."""


class Traces:
    """Sends the calls of `Tracing`, with the names of their pods."""

    def __init__(self, tracing: Tracing, pods: PodDirectory) -> None:
        self._tracing = tracing
        self._pods = pods

    async def run(self, send: Send) -> NoReturn:
        """Send calls until the agent stops: then raises `Unavailable` (AGENT_RESTARTING).

        The first message is empty: from then on nothing is missed.
        """
        onlooker = self._tracing.join()
        try:
            await send(api.TraceResponse())
            while (news := await onlooker.next()) is not None:
                calls, lost = news
                message = api.TraceResponse(calls=map(self._traced, calls), lost=lost)
                await send(message)
                await asyncio.sleep(_TOGETHER_SECONDS)
        finally:
            self._tracing.leave(onlooker)
        raise Unavailable(
            Reason.AGENT_RESTARTING,
            "The agent is stopping and tells no calls any more.",
            read="the agent's own calls",
            advice="Connect and ask again.",
        )

    def _traced(self, call: TracedCall) -> api.TracedCall:
        connection = call.connection
        answer = api.TracedCall(
            method=call.method,
            event=call.event,
            code=call.code,
            reason=call.reason,
            seconds=call.seconds,
        )
        answer.at.FromNanoseconds(int(call.at * 1e9))
        if connection is None:
            return answer
        requester = connection.requester
        if requester.credentials is not None:
            answer.pid, answer.uid = requester.credentials.pid, requester.credentials.uid
        answer.container_id = requester.container_id or ""
        if requester.pod_uid is None and requester.container_id is None:
            return answer
        match = self._pods.peek(requester.pod_uid, requester.container_id)
        if match is not None:
            answer.namespace, answer.pod = match.pod.metadata.namespace, match.pod.metadata.name
            answer.container = match.container_name
        return answer
