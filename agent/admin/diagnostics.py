"""Runs all checks of the node, the kernel, the pod source and the agent's own sockets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from netutil.agent.admin import checks
from netutil.agent.admin.checks import Check
from netutil.agent.admin.explain import to_valid_utf8
from netutil.agent.collect.caller import CallerResolver
from netutil.agent.collect.claim_sources import ClaimSources
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.connections.registry import ConnectionRegistry
from netutil.agent.device_plugin.plugin import PluginState
from netutil.agent.errors import AgentError
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.kubelet.podresources.directory import ResourceDirectory
from netutil.agent.observability.build_info import read_build_info
from netutil.agent.observability.memory import MemoryLimit
from netutil.agent.observability.process_use import own_use
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.index import PodList
from netutil.agent.pods.sources.kubelet import KubeletSource
from netutil.v1alpha import node_pb2 as api


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the agent's sockets are, and what the agent reads of the host."""

    socket: str
    admin_socket: str
    pod_resources: str
    host_root: str


@dataclass(frozen=True, slots=True)
class ConnectionCapacity:
    """The limit of connections, and the descriptors that as many need."""

    limit: int
    descriptors: int


@dataclass(frozen=True, slots=True)
class Installation:
    """Values of the configuration that the checks need, and the memory of the agent's cgroup."""

    paths: Paths
    believes_anybody: bool
    """--kubelet-verify none, with the kubelet as the source."""
    connections: ConnectionCapacity
    pin_name: str
    memory: MemoryLimit
    device_plugin: PluginState
    """What became of it, not a value of the configuration."""
    claims: ClaimSources = field(default_factory=ClaimSources)
    """The sources of the devices of ResourceClaims."""


class Diagnostics:
    """Runs all checks. Used on the event loop."""

    def __init__(
        self,
        installation: Installation,
        tree: CgroupTree,
        callers: CallerResolver,
        pods: PodDirectory,
        resources: ResourceDirectory,
        connections: ConnectionRegistry,
        reads: ReadPool,
    ) -> None:
        self._installation = installation
        self._tree = tree
        self._callers = callers
        self._pods = pods
        self._resources = resources
        self._connections = connections
        self._reads = reads

    async def diagnose(self) -> api.DiagnoseResponse:
        """Return every check, local checks first. One failed check does not fail the others."""
        found = await self._of_node()
        pods = await self._pod_list()
        last = self._pods.last
        found += [
            pods,
            checks.pod_fields(last.pods if last else (), self._pods.flaws),
            checks.clock(_starts(last)),
            await self._pod_resources(),
            await self._resource_claims(last),
            *checks.claims_api(self._installation.claims.api),
            *checks.device_plugin(self._installation.device_plugin),
            checks.connections(len(self._connections), self._installation.connections.limit),
        ]
        return api.DiagnoseResponse(checks=[_message(one) for one in found])

    async def _of_node(self) -> list[Check]:
        installation = self._installation
        memory_use = installation.memory.use
        directories = {
            container_id: one.cpuset
            for container_id, one in (await self._callers.directories.all_cpu()).items()
        }

        def look() -> list[Check]:
            members = [pid for directory in directories.values() for pid in _members(directory)]
            paths = installation.paths
            sockets = [
                checks.socket_file("pods' socket", paths.socket, 0o666, others_enter=True),
                checks.socket_file(
                    "operator socket", paths.admin_socket, 0o600, others_enter=False
                ),
                checks.socket_directory("socket directory", paths.socket),
            ]
            return [
                checks.versions(read_build_info()),
                checks.process_ids(members),
                *checks.cgroups(self._tree, directories),
                checks.host_files(paths.host_root),
                checks.capabilities(),
                checks.kernel(installation.pin_name),
                *sockets,
                checks.descriptors(installation.connections.descriptors),
                checks.memory(memory_use, own_use(), installation.memory.percent),
                checks.file_watches(),
            ]

        return await self._reads.run("", look, "the node")

    async def _pod_list(self) -> Check:
        """Return whether the pod source answers; what it says of rights is its own sentence."""
        name, source = "pod list", self._pods.describe()
        try:
            pod_list = await self._pods.refresh()
        except AgentError as error:
            kept = self._pods.last
            last = f"; the last list is of {kept.observed_at:%H:%M:%S} UTC" if kept else ""
            return Check(name, "failed", f"{error.message}{last}", error.advice)
        found = f"{checks.counted(len(pod_list.pods), 'pod')} from {source}"
        if self._pods.stats.streaming:
            found += f", confirmed {self._pods.stats.unconfirmed_seconds:.0f} s ago"
        # With --pod-source auto it may be the Pods API that is asked.
        if self._installation.believes_anybody and self._pods.kind is KubeletSource.kind:
            remedy = "Give --kubelet-ca and --kubelet-verify full, or ca."
            return Check(name, "warning", f"{found}, whichever server answers there", remedy)
        return Check(name, "ok", found)

    async def _pod_resources(self) -> Check:
        await self._resources.refresh()
        error = self._resources.last_error
        if error is None:
            return Check("PodResources", "ok", self._installation.paths.pod_resources)
        found = f"{error.message} Devices and exclusive CPUs are not answered."
        return Check("PodResources", "warning", found, error.advice)

    async def _resource_claims(self, pod_list: PodList | None) -> Check:
        pods = pod_list.pods if pod_list is not None else ()
        waiting = [pod.full_name for pod in pods if pod.spec.resource_claims]
        claims = self._installation.claims
        look = partial(
            checks.resource_claims, claims.files, waiting, has_other_source=claims.api is not None
        )
        return await self._reads.run("", look, "the device metadata of drivers on the node")


def _starts(pod_list: PodList | None) -> list[datetime]:
    pods = pod_list.pods if pod_list is not None else ()
    starts = [status.started_at for pod in pods for _, status in pod.container_statuses]
    return [start.astimezone(UTC) for start in starts if start is not None]


def _members(directory: str) -> list[str]:
    """Return the entries of cgroup.procs, none for a cgroup that went away."""
    try:
        return Path(directory, "cgroup.procs").read_text(encoding="ascii").split()
    except OSError:
        return []


def _message(check: Check) -> api.Check:
    return api.Check(**{name: to_valid_utf8(text) for name, text in asdict(check).items()})
