"""Servicer of `v1alpha.NetUtil`: each method identifies the caller, collects and answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NoReturn, TypeVar

from google.protobuf.message import Message
from netutil.agent.api.call_runner import CallRunner, Context, Rejections, wait_seconds
from netutil.agent.collect.caller import Caller, CallerResolver
from netutil.agent.collect.collector import Collector, EnvironmentRead, variables
from netutil.agent.collect.environment_cache import HeldEnvironment
from netutil.agent.collect.results import Allocated
from netutil.agent.connections.registry import Connection
from netutil.agent.errors import (
    AgentError,
    InvalidArgument,
    PermissionDenied,
    QuotaExceeded,
    unreadable,
)
from netutil.agent.facts.network import ensure_interface_name, network_characters
from netutil.agent.grpcserver import EncodedMessage
from netutil.agent.messages import convert_devices, encode
from netutil.agent.messages.encode import Answer, Send
from netutil.agent.messages.encode_interfaces import INTERFACES
from netutil.agent.messages.status import part_error
from netutil.agent.watch.stream import SnapshotStreams
from netutil.v1alpha import netutil_pb2 as api
from netutil.v1alpha import netutil_pb2_grpc

R = TypeVar(
    "R",
    api.CPURequest,
    api.EnvRequest,
    api.NetworkStatusRequest,
    api.PodRequest,
    api.ResourceRequest,
    api.InterfacesRequest,
    api.HugepagesRequest,
)
Collect = Callable[[Caller, R, Context], Answer | Awaitable[Answer]]
"""Makes the answer to a request for a caller, at once or as a coroutine."""
_Makers = dict[str, Callable[[], Answer | Awaitable[Answer]]]
_REJECTIONS = (PermissionDenied, InvalidArgument, QuotaExceeded)
"""Errors of a part of an answer that somebody may be probing for."""
_ALL_SECONDS = 0.0005
"""Loop time that GetAll takes."""


class NetUtil(netutil_pb2_grpc.NetUtilServicer):
    """`v1alpha.NetUtil`, for the caller's own pod only."""

    def __init__(
        self,
        callers: CallerResolver,
        collector: Collector,
        runner: CallRunner,
        watches: SnapshotStreams,
        rejections: Rejections,
    ) -> None:
        self._callers = callers
        self._gather = collector
        self._runner = runner
        self._watches = watches
        self._rejections = rejections

    def GetCPUInfo(self, request: api.CPURequest, context: Context) -> Any:
        """Return the CPUs of the process's container."""
        # Exclusive CPUs are found by the container's name, which a new container has only after a
        # while.
        return self._answer("GetCPUInfo", request, context, self._cpu_of_call, request.topology)

    def GetEnv(self, request: api.EnvRequest, context: Context) -> Any:
        """Return the environment the process was started with."""
        return self._answer("GetEnv", request, context, self._env_of_call)

    def GetNetworkStatus(self, request: api.NetworkStatusRequest, context: Context) -> Any:
        """Return the pod's networks."""
        return self._answer("GetNetworkStatus", request, context, self._network_of_call)

    def GetPod(self, request: api.PodRequest, context: Context) -> Any:
        """Return the pod and the container of the process."""
        return self._answer("GetPod", request, context, self._pod_of_call, need_container=True)

    def GetResource(self, request: api.ResourceRequest, context: Context) -> Any:
        """Return what the kubelet allocated to the process's container."""
        return self._answer(
            "GetResource", request, context, self._resources_of_call, need_container=True
        )

    def GetInterfaces(self, request: api.InterfacesRequest, context: Context) -> Any:
        """Return the pod's interfaces as reported and as they are."""
        return self._answer("GetInterfaces", request, context, self._interfaces_of_call)

    def GetHugepages(self, request: api.HugepagesRequest, context: Context) -> Any:
        """Return the huge pages of the pod, the container and the node."""
        return self._answer("GetHugepages", request, context, self._hugepages_of_call)

    def GetAll(self, request: api.AllRequest, context: Context) -> Any:
        """Return everything; a part that fails is an entry of `errors`."""

        async def body(connection: Connection) -> EncodedMessage:
            caller = self._callers.identified(connection)
            if caller is not None:
                _drop_own_pid(caller, request)
            else:
                caller = await self._callers.identify(
                    connection, wait_seconds(context), need_container=True
                )
            parts = await self.parts(caller, request.pid, wait_seconds(context))
            return encode.everything(parts)

        return self._runner.answer_in_turn("GetAll", context, body, _ALL_SECONDS)

    async def Watch(  # type: ignore[override]  # it writes to the context instead of yielding
        self, request: api.WatchRequest, context: Context
    ) -> None:
        """Send the caller's snapshot, and a new one whenever it changes."""

        async def body(connection: Connection, send: Send) -> NoReturn:
            await self._watches.run(connection, request, send, self.parts)

        await self._runner.stream("Watch", context, body)

    def _answer(
        self,
        method: str,
        request: R,
        context: Context,
        collect: Collect[R],
        need_container: bool = False,
    ) -> Any:
        """Return what `collect` makes for the caller of a call, as a handler may return it."""
        return self._runner.answer(
            method, context, self._of_connection, request, context, collect, need_container
        )

    def _of_connection(
        self,
        connection: Connection,
        request: R,
        context: Context,
        collect: Collect[R],
        need_container: bool,
    ) -> Answer | Awaitable[Answer]:
        caller = self._callers.identified(connection)
        if caller is None:
            return self._of_identified(connection, request, context, collect, need_container)
        if request.pid:
            _drop_own_pid(caller, request)
        return collect(caller, request, context)

    async def _of_identified(
        self,
        connection: Connection,
        request: R,
        context: Context,
        collect: Collect[R],
        need_container: bool,
    ) -> Answer:
        seconds = wait_seconds(context)
        caller = await self._callers.identify(connection, seconds, need_container=need_container)
        found = collect(caller, request, context)
        return found if isinstance(found, Message | EncodedMessage) else await found

    async def parts(
        self,
        caller: Caller,
        pid: str,
        seconds: float,
        environment: EnvironmentRead | None = None,
        *,
        each_cpu: bool = True,
    ) -> encode.Parts:
        """Return each part, or its error. Raises what is no refusal and no failure to read.

        `environment` is what was read of it before. What is held is answered at once; only the
        rest is waited for. Without `each_cpu` the exclusive CPUs are returned, but not the topology
        of each.
        """
        read = environment or await self._gather.environment_and_devices(caller, pid)
        parts: dict[str, Answer | AgentError] = {}
        for group in self._stages(caller, pid, seconds, read, each_cpu=each_cpu):
            for name, part in (await _made(group)).items():
                parts[name] = _part(name, part)
        self._record_rejections(caller, parts)
        return parts

    def _stages(
        self, caller: Caller, pid: str, seconds: float, read: EnvironmentRead, *, each_cpu: bool
    ) -> tuple[_Makers, ...]:
        """Return what makes each part; those of a group are made at once.

        All at once would keep the loop and the interpreter's lock from everybody else for
        milliseconds where nothing is held (make hostile). But reads that hang hang together, and
        what may wait for the kubelet, for most of the deadline, is last.
        """
        found, allocated = read
        first: _Makers = {
            "network": partial(self._network, caller, pid),
            "hugepages": partial(self._hugepages, caller, pid),
        }
        if found is not None:
            first["env"] = partial(self._env, caller, found)
        then: _Makers = {"interfaces": partial(self._all_interfaces, caller, pid, allocated)}
        last: _Makers = {
            "pod": partial(self._pod, caller, pid, seconds),
            "cpu": partial(self._cpu_with_topology, caller, pid, seconds, each_cpu),
            "resources": partial(self._resources, caller, pid, seconds),
        }
        return (first | then | last,) if isinstance(found, AgentError) else (first, then, last)

    def _record_rejections(self, caller: Caller, parts: encode.Parts) -> None:
        """Record the parts that are refused, each reason once."""
        refused: dict[str, tuple[str, AgentError]] = {}
        for name in encode.PARTS:
            part = parts.get(name)
            if isinstance(part, _REJECTIONS):
                refused.setdefault(part.reason, (name, part))
        for name, error in refused.values():
            self._rejections.record_part(name, caller.peer, error)

    def _cpu_of_call(
        self, caller: Caller, request: api.CPURequest, context: Context
    ) -> Answer | Awaitable[Answer]:
        if request.topology:
            return self._cpu_with_topology(caller, request.pid, wait_seconds(context))
        if request.pid:
            return self._cpu(caller, request.pid)
        return encode.cpus(self._gather.own_cpus(caller))

    async def _cpu(self, caller: Caller, pid: str) -> Answer:
        return encode.cpus(await self._gather.cpus(caller, pid))

    def _cpu_with_topology(
        self, caller: Caller, pid: str, seconds: float, each_cpu: bool = True
    ) -> Answer | Awaitable[Answer]:
        known = None if pid else self._known_cpu(caller, each_cpu)
        return known or self._read_cpu(caller, pid, seconds, each_cpu)

    def _known_cpu(self, caller: Caller, each_cpu: bool) -> Answer | None:
        resources = self._gather.known_resources(caller)
        if resources is None:
            return None
        found = self._gather.own_cpus(caller, partition=True)
        cpus = self._gather.known_topology(found.facts.cpuset) if each_cpu else ()
        if cpus is None:
            return None
        return encode.cpus_with_topology(found, cpus, resources.cpu_ids)

    async def _read_cpu(self, caller: Caller, pid: str, seconds: float, each_cpu: bool) -> Answer:
        found = await self._gather.cpus(caller, pid, partition=True)
        response = convert_devices.cpus(found)
        exclusive = None
        try:
            exclusive = (await self._gather.resources(caller, pid, seconds)).cpu_ids
        except AgentError as error:
            response.resources_error.CopyFrom(part_error("exclusive_cpus", error))
        cpus = await self._gather.topology(caller, response.cpuset) if each_cpu else ()
        convert_devices.add_topology(response, cpus, exclusive)
        return response

    async def _env_of_call(
        self, caller: Caller, request: api.EnvRequest, context: Context
    ) -> Answer:
        del context
        found = await self._gather.environment(caller, request.pid)
        if request.key:
            return await self._variables(caller, found, request.key)
        return found.answer or await self._variables(caller, found, "")

    def _env(
        self, caller: Caller, found: HeldEnvironment | AgentError
    ) -> Answer | Awaitable[Answer]:
        """Return the answer about an environment that was read."""
        if isinstance(found, AgentError):
            raise found
        return found.answer or self._variables(caller, found, "")

    async def _variables(self, caller: Caller, found: HeldEnvironment, key: str) -> EncodedMessage:
        wanted = variables(found.environment, key)
        write = partial(encode.environment, found.environment, wanted)
        # A variable alone may have megabytes.
        size = len(wanted) if found.may_be_held else None
        answer = await self._gather.run_offloaded(caller, write, size)
        if not key:
            found.answer = answer
        return answer

    def _network_of_call(
        self, caller: Caller, request: api.NetworkStatusRequest, context: Context
    ) -> Answer | Awaitable[Answer]:
        del context
        if not request.int:
            return self._network(caller, request.pid)
        ensure_interface_name(request.int)
        return self._read_network(caller, request.pid, request.int)

    def _network(self, caller: Caller, pid: str) -> Answer | Awaitable[Answer]:
        known = None if pid else encode.known_network(caller.require_match())
        return known or self._read_network(caller, pid, "")

    async def _read_network(self, caller: Caller, pid: str, interface: str) -> Answer:
        networks = await self._gather.networks(caller, pid, interface)
        match = caller.require_match()
        write = partial(encode.network, networks, match)
        size = network_characters(match.pod.metadata.annotations or {})
        answer = await self._gather.run_offloaded(caller, write, size)
        if not interface:
            encode.keep_network(match, answer)
        return answer

    def _pod_of_call(
        self, caller: Caller, request: api.PodRequest, context: Context
    ) -> Answer | Awaitable[Answer]:
        if request.pid:
            return self._read_pod(caller, request.pid, wait_seconds(context))
        return encode.pod(caller.require_match(), caller.cgroups.container_id or "")

    def _pod(self, caller: Caller, pid: str, seconds: float) -> Answer | Awaitable[Answer]:
        if pid:
            return self._read_pod(caller, pid, seconds)
        return encode.pod(caller.require_match(), caller.cgroups.container_id or "")

    async def _read_pod(self, caller: Caller, pid: str, seconds: float) -> Answer:
        match, container_id = await self._gather.match(caller, pid, seconds)
        return encode.pod(match, container_id)

    def _resources_of_call(
        self, caller: Caller, request: api.ResourceRequest, context: Context
    ) -> Answer | Awaitable[Answer]:
        return self._resources(caller, request.pid, wait_seconds(context))

    def _resources(self, caller: Caller, pid: str, seconds: float) -> Answer | Awaitable[Answer]:
        found = None if pid else self._gather.known_resources(caller)
        functions = self._gather.known_functions(found) if found is not None else None
        if found is None or functions is None:
            return self._read_resources(caller, pid, seconds)
        return encode.resources(found, functions)

    async def _read_resources(self, caller: Caller, pid: str, seconds: float) -> EncodedMessage:
        found = await self._gather.resources(caller, pid, seconds)
        functions = await self._gather.given_functions(caller, found)
        return encode.resources(found, functions)

    def _interfaces_of_call(
        self, caller: Caller, request: api.InterfacesRequest, context: Context
    ) -> Awaitable[Answer]:
        del context
        if request.int:
            ensure_interface_name(request.int)
        return self._gather.interfaces(caller, request.pid, request.int, INTERFACES)

    def _all_interfaces(
        self, caller: Caller, pid: str, allocated: Allocated
    ) -> Answer | Awaitable[Answer]:
        """Return the answer about all interfaces; `allocated` is what was read before."""
        known = None if pid else self._gather.known_interfaces(caller, INTERFACES, allocated)
        return known or self._gather.interfaces(caller, pid, "", INTERFACES, allocated)

    def _hugepages_of_call(
        self, caller: Caller, request: api.HugepagesRequest, context: Context
    ) -> Answer | Awaitable[Answer]:
        del context
        return self._hugepages(caller, request.pid)

    def _hugepages(self, caller: Caller, pid: str) -> Answer | Awaitable[Answer]:
        found = None if pid else self._gather.own_hugepages(caller)
        return self._read_hugepages(caller, pid) if found is None else encode.hugepages(found)

    async def _read_hugepages(self, caller: Caller, pid: str) -> Answer:
        return encode.hugepages(await self._gather.hugepages(caller, pid))


def _drop_own_pid(caller: Caller, request: R | api.AllRequest) -> None:
    """Clear a request's pid where it is the caller's own: nothing has to be found then.

    For a caller that was `identified`, whose process runs.
    """
    if caller.peer.process.has_number(request.pid):
        request.pid = ""


async def _made(group: _Makers) -> dict[str, Answer | BaseException]:
    """Return what makes the parts of a group, or what it raises. All that waits waits at once."""
    made: dict[str, Answer | BaseException] = {}
    waiting: dict[str, Awaitable[Answer]] = {}
    for name, make in group.items():
        try:
            found = make()
        except Exception as error:  # noqa: BLE001 - for who called, once nothing waits any more
            made[name] = error
            continue
        if isinstance(found, EncodedMessage | Message):
            made[name] = found
        else:
            waiting[name] = found
    if waiting:
        answers = await asyncio.gather(*waiting.values(), return_exceptions=True)
        made.update(zip(waiting, answers, strict=True))
    return made


def _part(name: str, made: Answer | BaseException) -> Answer | AgentError:
    """Return a part, or its error. Raises what is no refusal and no failure to read."""
    if isinstance(made, OSError):
        made = unreadable(made, str(made.filename or name))
    if isinstance(made, BaseException) and not isinstance(made, AgentError):
        raise made
    return made
