"""Servicer of `v1alpha.NetUtil`: each method identifies the caller, collects and answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

from google.protobuf.message import Message
from netutil.agent.api.call_runner import CallRunner, Context, wait_seconds
from netutil.agent.collect.caller import Caller, CallerResolver
from netutil.agent.collect.collector import Collector
from netutil.agent.collect.environment_cache import HeldEnvironment
from netutil.agent.collect.read_pool import Ready
from netutil.agent.connections.registry import Connection
from netutil.agent.facts.network import ensure_interface_name
from netutil.agent.grpcserver import EncodedMessage
from netutil.agent.messages import encode
from netutil.agent.messages.all_facts import AllFacts
from netutil.agent.messages.answers import Answers
from netutil.agent.messages.encode import Answer, Send
from netutil.agent.messages.encode_interfaces import INTERFACES
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
_ALL_SECONDS = 0.0005
"""Loop time that GetAll takes."""


class NetUtil(netutil_pb2_grpc.NetUtilServicer):
    """`v1alpha.NetUtil`, for the caller's own pod only."""

    def __init__(
        self,
        callers: CallerResolver,
        collector: Collector,
        answers: Answers,
        all_facts: AllFacts,
        runner: CallRunner,
        watches: SnapshotStreams,
    ) -> None:
        self._callers = callers
        self._collector = collector
        self._answers = answers
        self._all_facts = all_facts
        self._runner = runner
        self._watches = watches

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
            parts = await self._all_facts.parts(caller, request.pid, wait_seconds(context))
            return encode.everything(parts)

        return self._runner.answer_scheduled("GetAll", context, body, _ALL_SECONDS)

    async def Watch(  # type: ignore[override]  # it writes to the context instead of yielding
        self, request: api.WatchRequest, context: Context
    ) -> None:
        """Send the caller's snapshot, and a new one whenever it changes."""

        async def body(connection: Connection, send: Send) -> NoReturn:
            await self._watches.run(connection, request, send, self._all_facts.parts)

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

    def _cpu_of_call(
        self, caller: Caller, request: api.CPURequest, context: Context
    ) -> Answer | Awaitable[Answer]:
        if request.topology:
            return self._answers.cpu_with_topology(caller, request.pid, wait_seconds(context))
        if request.pid:
            return self._answers.cpu(caller, request.pid)
        return encode.cpus(self._collector.cpus.own(caller))

    def _env_of_call(
        self, caller: Caller, request: api.EnvRequest, context: Context
    ) -> Answer | Awaitable[Answer]:
        del context
        read = self._collector.environments.read(caller, request.pid)
        if isinstance(read, Ready):
            return self._answers.env(caller, read.value, request.key)
        return self._env_of_read(caller, read, request.key)

    async def _env_of_read(
        self, caller: Caller, read: Awaitable[HeldEnvironment], key: str
    ) -> Answer:
        found = self._answers.env(caller, await read, key)
        return await found if isinstance(found, Awaitable) else found

    def _network_of_call(
        self, caller: Caller, request: api.NetworkStatusRequest, context: Context
    ) -> Answer | Awaitable[Answer]:
        del context
        if not request.int:
            return self._answers.network(caller, request.pid)
        ensure_interface_name(request.int)
        return self._answers.read_network(caller, request.pid, request.int)

    def _pod_of_call(
        self, caller: Caller, request: api.PodRequest, context: Context
    ) -> Answer | Awaitable[Answer]:
        if request.pid:
            return self._answers.read_pod(caller, request.pid, wait_seconds(context))
        return encode.pod(caller.require_match(), caller.cgroups.container_id or "")

    def _resources_of_call(
        self, caller: Caller, request: api.ResourceRequest, context: Context
    ) -> Answer | Awaitable[Answer]:
        return self._answers.resources(
            caller, request.pid, wait_seconds(context), request.agent_device
        )

    def _interfaces_of_call(
        self, caller: Caller, request: api.InterfacesRequest, context: Context
    ) -> Awaitable[Answer]:
        del context
        if request.int:
            ensure_interface_name(request.int)
        return self._collector.interfaces.answer_of(caller, request.pid, request.int, INTERFACES)

    def _hugepages_of_call(
        self, caller: Caller, request: api.HugepagesRequest, context: Context
    ) -> Answer | Awaitable[Answer]:
        del context
        return self._answers.hugepages(caller, request.pid)


def _drop_own_pid(caller: Caller, request: R | api.AllRequest) -> None:
    """Clear a request's pid where it is the caller's own: nothing has to be found then.

    For a caller that was `identified`, whose process runs.
    """
    if caller.peer.process.has_number(request.pid):
        request.pid = ""
