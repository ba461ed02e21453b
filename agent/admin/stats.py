"""Statistics of calls by pod, and the stream of single calls."""

from __future__ import annotations

import asyncio
import time
from typing import NoReturn

from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.connections.registry import ConnectionRegistry
from netutil.agent.errors import AgentError, Reason, Unavailable, unreadable
from netutil.agent.limits.in_flight import InFlight
from netutil.agent.messages.encode import Send
from netutil.agent.messages.status import part_error
from netutil.agent.observability.call_stats import (
    LATENCY_BOUNDS_SECONDS,
    CallFeed,
    CallStats,
    PodCalls,
    TracedCall,
)
from netutil.agent.observability.process_use import ProcessUse, own_use
from netutil.agent.parsers.pod_cgroups import normalise_uid
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.model import Pod
from netutil.agent.watch.notifier import ChangeNotifier
from netutil.v1alpha import node_pb2 as api

_SELF = "/proc/self"
_TOGETHER_SECONDS = 0.05
"""Calls of so long a time are sent as one message."""


class Activity:
    """Reads the agent's own tables; asks the pod source only if there was no list yet."""

    def __init__(
        self,
        pods: PodDirectory,
        connections: ConnectionRegistry,
        max_connections: int,
        log: CallStats,
        in_flight: InFlight,
        notifier: ChangeNotifier,
        reads: ReadPool,
    ) -> None:
        self._reads = reads
        self._pods = pods
        self._connections = connections
        self._max_connections = max_connections
        self._log = log
        self._in_flight = in_flight
        self._notifier = notifier
        self._started = time.monotonic()

    async def read(self) -> api.GetActivityResponse:
        """Return the counters, of listed pods and of others that asked. Raises `Unavailable`."""
        pod_list = self._pods.last or await self._pods.refresh()
        listed = {normalise_uid(pod.cgroup_uid): pod for pod in pod_list.pods}
        others = [key for key in self._log.by_pod if key not in listed]
        answer = api.GetActivityResponse(
            uptime_seconds=time.monotonic() - self._started,
            pods=[
                *(self._activity(key, pod) for key, pod in listed.items()),
                *(self._activity(key, None) for key in others),
            ],
            latency_bounds_seconds=LATENCY_BOUNDS_SECONDS,
            connections=len(self._connections),
            max_connections=self._max_connections,
            watchers=len(self._notifier),
        )
        try:
            use = await self._reads.run("", own_use, _SELF)
        except AgentError as error:
            answer.agent_error.CopyFrom(part_error("agent", error))
        except OSError as error:
            answer.agent_error.CopyFrom(part_error("agent", unreadable(error, _SELF)))
        else:
            answer.agent.CopyFrom(_agent_use(use))
        return answer

    def _activity(self, key: str, pod: Pod | None) -> api.PodActivity:
        calls = self._log.by_pod.get(key) or PodCalls()
        return api.PodActivity(
            namespace=pod.metadata.namespace if pod else "",
            name=pod.metadata.name if pod else "",
            uid=key,
            connections=self._connections.count(key),
            open_calls=self._in_flight.count_calls(key),
            calls=calls.calls,
            refused=calls.refused,
            not_found=calls.not_found,
            failed=calls.failed,
            seconds=calls.seconds,
            latency_counts=calls.latency_counts,
            last_error=calls.last_error,
        )


def _agent_use(use: ProcessUse) -> api.AgentUse:
    answer = api.AgentUse(
        pid=use.pid,
        rss_bytes=use.rss_bytes,
        cpu_seconds=use.cpu_seconds,
        threads=use.threads,
        descriptors=use.descriptors,
    )
    answer.started_at.FromNanoseconds(round(use.started_seconds * 1e9))
    return answer


class TraceStreams:
    """Sends the calls of `CallFeed`, with the names of their pods."""

    def __init__(self, call_feed: CallFeed, pods: PodDirectory) -> None:
        self._call_feed = call_feed
        self._pods = pods

    async def run(self, send: Send) -> NoReturn:
        """Send calls until the agent stops: then raises `Unavailable` (AGENT_RESTARTING).

        The first message is empty: from then on nothing is missed.
        """
        subscriber = self._call_feed.subscribe()
        try:
            await send(api.TraceResponse())
            while (queued := await subscriber.next()) is not None:
                calls, lost = queued
                message = api.TraceResponse(calls=map(self._traced, calls), lost=lost)
                await send(message)
                await asyncio.sleep(_TOGETHER_SECONDS)
        finally:
            self._call_feed.unsubscribe(subscriber)
        raise Unavailable(
            Reason.AGENT_RESTARTING,
            "The agent is stopping and reports no more calls.",
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
