"""The asyncio clients. Everything but the waiting is in the other modules.

`sync.py` is generated from this file by `python -m scripts.unasync`; `make lint` compares them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from types import TracebackType
from typing import Any, Generic, Self

import grpc
import grpc.aio
from netutil.client.errors import NetUtilError
from netutil.client.models.core import CPU, Environment, NetworkStatus, Pod
from netutil.client.models.devices import All, Hugepages, Interface, Interfaces, Resources
from netutil.client.models.node import NodePods
from netutil.client.models.observation import Observation, SnapshotMerger
from netutil.client.models.processes import ProcessesMerger, ProcessReading
from netutil.client.rpc import requests
from netutil.client.rpc.endpoint import (
    CHANNEL_OPTIONS,
    OPERATOR,
    PUBLIC,
    Endpoint,
    ForkGuard,
    Settings,
    target,
)
from netutil.client.rpc.requests import Answer, Request
from netutil.client.rpc.retry import Attempts, explained
from netutil.client.rpc.status import error_from_status
from netutil.client.rpc.wait import InterfaceWait


class AsyncStream(Generic[Answer]):
    """The answers of one streaming call, to be iterated over by one task.

    An error of `netutil.client.errors` ends the iteration, and so does closing the stream or its
    client. Close a stream that is not at its end.
    """

    def __init__(
        self, connection: AsyncConnection, call: Any, decode: Callable[[Any], Answer]
    ) -> None:
        self._connection = connection
        self._call = call
        self._responses = aiter(call)
        self._decode = decode
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Answer:
        if self._closed:
            raise StopAsyncIteration
        try:
            response = await anext(self._responses)
        except grpc.aio.AioRpcError as failure:
            if self._closed or self._connection.closed:
                raise StopAsyncIteration from None
            settings = self._connection.settings
            raise explained(error_from_status(failure), settings) from None
        return self._decode(response)

    async def aclose(self) -> None:
        """End the call; to be called by that task."""
        self._closed = True
        self._call.cancel()


class AsyncConnection:
    """One connection to the agent, opened at the first call, for one event loop.

    The agent identifies the process that opened the connection: a client that is used in a
    process forked after that raises RuntimeError. So does a closed client.
    """

    def __init__(
        self, endpoint: Endpoint, socket: str | os.PathLike[str] | None, timeout_seconds: float
    ) -> None:
        self.settings = Settings.checked(endpoint, socket, timeout_seconds)
        self._opening = nullcontext()
        self._fork_guard: ForkGuard | None = None
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[str, grpc.aio.UnaryUnaryMultiCallable[Any, Any]] = {}
        self.closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection and every call on it. A second close does nothing."""
        with self._opening:
            self.closed = True
            if self._channel is not None:
                await self._channel.close()

    async def call(self, request: Request[Answer]) -> Answer:
        """The answer; retried until the timeout. Raises an error of `netutil.client.errors`."""
        method = self._method(request)
        attempts = Attempts(self.settings)
        while True:
            try:
                response = await method(request.message, timeout=attempts.remaining_seconds())
            except grpc.aio.AioRpcError as failure:
                await asyncio.sleep(attempts.pause_seconds_after(failure))
            else:
                return request.decode(response)

    def stream(
        self, request: Request[Answer], longest_seconds: float | None = None
    ) -> AsyncStream[Answer]:
        """The answers of a streaming method, without a retry.

        With `longest_seconds` the stream ends with `DeadlineExceeded` after that time.
        """
        with self._opening:
            start = self._opened().unary_stream(
                request.method,
                request_serializer=type(request.message).SerializeToString,
                response_deserializer=request.response_type.FromString,
            )
        call = start(request.message, timeout=longest_seconds)
        return AsyncStream(self, call, request.decode)

    def _opened(self) -> grpc.aio.Channel:
        """The channel, made at the first call; `_opening` is held."""
        if self.closed:
            raise RuntimeError("this client is closed")
        if self._fork_guard is None or self._channel is None:
            self._fork_guard = ForkGuard()
            self._channel = grpc.aio.insecure_channel(target(self.settings.path), CHANNEL_OPTIONS)
        self._fork_guard.check()
        return self._channel

    def _method(self, request: Request[Any]) -> grpc.aio.UnaryUnaryMultiCallable[Any, Any]:
        with self._opening:
            channel = self._opened()
            method = self._methods.get(request.method)
            if method is None:
                method = self._methods[request.method] = channel.unary_unary(
                    request.method,
                    request_serializer=type(request.message).SerializeToString,
                    response_deserializer=request.response_type.FromString,
                )
            return method


class AsyncClient(AsyncConnection):
    """Asks the agent about the calling process, or with `pid` about another one of its pod.

    `socket` defaults to $NETUTIL_SOCKET, else /etc/netutil/net.sock. `timeout_seconds`
    bounds each call with all its attempts. `pid` is a number in the caller's own PID
    namespace. Every method raises only errors of `netutil.client.errors`.
    """

    def __init__(
        self, socket: str | os.PathLike[str] | None = None, timeout_seconds: float = 5.0
    ) -> None:
        super().__init__(PUBLIC, socket, timeout_seconds)

    async def cpu(self, pid: int | None = None, *, topology: bool = False) -> CPU:
        """The CPUs of the process's container; with `topology` each of them, and the exclusive."""
        return await self.call(requests.cpu(pid, topology=topology))

    async def environment(self, pid: int | None = None) -> Environment:
        """All variables that the process was started with."""
        return await self.call(requests.environment(pid))

    async def variable(self, key: str, pid: int | None = None) -> str:
        """The value of one variable; NotFound if it is not set."""
        environment = await self.call(requests.variable(key, pid))
        return environment.envs[key]

    async def network_status(
        self, interface: str | None = None, pid: int | None = None
    ) -> NetworkStatus:
        """The pod's networks, or the one of that interface; NotFound if there is none."""
        return await self.call(requests.network_status(interface, pid))

    async def pod(self, pid: int | None = None) -> Pod:
        """The pod and container of the process."""
        return await self.call(requests.pod(pid))

    async def interfaces(self, interface: str | None = None, pid: int | None = None) -> Interfaces:
        """The pod's interfaces, or the one of that name; NotFound if there is none."""
        return await self.call(requests.interfaces(interface, pid))

    async def hugepages(self, pid: int | None = None) -> Hugepages:
        """Huge pages of the pod's spec, of the process's container, and of the node."""
        return await self.call(requests.hugepages(pid))

    async def resources(self, pid: int | None = None, *, agent_device: bool = False) -> Resources:
        """Devices, exclusive CPUs and memory that the kubelet gave to the process's container.

        `agent_device` lists the resource of the agent's own device plugin as well.
        """
        return await self.call(requests.resources(pid, agent_device=agent_device))

    async def all(self, pid: int | None = None) -> All:
        """Everything in one round trip; a part that is missing is None, with an error."""
        return await self.call(requests.everything(pid))

    def watch(self, *, longest_seconds: float | None = None) -> AsyncStream[Observation]:
        """All about this process at once, and again whenever a part of it changes.

        There is no timeout unless `longest_seconds` sets one. The iteration raises the error that
        ends the stream: `Unavailable` when the agent restarts, NotFound with reason POD_GONE when
        the pod has left the node. `netutil.client.AsyncCached` reconnects by itself.
        """
        merger, decode = SnapshotMerger(), requests.WATCH.decode

        def merge(response: Any) -> Observation:
            return merger.merge(decode(response))

        return self.stream(replace(requests.WATCH, decode=merge), longest_seconds)

    async def wait_for_interface(self, interface: str, timeout_seconds: float = 60.0) -> Interface:
        """The interface, as soon as it is in the network-status annotation or live.

        NotFound if it does not appear in time; `Unavailable` if the agent was not there either.
        """
        waiting = InterfaceWait(interface, timeout_seconds)
        while True:
            try:
                async with self.watch(longest_seconds=waiting.remaining_seconds()) as stream:
                    async for observation in stream:
                        if (found := waiting.check(observation)) is not None:
                            return found
            except NetUtilError as error:
                await asyncio.sleep(waiting.pause_seconds_after(error))


class AsyncNodeClient(AsyncConnection):
    """Asks the agent about its whole node, over the operator socket; for the node's root only.

    `socket` defaults to $NETUTIL_ADMIN_SOCKET, else /run/netutil-admin/admin.sock.
    """

    def __init__(
        self, socket: str | os.PathLike[str] | None = None, timeout_seconds: float = 5.0
    ) -> None:
        super().__init__(OPERATOR, socket, timeout_seconds)

    async def pods(self) -> NodePods:
        """Every pod on the node."""
        return await self.call(requests.node_pods())

    async def processes(
        self, namespace: str = "", name: str = "", *, threads: bool = False
    ) -> ProcessReading:
        """The processes of a pod, of every pod if none is named; with `threads` each thread too.

        NotFound for a pod that the pod source does not report.
        """
        merger = ProcessesMerger()
        request = requests.processes(namespace, name, threads=threads)
        async with self.stream(request, self.settings.timeout_seconds) as stream:
            async for part in stream:
                merger.add(part)
        return merger.reading()
