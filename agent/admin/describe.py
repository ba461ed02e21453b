"""Describes pods and the node: DescribePod, DescribePods and DescribeNode."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

from netutil.agent.admin.explain import to_valid_utf8
from netutil.agent.admin.host_interfaces import report_interfaces
from netutil.agent.admin.pod_summary import PodSummaries
from netutil.agent.collect.amounts import pod_resources
from netutil.agent.collect.caller import CallerResolver, connection_of
from netutil.agent.collect.environment_collector import EnvironmentRead
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.collect.results import Allocated
from netutil.agent.errors import AgentError, NotFound, Reason, Unauthenticated, unreadable
from netutil.agent.facts.cgroup_levels import ControllerDirectory
from netutil.agent.facts.cpu import CpuDirectories
from netutil.agent.facts.host_interfaces import CpuCounts, read_cpu_counts
from netutil.agent.facts.pci import read_network_devices
from netutil.agent.facts.topology import read_topology
from netutil.agent.identity.cgroup_walk import processes_below
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.pidfd import pin_pid
from netutil.agent.messages.convert import LEVELS, timestamp
from netutil.agent.messages.convert_claims import pci_info
from netutil.agent.messages.convert_devices import cpu_of_node
from netutil.agent.messages.encode import Send, everything
from netutil.agent.messages.status import part_error
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.index import PodList
from netutil.agent.pods.model import Pod
from netutil.agent.watch.stream import MakeParts
from netutil.v1alpha import netutil_pb2, node_pb2
from netutil.v1alpha import node_pb2 as api

_PIDS_SHOWN = 16
_TRIED = 4
"""Processes of a container that are tried: one may end while it is looked at."""
_AT_ONCE = 8
"""Pods that are looked at together: what waits for the kubelet waits once for all of them."""
_CLAIM_SOURCES = {
    netutil_pb2.CLAIM_SOURCE_NODE: "device metadata of",
    netutil_pb2.CLAIM_SOURCE_API_SERVER: "API server, devices of",
}
_NO_WAIT_SECONDS = 0.0
"""For a list that knows a process: the one just read named its container."""
_NO_ENVIRONMENT: EnvironmentRead = (None, Allocated())
_OF_CONTAINER = ("cpu", "hugepages", "resources")
_OF_POD = ("network_status", "interfaces")
_ANNOTATIONS = {
    netutil_pb2.NETWORK_SOURCE_NETWORK_STATUS: "annotation k8s.v1.cni.cncf.io/network-status",
    netutil_pb2.NETWORK_SOURCE_NETWORKS_STATUS: "annotation k8s.v1.cni.cncf.io/networks-status",
    netutil_pb2.NETWORK_SOURCE_POD_STATUS: "status.podIPs, since no annotation reports networks",
}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at the node: the pod list, and the CPU directories of containers by ID.

    `until` is when to wait no more for what the kubelet allocated (`time.monotonic`), `each_cpu`
    whether the topology of each container's CPUs is asked for.
    """

    pod_list: PodList
    directories: Mapping[str, CpuDirectories]
    until: float
    each_cpu: bool


class PodDescriber:
    """Describes pods of this node. Used on the event loop."""

    def __init__(
        self,
        tree: CgroupTree,
        callers: CallerResolver,
        pods: PodDirectory,
        reads: ReadPool,
        summaries: PodSummaries,
        make_parts: MakeParts,
        pod_resources: str,
    ) -> None:
        self._tree = tree
        self._callers = callers
        self._pods = pods
        self._reads = reads
        self._summaries = summaries
        self._make_parts = make_parts
        self._pod_resources = pod_resources

    async def describe(
        self, namespace: str, name: str, seconds: float
    ) -> node_pb2.DescribePodResponse:
        """Return the pod. Raises `NotFound` for none of that name, `Unavailable` without a list.

        `seconds` is how long to wait for what the kubelet allocated.
        """
        look = await self._look(seconds, each_cpu=True)
        return await self._describe(named(look.pod_list, namespace, name), look)

    async def describe_all(self, seconds: float, send: Send) -> None:
        """Send every pod, by namespace and name; a few are held until they are taken.

        The topology of their CPUs is left out: it is the node's. `seconds` is as in `describe`,
        but of all pods together. Raises `Unavailable` without a list.
        """
        look = await self._look(seconds, each_cpu=False)
        begun: deque[asyncio.Task[node_pb2.DescribePodResponse]] = deque()
        try:
            for pod in by_name(look.pod_list):
                begun.append(asyncio.create_task(self._describe(pod, look)))
                if len(begun) == _AT_ONCE:
                    await send(await begun.popleft())
            while begun:
                await send(await begun.popleft())
        finally:
            for task in begun:
                task.cancel()
            await asyncio.gather(*begun, return_exceptions=True)

    async def _look(self, seconds: float, *, each_cpu: bool) -> _Look:
        """Return the node as it is now. Raises `Unavailable`."""
        until = time.monotonic() + seconds
        pod_list = await self._pods.refresh()
        return _Look(pod_list, await self._callers.directories.all_cpu(), until, each_cpu)

    async def _describe(self, pod: Pod, look: _Look) -> node_pb2.DescribePodResponse:
        """Return a pod of the list; parts that cannot be read are among its errors."""
        summary = self._summaries.summarize(pod, look.directories)
        answer = node_pb2.DescribePodResponse(
            pod=summary,
            cgroup_uid=pod.cgroup_uid,
            node_name=pod.spec.node_name,
            service_account=pod.spec.service_account_name,
            ips=pod.ips,
            host_network=pod.spec.host_network,
            labels=pod.metadata.labels or {},
            annotations=sorted(pod.metadata.annotations or {}),
            observed_at=timestamp(look.pod_list.observed_at),
            resources=[
                node_pb2.ResourceAmount(
                    **{name: to_valid_utf8(text) for name, text in asdict(one).items()}
                )
                for one in pod_resources(pod)
            ],
            not_understood=pod.not_understood,
        )
        answer.sources.add(part="pod", read=self._pods.describe())
        for (_, status), container in zip(pod.container_statuses, summary.containers, strict=True):
            described = answer.containers.add(container=container)
            if status.started_at is not None:
                described.started_at.CopyFrom(timestamp(status.started_at))
            directories = look.directories.get(status.id)
            if directories is None:
                continue  # none of its processes runs
            facts = await self._facts_of(described, directories, look)
            if facts is not None and not answer.HasField("interfaces"):
                _add_networks(answer, described, facts)
        return answer

    async def _facts_of(
        self, answer: node_pb2.DescribedContainer, directories: CpuDirectories, look: _Look
    ) -> netutil_pb2.AllResponse | None:
        """Return what one of the processes would get, and note the container's part of it."""
        refused: AgentError | None = None
        for pid in islice(await self._processes(answer, directories.cpuset), _TRIED):
            try:
                facts = await self._ask_as(answer, pid, look)
            except Unauthenticated:
                continue  # it ended meanwhile
            except AgentError as error:
                refused = error
                continue
            except OSError as error:
                refused = unreadable(error, str(error.filename or f"/proc/{pid}"))
                continue
            _add_facts(answer, facts)
            return facts
        if refused is not None:
            answer.errors.append(part_error("identity", refused))
        return None

    async def _processes(self, answer: node_pb2.DescribedContainer, directory: str) -> list[int]:
        """Return the processes of a container, and note them."""
        read = f"{directory}/cgroup.procs"
        try:
            pids = await self._reads.run("", lambda: list(processes_below(directory)), read)
        except AgentError as error:
            answer.errors.append(part_error("processes", error))
            return []
        answer.processes = len(pids)
        answer.pids.extend(pids[:_PIDS_SHOWN])
        return pids

    async def _ask_as(
        self, answer: node_pb2.DescribedContainer, pid: int, look: _Look
    ) -> netutil_pb2.AllResponse:
        async with AsyncExitStack() as stack:
            process = pin_pid(pid)
            stack.callback(process.close)
            connection = connection_of(process, self._tree)
            caller = await self._callers.identify(connection, _NO_WAIT_SECONDS, need_container=True)
            parts = await self._make_parts(
                caller,
                "",
                max(0.0, look.until - time.monotonic()),
                environment=_NO_ENVIRONMENT,
                each_cpu=look.each_cpu,
            )
        facts = netutil_pb2.AllResponse.FromString(everything(parts).body)
        answer.sources.add(part="identity", read=f"/proc/{pid}/cgroup")
        cpu = self._callers.directories.cpu(caller.cgroups)
        hugetlb = self._callers.directories.hugetlb(caller.cgroups)
        if cpu is not None:
            answer.sources.add(part="cpu", read=cpu.cpuset)
            _add_level(answer, "cpu quota", facts.cpu.quota_level, cpu.cpu)
        if hugetlb is not None:
            answer.sources.add(part="hugepages", read=hugetlb.directory)
            for level in dict.fromkeys(one.limit_level for one in facts.hugepages.usage):
                _add_level(answer, "hugepages limit", level, hugetlb)
        answer.sources.add(part="resources", read=self._pod_resources)
        for claim in facts.resources.claims:
            if claim.source in _CLAIM_SOURCES:
                read = f"{_CLAIM_SOURCES[claim.source]} {claim.driver}, claim {claim.claim_name}"
                answer.sources.add(part="resources", read=f"{read}, request {claim.request}")
        return facts


def by_name(pod_list: PodList) -> list[Pod]:
    """Return the pods in the order of the answers."""
    return sorted(pod_list.pods, key=lambda pod: (pod.metadata.namespace, pod.metadata.name))


def named(pod_list: PodList, namespace: str, name: str) -> Pod:
    """Return the pod of that name. Raises `NotFound` if the list has none."""
    for pod in pod_list.pods:
        if (pod.metadata.namespace, pod.metadata.name) == (namespace, name):
            return pod
    raise NotFound(
        Reason.POD_NOT_FOUND,
        f"The pod source reports no pod {f'{namespace}/{name}'!r:.256} on this node.",
        read="the pod list",
        advice="`netutil node pods` lists the pods of this node; `kubectl get pod -o wide` says"
        " on which node a pod is.",
    )


def _add_level(
    answer: node_pb2.DescribedContainer,
    part: str,
    level: netutil_pb2.CgroupLevel.ValueType,
    container: ControllerDirectory | None,
) -> None:
    """Note where the limit that a container meets was read, if it is not the container's own.

    For the administrator only: the path of a node's cgroup is no fact of the pod. Of the
    cgroups above kubepods it is one of those that are named.
    """
    own = (netutil_pb2.CGROUP_LEVEL_UNSPECIFIED, netutil_pb2.CGROUP_LEVEL_CONTAINER)
    if container is None or level in own:
        return
    paths = [path for each, path in container.levels if LEVELS[each] == level]
    answer.sources.add(part=part, read=", ".join(paths))


def _add_facts(answer: node_pb2.DescribedContainer, facts: netutil_pb2.AllResponse) -> None:
    for part in _OF_CONTAINER:
        if facts.HasField(part):  # type: ignore[arg-type]  # each is a field of it
            getattr(answer, part).CopyFrom(getattr(facts, part))
    answer.errors.extend(one for one in facts.errors if one.part in _OF_CONTAINER)


def _add_networks(
    answer: node_pb2.DescribePodResponse,
    container: node_pb2.DescribedContainer,
    facts: netutil_pb2.AllResponse,
) -> None:
    for part in _OF_POD:
        if facts.HasField(part):  # type: ignore[arg-type]
            getattr(answer, part).CopyFrom(getattr(facts, part))
    answer.errors.extend(one for one in facts.errors if one.part in _OF_POD)
    source = _ANNOTATIONS.get(facts.network_status.source)
    if source is not None:
        answer.sources.add(part="network_status", read=source)
    if facts.HasField("interfaces"):
        process = container.sources[0].read.removesuffix("cgroup")
        read = f"{process}ns/net, rtnetlink(7)"
        answer.sources.add(part="interfaces", read=read)


class NodeDescriber:
    """Describes the node. Used on the event loop."""

    def __init__(self, pods: PodDirectory, reads: ReadPool, host_root: str) -> None:
        self._pods = pods
        self._reads = reads
        self._host_root = host_root

    async def describe(self, *, interfaces: bool) -> api.DescribeNodeResponse:
        """Return the node, with its network interfaces if they are asked for.

        Raises `Unavailable` without a pod list.
        """
        pod_list = self._pods.last or await self._pods.refresh()  # each names the node alike
        answer = api.DescribeNodeResponse(node_name=_name(pod_list), kernel=os.uname().release)
        topology = partial(read_topology, self._host_root)
        cpus = await self._read(answer, "cpus", topology, "/sys/devices/system/cpu")
        answer.cpus.extend(cpu_of_node(cpu) for cpu in cpus)
        devices = partial(read_network_devices, self._host_root)
        for one in await self._read(answer, "network_devices", devices, "/sys/bus/pci/devices"):
            names = [to_valid_utf8(name) for name in one.interfaces]
            answer.network_devices.add(pci=pci_info(one.pci), interfaces=names)
        for counts in await self._read(answer, "cpu_counts", _cpu_counts, "the CPUs of the node"):
            answer.cpu_counts.CopyFrom(api.CPUCounts(logical=counts.logical, cores=counts.cores))
        if interfaces:
            answer.host_interfaces.CopyFrom(await report_interfaces(self._reads, self._host_root))
        return answer

    async def _read(
        self,
        answer: api.DescribeNodeResponse,
        part: str,
        read: Callable[[], tuple[T, ...]],
        what: str,
    ) -> tuple[T, ...]:
        try:
            return await self._reads.run("", read, what)
        except AgentError as error:
            answer.errors.append(part_error(part, error))
        except OSError as error:
            answer.errors.append(part_error(part, unreadable(error, str(error.filename or what))))
        return ()


def _cpu_counts() -> tuple[CpuCounts, ...]:
    return (read_cpu_counts(),)


def _name(pod_list: PodList) -> str:
    named = (pod.spec.node_name for pod in pod_list.pods if pod.spec.node_name)
    return next(named, os.uname().nodename)
