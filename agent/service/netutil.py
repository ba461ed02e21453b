"""The service on the public socket: each method identifies, gathers and answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NoReturn, TypeVar, cast

from google.protobuf.message import Message
from netutil.agent.collect.environment_cache import HeldEnvironment
from netutil.agent.connections.registry import Connection
from netutil.agent.errors import AgentError, Denied, Invalid, OverLimit, unreadable
from netutil.agent.facts.network import ensure_interface_name, network_characters
from netutil.agent.service import answers, device_answers
from netutil.agent.service.caller import Caller, Callers
from netutil.agent.service.calls import Answering, Send, wait_seconds
from netutil.agent.service.context import Context
from netutil.agent.service.gather import EnvironmentRead, Gathering, variables
from netutil.agent.service.gathered import Allocated
from netutil.agent.service.refusals import Refusals
from netutil.agent.service.status import part_error
from netutil.agent.service.watch import Watches
from netutil.v1alpha import netutil_pb2 as api
from netutil.v1alpha import netutil_pb2_grpc

T = TypeVar("T", bound=Message)
_Parts = dict[str, Callable[[], Awaitable[Message]]]
_REFUSALS = (Denied, Invalid, OverLimit)
"""Errors of a part of an answer that somebody may be probing for."""
_ALL_SECONDS = 0.0005
"""Loop time that GetAll takes."""


class NetUtil(netutil_pb2_grpc.NetUtilServicer):
    """`v1alpha.NetUtil`, for the caller's own pod only."""

    def __init__(
        self,
        callers: Callers,
        gathering: Gathering,
        answering: Answering,
        watches: Watches,
        refusals: Refusals,
    ) -> None:
        self._callers = callers
        self._gather = gathering
        self._answering = answering
        self._watches = watches
        self._refusals = refusals

    async def GetCPUInfo(self, request: api.CPURequest, context: Context) -> api.CPUResponse:
        """Return the CPUs of the process's container."""

        async def body(caller: Caller) -> api.CPUResponse:
            return await self._cpu(caller, request, wait_seconds(context))

        # Exclusive CPUs are told by the container's name, which a new one has only after a while.
        return await self._answer("GetCPUInfo", context, body, need_container=request.topology)

    async def GetEnv(self, request: api.EnvRequest, context: Context) -> api.EnvResponse:
        """Return the environment the process was started with."""

        async def body(caller: Caller) -> api.EnvResponse:
            found = await self._gather.environment(caller, request.pid)
            return await self._env(caller, found, request.key)

        return await self._answer("GetEnv", context, body)

    async def GetNetworkStatus(
        self, request: api.NetworkStatusRequest, context: Context
    ) -> api.NetworkStatusResponse:
        """Return the pod's networks."""

        async def body(caller: Caller) -> api.NetworkStatusResponse:
            return await self._network(caller, request)

        return await self._answer("GetNetworkStatus", context, body, interface=request.int)

    async def GetPod(self, request: api.PodRequest, context: Context) -> api.PodResponse:
        """Return the pod and the container of the process."""

        async def body(caller: Caller) -> api.PodResponse:
            return await self._pod(caller, request, wait_seconds(context))

        return await self._answer("GetPod", context, body, need_container=True)

    async def GetResource(
        self, request: api.ResourceRequest, context: Context
    ) -> api.ResourceResponse:
        """Return what the kubelet allocated to the process's container."""

        async def body(caller: Caller) -> api.ResourceResponse:
            return await self._resources(caller, request, wait_seconds(context))

        return await self._answer("GetResource", context, body, need_container=True)

    async def GetInterfaces(
        self, request: api.InterfacesRequest, context: Context
    ) -> api.InterfacesResponse:
        """Return the pod's interfaces as reported and as they are."""

        async def body(caller: Caller) -> api.InterfacesResponse:
            return await self._interfaces(caller, request)

        return await self._answer("GetInterfaces", context, body, interface=request.int)

    async def GetHugepages(
        self, request: api.HugepagesRequest, context: Context
    ) -> api.HugepagesResponse:
        """Return the huge pages of the pod, the container and the node."""

        async def body(caller: Caller) -> api.HugepagesResponse:
            return await self._hugepages(caller, request)

        return await self._answer("GetHugepages", context, body)

    async def GetAll(self, request: api.AllRequest, context: Context) -> api.AllResponse:
        """Return everything; a part that fails is an entry of `errors`."""

        async def body(caller: Caller) -> api.AllResponse:
            return await self.all_facts(caller, request.pid, wait_seconds(context))

        return await self._answer(
            "GetAll", context, body, need_container=True, loop_seconds=_ALL_SECONDS
        )

    async def Watch(  # type: ignore[override]  # it writes to the context instead of yielding
        self, request: api.WatchRequest, context: Context
    ) -> None:
        """Send the caller's snapshot, and a new one whenever it changes."""

        async def body(connection: Connection, send: Send) -> NoReturn:
            await self._watches.run(connection, request, send, self.all_facts)

        await self._answering.stream("Watch", context, body)

    async def _answer(
        self,
        method: str,
        context: Context,
        body: Callable[[Caller], Awaitable[T]],
        *,
        interface: str = "",
        need_container: bool = False,
        loop_seconds: float = 0.0,
    ) -> T:
        async def identified(connection: Connection) -> T:
            if interface:
                ensure_interface_name(interface)
            seconds = wait_seconds(context)
            caller = await self._callers.identify(
                connection, seconds, need_container=need_container
            )
            return await body(caller)

        return await self._answering.answer(method, context, identified, loop_seconds)

    async def all_facts(
        self,
        caller: Caller,
        pid: str,
        seconds: float,
        *,
        environment: EnvironmentRead | None = None,
        each_cpu: bool = True,
    ) -> api.AllResponse:
        """Return every part; one that fails is an entry of `errors`.

        `environment` is what was read of it before. Without `each_cpu` the exclusive CPUs are
        told, but not the topology of each.
        """
        read = environment or await self._gather.environment_and_devices(caller, pid)
        parts: dict[str, Message | BaseException] = {}
        for group in self._groups(caller, pid, seconds, read, each_cpu=each_cpu):
            made = await asyncio.gather(
                *(make() for make in group.values()), return_exceptions=True
            )
            parts |= dict(zip(group, made, strict=True))
        return self._together(caller, parts)

    def _groups(
        self, caller: Caller, pid: str, seconds: float, read: EnvironmentRead, *, each_cpu: bool
    ) -> tuple[_Parts, ...]:
        """Return what makes each part; those of a group are made at once.

        All at once would keep the loop and the interpreter's lock from everybody else for
        milliseconds (make hostile). But reads that hang hang together, and what may wait for the
        kubelet, for most of the deadline, is last.
        """
        found, allocated = read
        first: _Parts = {
            "network": partial(self._network, caller, api.NetworkStatusRequest(pid=pid)),
            "hugepages": partial(self._hugepages, caller, api.HugepagesRequest(pid=pid)),
        }
        if found is not None:
            first["env"] = partial(self._env, caller, found, "")
        request = api.InterfacesRequest(pid=pid)
        then: _Parts = {"interfaces": partial(self._interfaces, caller, request, allocated)}
        cpu = api.CPURequest(pid=pid, topology=True)
        last: _Parts = {
            "pod": partial(self._pod, caller, api.PodRequest(pid=pid), seconds),
            "cpu": partial(self._cpu, caller, cpu, seconds, each_cpu),
            "resources": partial(self._resources, caller, api.ResourceRequest(pid=pid), seconds),
        }
        return (first | then | last,) if isinstance(found, AgentError) else (first, then, last)

    def _together(
        self, caller: Caller, parts: dict[str, Message | BaseException]
    ) -> api.AllResponse:
        """Return the parts as one answer. Raises what is no refusal and no failure to read."""
        response = api.AllResponse()
        refused: dict[str, tuple[str, AgentError]] = {}
        for name in filter(parts.__contains__, response.DESCRIPTOR.fields_by_name):
            part = parts[name]
            if isinstance(part, OSError):
                part = unreadable(part, str(part.filename or name))
            if isinstance(part, AgentError):
                response.errors.append(part_error(name, part))
                if isinstance(part, _REFUSALS):
                    refused.setdefault(part.reason, (name, part))
            elif isinstance(part, BaseException):
                raise part
            else:
                getattr(response, name).CopyFrom(part)
        for name, error in refused.values():
            self._refusals.part(name, caller.peer, error)
        return response

    async def _cpu(
        self, caller: Caller, request: api.CPURequest, seconds: float, each_cpu: bool = True
    ) -> api.CPUResponse:
        found = await self._gather.cpus(caller, request.pid, partition=request.topology)
        answer = device_answers.cpus(found)
        if not request.topology:
            return answer
        response = api.CPUResponse()
        response.CopyFrom(answer)
        await self._add_topology(response, caller, request.pid, seconds, each_cpu)
        return response

    async def _add_topology(
        self, response: api.CPUResponse, caller: Caller, pid: str, seconds: float, each_cpu: bool
    ) -> None:
        exclusive = None
        try:
            exclusive = (await self._gather.resources(caller, pid, seconds)).cpu_ids
        except AgentError as error:
            response.resources_error.CopyFrom(part_error("exclusive_cpus", error))
        cpus = await self._gather.topology(caller, response.cpuset) if each_cpu else ()
        device_answers.add_topology(response, cpus, exclusive)

    async def _env(
        self, caller: Caller, found: HeldEnvironment | AgentError, key: str
    ) -> api.EnvResponse:
        if isinstance(found, AgentError):
            raise found
        if not key and found.answer is not None:
            return cast(api.EnvResponse, found.answer)
        wanted = variables(found.environment, key)
        write = partial(answers.environment, found.environment, wanted)
        answer = await self._gather.worked_out(caller, write, len(wanted))
        if not key:
            found.answer = answer
        return answer

    async def _network(
        self, caller: Caller, request: api.NetworkStatusRequest
    ) -> api.NetworkStatusResponse:
        networks = await self._gather.networks(caller, request.pid, request.int)
        match = caller.known
        write = partial(answers.network, networks, match)
        size = network_characters(match.pod.metadata.annotations or {})
        return await self._gather.worked_out(caller, write, size)

    async def _pod(
        self, caller: Caller, request: api.PodRequest, seconds: float
    ) -> api.PodResponse:
        match, container_id = await self._gather.match(caller, request.pid, seconds)
        return answers.pod(match, container_id)

    async def _resources(
        self, caller: Caller, request: api.ResourceRequest, seconds: float
    ) -> api.ResourceResponse:
        found = await self._gather.resources(caller, request.pid, seconds)
        functions = await self._gather.given_functions(caller, found)
        return device_answers.resources(found, functions)

    async def _interfaces(
        self,
        caller: Caller,
        request: api.InterfacesRequest,
        allocated: Allocated | None = None,
    ) -> api.InterfacesResponse:
        return await self._gather.interfaces(
            caller, request.pid, request.int, device_answers.INTERFACES, allocated
        )

    async def _hugepages(
        self, caller: Caller, request: api.HugepagesRequest
    ) -> api.HugepagesResponse:
        found = await self._gather.hugepages(caller, request.pid)
        return device_answers.hugepages(found)
