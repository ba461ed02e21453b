"""Lists the processes of pods: ListProcesses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from netutil.agent.admin.describe import by_name, named
from netutil.agent.admin.explain import to_valid_utf8
from netutil.agent.collect.caller import CallerResolver
from netutil.agent.collect.processes import (
    ProcessFacts,
    Quota,
    Slice,
    ThreadFacts,
    boot_seconds,
    read_cgroup,
)
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.errors import (
    AgentError,
    FailedPrecondition,
    Reason,
    Unauthenticated,
    Unavailable,
    unreadable,
)
from netutil.agent.kubelet.podresources.directory import ResourceDirectory
from netutil.agent.messages.encode import Send
from netutil.agent.messages.status import part_error
from netutil.agent.parsers.cpulist import format_cpu_list
from netutil.agent.parsers.pod_cgroups import names_a_container, normalise_uid
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.model import Pod
from netutil.v1alpha import netutil_pb2
from netutil.v1alpha import node_pb2 as api

_LANE = "processes/{}"
"""A pod's lane of reads for this: neither its own calls nor other calls of operators wait."""


@dataclass(frozen=True, slots=True)
class ListingBounds:
    """How many processes and threads are read at most, of one pod and in one answer."""

    pod_processes: int = 1024
    pod_threads: int = 4096
    processes: int = 16_384
    threads: int = 65_536


class ProcessLister:
    """Lists processes of this node. Used on the event loop."""

    def __init__(
        self,
        callers: CallerResolver,
        pods: PodDirectory,
        resources: ResourceDirectory,
        reads: ReadPool,
        bounds: ListingBounds | None = None,
    ) -> None:
        self._callers = callers
        self._pods = pods
        self._resources = resources
        self._reads = reads
        self._bounds = bounds or ListingBounds()

    async def run(self, request: api.ListProcessesRequest, seconds: float, send: Send) -> None:
        """Send the processes of the requested pod, of every pod if none is requested.

        `seconds` is how long to wait for what the kubelet allocated. Raises `NotFound` for no pod
        of that name, `Unavailable` without a pod list.
        """
        pod_list = await self._pods.refresh()
        is_one = bool(request.namespace or request.name)
        pods = [named(pod_list, request.namespace, request.name)] if is_one else by_name(pod_list)
        containers = await self._callers.directories.containers_by_pod()
        directories = await self._callers.directories.pods()
        await send(await self._exclusive_cpus(seconds))
        boot = await self._reads.run("", boot_seconds, "/proc/stat")
        left = Quota(self._bounds.processes, self._bounds.threads)
        for pod in pods:
            uid = normalise_uid(pod.cgroup_uid)
            listing = _PodListing(pod, request.threads, boot)
            found = _Cgroups(directories.get(uid), containers.get(uid, {}))
            await self._send_pod(listing, found, left, send)

    async def _exclusive_cpus(self, seconds: float) -> api.ListProcessesResponse:
        """Return the first message."""
        answer = api.ListProcessesResponse()
        try:
            async with asyncio.timeout(seconds):
                await self._resources.refresh()
            found = self._resources.exclusive_cpus()
        except TimeoutError:
            answer.errors.append(part_error("exclusive_cpus", _too_late()))
        except AgentError as error:
            answer.errors.append(part_error("exclusive_cpus", error))
        else:
            answer.exclusive_cpus.SetInParent()
            for (namespace, pod, container), cpus in found.items():
                answer.exclusive_cpus.containers.add(
                    namespace=namespace, pod=pod, container=container, cpus=format_cpu_list(cpus)
                )
        return answer

    async def _send_pod(
        self, listing: _PodListing, cgroups: _Cgroups, left: Quota, send: Send
    ) -> None:
        """Send a pod's processes; parts that cannot be read are among the errors of its last."""
        processes = min(self._bounds.pod_processes, left.processes)
        threads = min(self._bounds.pod_threads, left.threads)
        quota = Quota(processes, threads)
        errors: list[netutil_pb2.PartError] = []
        lane = _LANE.format(listing.pod.cgroup_uid)
        for container_id, directory in cgroups.in_order():
            read = f"{directory}/cgroup.procs"
            slices = read_cgroup(
                directory,
                quota,
                with_threads=listing.with_threads,
                boot_seconds=listing.boot,
                skips=_of_no_container if container_id else names_a_container,
            )
            following = partial(next, slices, None)
            try:
                while (part := await self._reads.run(lane, following, read)) is not None:
                    await send(listing.message(part, container_id))
                    await asyncio.sleep(part.cost_seconds)  # at most half a CPU, beside calls
            except AgentError as error:
                errors.append(part_error("processes", error))
                if error.reason is Reason.READ_TIMED_OUT:
                    break  # that read keeps the lane
            except OSError as error:
                errors.append(
                    part_error("processes", unreadable(error, str(error.filename or read)))
                )
        errors.extend(_not_found(listing.pod, cgroups.containers))
        left.processes -= processes - quota.processes
        left.threads -= threads - quota.threads
        if quota.hidden:
            errors.append(part_error("processes", _hidden(quota.hidden)))
        await send(listing.last(quota, errors))


@dataclass(frozen=True, slots=True)
class _Cgroups:
    """The directories of a pod: its own, None for a pod without one, and its containers' by ID."""

    pod: str | None
    containers: Mapping[str, str]

    def in_order(self) -> Iterator[tuple[str, str]]:
        """Yield the containers by ID, then the pod's own directory with "" for the ID.

        In the pod's own are processes of its runtime: a monitor, a virtual machine.
        """
        yield from sorted(self.containers.items())
        if self.pod is not None:
            yield "", self.pod


def _of_no_container(name: str) -> bool:
    """Return that nothing below a container is left out, whatever its name is."""
    del name
    return False


@dataclass(frozen=True, slots=True)
class _PodListing:
    """What the messages of one pod have in common."""

    pod: Pod
    with_threads: bool
    boot: float

    def message(self, part: Slice, container_id: str) -> api.ListProcessesResponse:
        """Return a slice as a message."""
        names = {status.id: status.name for _, status in self.pod.container_statuses}
        answer = self._empty()
        answer.read_at_seconds = part.read_at_seconds
        for one in part.processes:
            process = _process(one)
            process.container, process.container_id = names.get(container_id, ""), container_id
            answer.processes.append(process)
        return answer

    def last(self, quota: Quota, errors: list[netutil_pb2.PartError]) -> api.ListProcessesResponse:
        """Return the last message: what is missing."""
        answer = self._empty()
        answer.processes_truncated = quota.processes_truncated
        answer.threads_truncated = quota.threads_truncated
        answer.errors.extend(errors)
        return answer

    def _empty(self) -> api.ListProcessesResponse:
        metadata = self.pod.metadata
        return api.ListProcessesResponse(namespace=metadata.namespace, pod=metadata.name)


def _process(one: ProcessFacts) -> api.NodeProcess:
    answer = api.NodeProcess(
        pid=one.number,
        pid_inside=one.number_inside,
        name=to_valid_utf8(one.name),
        state=one.state,
        thread_count=one.thread_count,
        allowed_cpus=one.allowed_cpus or "",
        cpu=one.cpu,
        cpu_seconds=one.cpu_seconds,
        rss_bytes=one.rss_bytes,
        start_ticks=one.start_ticks,
        threads=map(_thread, one.threads),
        error=one.error,
    )
    answer.started_at.FromNanoseconds(round(one.started_seconds * 1e9))
    return answer


def _thread(one: ThreadFacts) -> api.NodeThread:
    return api.NodeThread(
        tid=one.number,
        tid_inside=one.number_inside,
        name=to_valid_utf8(one.name),
        state=one.state,
        allowed_cpus=one.allowed_cpus or "",
        cpu=one.cpu,
        cpu_seconds=one.cpu_seconds,
        start_ticks=one.start_ticks,
        error=one.error,
    )


def _not_found(pod: Pod, containers: Mapping[str, str]) -> Iterator[netutil_pb2.PartError]:
    """Yield an error for each container that runs by the pod list and has no cgroup."""
    for _, status in pod.container_statuses:
        if status.state_name == "running" and status.id not in containers:
            error = FailedPrecondition(
                Reason.CPUSET_NOT_FOUND,
                f"The pod list says that container {status.name!r:.256} runs, and the agent found"
                " no cgroup of it.",
                read="the host's cgroups",
                advice="A container that has just ended is listed a while longer. If a runtime"
                " names cgroups without the UID of the pod, its processes are not listed.",
            )
            yield part_error("processes", error)


def _too_late() -> AgentError:
    return Unavailable(
        Reason.POD_RESOURCES_UNAVAILABLE,
        "The kubelet's PodResources did not come within the time that the caller has.",
        read="PodResources",
        advice="Try again; the agent goes on waiting for the kubelet.",
    )


def _hidden(number: int) -> AgentError:
    return Unauthenticated(
        Reason.PEER_NOT_VISIBLE,
        f"{number} processes have no number in the agent's PID namespace.",
        read="cgroup.procs of the containers",
        advice="Set hostPID: true in the agent's DaemonSet.",
    )
