"""What every pod asks of the agent, as counters: two readings give rates and latencies."""

from __future__ import annotations

import time

from netutil.agent.connections.registry import ConnectionRegistry
from netutil.agent.limits.in_flight import InFlight
from netutil.agent.parsers.pod_cgroups import normalise_uid
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.model import Pod
from netutil.agent.service.call_log import LATENCY_BOUNDS_SECONDS, CallLog, PodCalls
from netutil.agent.service.watching import Watching
from netutil.v1alpha import node_pb2 as api


class Activity:
    """Reads the agent's own tables; asks the pod source only if there was no list yet."""

    def __init__(
        self,
        pods: PodDirectory,
        connections: ConnectionRegistry,
        max_connections: int,
        log: CallLog,
        in_flight: InFlight,
        watching: Watching,
    ) -> None:
        self._pods = pods
        self._connections = connections
        self._max_connections = max_connections
        self._log = log
        self._in_flight = in_flight
        self._watching = watching
        self._started = time.monotonic()

    async def read(self) -> api.GetActivityResponse:
        """Return the counters, of listed pods and of others that asked. Raises `Unavailable`."""
        pod_list = self._pods.last or await self._pods.refresh()
        listed = {normalise_uid(pod.cgroup_uid): pod for pod in pod_list.pods}
        others = [key for key in self._log.by_pod if key not in listed]
        return api.GetActivityResponse(
            uptime_seconds=time.monotonic() - self._started,
            pods=[
                *(self._activity(key, pod) for key, pod in listed.items()),
                *(self._activity(key, None) for key in others),
            ],
            latency_bounds_seconds=LATENCY_BOUNDS_SECONDS,
            connections=len(self._connections),
            max_connections=self._max_connections,
            watchers=len(self._watching),
        )

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
