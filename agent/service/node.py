"""The operators' service: every pod of the node. Served on the operator socket only."""

from __future__ import annotations

from collections.abc import Mapping

from netutil.agent.door.table import Connection, ConnectionTable
from netutil.agent.errors import AgentError, Inconsistent
from netutil.agent.facts.cpu import CpuDirectories, read_cpu
from netutil.agent.facts.network import read_networks
from netutil.agent.parsers.cgroup import normalise_uid
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.model import Pod
from netutil.agent.service.answers import timestamp
from netutil.agent.service.caller import Callers
from netutil.agent.service.calls import Answering, CallLog, PodCalls
from netutil.agent.service.unfinished import Context
from netutil.v1alpha import node_pb2 as api
from netutil.v1alpha import node_pb2_grpc


class Node(node_pb2_grpc.NodeServicer):
    """`v1alpha.Node`."""

    def __init__(
        self,
        pods: PodDirectory,
        callers: Callers,
        connections: ConnectionTable,
        log: CallLog,
        answering: Answering,
    ) -> None:
        self._pods = pods
        self._callers = callers
        self._connections = connections
        self._log = log
        self._answering = answering

    async def ListPods(
        self, request: api.ListPodsRequest, context: Context
    ) -> api.ListPodsResponse:
        """Return every pod that the pod source reports, by namespace and name."""
        del request

        async def body(connection: Connection) -> api.ListPodsResponse:
            if connection.refusal is not None:
                raise connection.refusal.with_traceback(None)
            pod_list = await self._pods.refresh()
            directories = await self._callers.all_cpu_directories()
            pods = sorted(pod_list.pods, key=lambda p: (p.metadata.namespace, p.metadata.name))
            return api.ListPodsResponse(
                pods=[self._pod(pod, directories) for pod in pods],
                observed_at=timestamp(pod_list.observed_at),
            )

        return await self._answering.answer("ListPods", context, body)

    def _pod(self, pod: Pod, directories: Mapping[str, CpuDirectories]) -> api.NodePod:
        key = normalise_uid(pod.cgroup_uid)
        calls = self._log.by_pod.get(key) or PodCalls()
        networks, problem = _networks(pod)
        answer = api.NodePod(
            namespace=pod.metadata.namespace,
            name=pod.metadata.name,
            uid=pod.metadata.uid,
            qos_class=pod.status.qos_class,
            phase=pod.status.phase,
            containers=_containers(pod, directories),
            networks=networks,
            networks_error=problem,
            connections=self._connections.count(key),
            calls=calls.calls,
            last_error=calls.last_error,
        )
        if calls.last_error:
            answer.last_error_at.FromNanoseconds(int(calls.last_error_time * 1e9))
        return answer


def _containers(pod: Pod, directories: Mapping[str, CpuDirectories]) -> list[api.NodeContainer]:
    return [
        api.NodeContainer(
            name=status.name,
            id=status.id,
            kind=kind,
            state=status.state_name,
            effective_cpus=_effective_cpus(directories.get(status.id)),
        )
        for kind, status in pod.container_statuses
    ]


def _effective_cpus(directories: CpuDirectories | None) -> str:
    """Return "" for a container that does not run, or ended while it was looked at."""
    if directories is None:
        return ""
    try:
        return read_cpu(directories).effective_cpus
    except Inconsistent:
        return ""


def _networks(pod: Pod) -> tuple[list[str], str]:
    try:
        found = read_networks(pod.metadata.annotations or {}, pod.ips, pod=pod.full_name)
    except AgentError as error:
        return [], error.sentence
    return [s.interface or s.name or ",".join(s.ips) for s in found.status], ""
