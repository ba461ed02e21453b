"""Summarises a pod of the node in one line, with its calls."""

from __future__ import annotations

from collections.abc import Mapping

from netutil.agent.collect.pod_networks import ensure_networks_understood, networks_of
from netutil.agent.connections.registry import ConnectionRegistry
from netutil.agent.errors import AgentError, FailedPrecondition
from netutil.agent.facts.cpu import CpuDirectories, read_cpu
from netutil.agent.observability.call_stats import CallStats, PodCalls
from netutil.agent.parsers.pod_cgroups import normalise_uid
from netutil.agent.pods.model import ContainerStatus, Pod
from netutil.v1alpha import node_pb2 as api


class PodSummaries:
    """Sums pods up from the pod list, the connections and the calls."""

    def __init__(self, connections: ConnectionRegistry, log: CallStats) -> None:
        self._connections = connections
        self._log = log

    def summarize(self, pod: Pod, directories: Mapping[str, CpuDirectories]) -> api.NodePod:
        """Return the summary; `directories` are those of `ContainerDirectories.all_cpu`."""
        key = normalise_uid(pod.cgroup_uid)
        calls = self._log.by_pod.get(key) or PodCalls()
        networks, problem = _networks(pod)
        answer = api.NodePod(
            namespace=pod.metadata.namespace,
            name=pod.metadata.name,
            uid=pod.metadata.uid,
            qos_class=pod.status.qos_class,
            phase=pod.status.phase,
            containers=[
                container_summary(kind, status, directories)
                for kind, status in pod.container_statuses
            ],
            networks=networks,
            networks_error=problem,
            connections=self._connections.count(key),
            calls=calls.calls,
            refused=calls.refused,
            not_found=calls.not_found,
            failed=calls.failed,
            labels=pod.metadata.labels or {},
            last_error=calls.last_error,
        )
        if calls.last_error:
            answer.last_error_at.FromNanoseconds(int(calls.last_error_time * 1e9))
        return answer


def container_summary(
    kind: str, status: ContainerStatus, directories: Mapping[str, CpuDirectories]
) -> api.NodeContainer:
    """Return a container in one line."""
    return api.NodeContainer(
        name=status.name,
        id=status.id,
        kind=kind,
        state=status.state_name,
        effective_cpus=_effective_cpus(directories.get(status.id)),
    )


def _effective_cpus(directories: CpuDirectories | None) -> str:
    """Return "" for a container that does not run, or ended while it was looked at."""
    if directories is None:
        return ""
    try:
        return read_cpu(directories).effective_cpus
    except FailedPrecondition:
        return ""


def _networks(pod: Pod) -> tuple[list[str], str]:
    try:
        ensure_networks_understood(pod)
        found = networks_of(pod)
    except AgentError as error:
        return [], error.message
    names = [s.interface or s.name or ",".join(s.ips) for s in found.status]
    return names, found.device_info_error.message if found.device_info_error else ""
