"""The service on the public socket: each method identifies, gathers and answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import Message
from netutil.agent.door.table import Connection
from netutil.agent.errors import AgentError
from netutil.agent.facts.network import ensure_interface_name, of_interface
from netutil.agent.service import answers, device_answers
from netutil.agent.service.caller import Caller, Callers
from netutil.agent.service.calls import Answering, wait_seconds
from netutil.agent.service.gather import Gathering, variables
from netutil.agent.service.status import part_error
from netutil.agent.service.unfinished import Context
from netutil.v1alpha import netutil_pb2 as api
from netutil.v1alpha import netutil_pb2_grpc

T = TypeVar("T", bound=Message)


class NetUtil(netutil_pb2_grpc.NetUtilServicer):
    """`v1alpha.NetUtil`, for the caller's own pod only."""

    def __init__(self, callers: Callers, gathering: Gathering, answering: Answering) -> None:
        self._callers = callers
        self._gather = gathering
        self._answering = answering

    async def GetCPUInfo(self, request: api.CPURequest, context: Context) -> api.CPUResponse:
        """Return the CPUs of the process's container."""

        async def body(caller: Caller) -> api.CPUResponse:
            return await self._cpu(caller, request, wait_seconds(context))

        return await self._answer("GetCPUInfo", context, body)

    async def GetEnv(self, request: api.EnvRequest, context: Context) -> api.EnvResponse:
        """Return the environment the process was started with."""

        async def body(caller: Caller) -> api.EnvResponse:
            return await self._env(caller, request)

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
        pid, seconds = request.pid, wait_seconds(context)

        async def body(caller: Caller) -> api.AllResponse:
            everything: dict[str, Awaitable[Message]] = {
                "pod": self._pod(caller, api.PodRequest(pid=pid), seconds),
                "cpu": self._cpu(caller, api.CPURequest(pid=pid, topology=True), seconds),
                "env": self._env(caller, api.EnvRequest(pid=pid)),
                "network": self._network(caller, api.NetworkStatusRequest(pid=pid)),
                "interfaces": self._interfaces(caller, api.InterfacesRequest(pid=pid)),
                "hugepages": self._hugepages(caller, api.HugepagesRequest(pid=pid)),
                "resources": self._resources(caller, api.ResourceRequest(pid=pid), seconds),
            }
            found = await asyncio.gather(*everything.values(), return_exceptions=True)
            response = api.AllResponse()
            for name, part in zip(everything, found, strict=True):
                if isinstance(part, AgentError):
                    response.errors.append(part_error(name, part))
                elif isinstance(part, BaseException):
                    raise part
                else:
                    getattr(response, name).CopyFrom(part)
            return response

        return await self._answer("GetAll", context, body, need_container=True)

    async def _answer(
        self,
        method: str,
        context: Context,
        body: Callable[[Caller], Awaitable[T]],
        *,
        interface: str = "",
        need_container: bool = False,
    ) -> T:
        async def identified(connection: Connection) -> T:
            if interface:
                ensure_interface_name(interface)
            seconds = wait_seconds(context)
            caller = await self._callers.identify(
                connection, seconds, need_container=need_container
            )
            return await body(caller)

        return await self._answering.answer(method, context, identified)

    async def _cpu(
        self, caller: Caller, request: api.CPURequest, seconds: float
    ) -> api.CPUResponse:
        found = await self._gather.cpus(caller, request.pid)
        response = answers.cpu(found.facts, found.affinity)
        if request.topology:
            await self._add_topology(response, caller, request.pid, seconds)
        return response

    async def _add_topology(
        self, response: api.CPUResponse, caller: Caller, pid: str, seconds: float
    ) -> None:
        exclusive = None
        try:
            exclusive = (await self._gather.resources(caller, pid, seconds)).cpu_ids
        except AgentError as error:
            response.resources_error.CopyFrom(part_error("exclusive_cpus", error))
        cpus = await self._gather.topology(response.cpuset)
        device_answers.add_topology(response, cpus, exclusive)

    async def _env(self, caller: Caller, request: api.EnvRequest) -> api.EnvResponse:
        found = await self._gather.environment(caller, request.pid)
        return answers.environment(found, variables(found, request.key))

    async def _network(
        self, caller: Caller, request: api.NetworkStatusRequest
    ) -> api.NetworkStatusResponse:
        networks = await self._gather.networks(caller, request.pid)
        return answers.network(of_interface(networks, request.int), caller.known)

    async def _pod(
        self, caller: Caller, request: api.PodRequest, seconds: float
    ) -> api.PodResponse:
        match, container_id = await self._gather.match(caller, request.pid, seconds)
        return answers.pod(match, container_id)

    async def _resources(
        self, caller: Caller, request: api.ResourceRequest, seconds: float
    ) -> api.ResourceResponse:
        found = await self._gather.resources(caller, request.pid, seconds)
        return device_answers.resources(found)

    async def _interfaces(
        self, caller: Caller, request: api.InterfacesRequest
    ) -> api.InterfacesResponse:
        found = await self._gather.interfaces(caller, request.pid, request.int)
        return device_answers.interfaces(found)

    async def _hugepages(
        self, caller: Caller, request: api.HugepagesRequest
    ) -> api.HugepagesResponse:
        found = await self._gather.hugepages(caller, request.pid)
        return device_answers.hugepages(found)
