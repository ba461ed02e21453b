"""The asyncio clients. Everything but the waiting is in the other modules."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio
from netutil.client.errors import NetUtilError
from netutil.client.models.core import CPU, Environment, NetworkStatus, Pod
from netutil.client.models.devices import All, Hugepages, Interface, Interfaces, Resources
from netutil.client.models.node import NodePods
from netutil.client.models.observation import Observation, SnapshotMerger
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


class AsyncConnection:
    """One connection to the agent, opened at the first question, for one event loop.

    The agent identifies the process that opened it, so a client asked in a process
    forked after that raises RuntimeError; so does a closed one. A cancelled call
    disturbs no other.
    """

    def __init__(
        self, endpoint: Endpoint, socket: str | os.PathLike[str] | None, timeout_seconds: float
    ) -> None:
        self._settings = Settings.checked(endpoint, socket, timeout_seconds)
        self._fork_guard: ForkGuard | None = None
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[str, grpc.aio.UnaryUnaryMultiCallable[Any, Any]] = {}
        self._closed = False

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
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def call(self, request: Request[Answer]) -> Answer:
        """The answer, asked for until the timeout; raises an error of `netutil.client.errors`."""
        method = self._method(request)
        attempts = Attempts(self._settings)
        while True:
            try:
                response = await method(request.message, timeout=attempts.remaining_seconds())
            except grpc.aio.AioRpcError as failure:
                await asyncio.sleep(attempts.pause_seconds_after(failure))
            else:
                return request.decode(response)

    async def stream(
        self, request: Request[Answer], longest_seconds: float | None = None
    ) -> AsyncGenerator[Answer, None]:
        """The answers of a method that goes on; an error of `netutil.client.errors` ends them.

        With `longest_seconds` that is `DeadlineExceeded` at the latest.
        """
        start = self._opened().unary_stream(
            request.method,
            request_serializer=type(request.message).SerializeToString,
            response_deserializer=request.response_type.FromString,
        )
        call = start(request.message, timeout=longest_seconds)
        try:
            async for response in call:
                yield request.decode(response)
        except grpc.aio.AioRpcError as failure:
            raise explained(error_from_status(failure), self._settings) from None
        finally:
            call.cancel()

    def _opened(self) -> grpc.aio.Channel:
        """The channel, made at the first question."""
        if self._closed:
            raise RuntimeError("this client is closed")
        if self._fork_guard is None or self._channel is None:
            self._fork_guard = ForkGuard()
            self._channel = grpc.aio.insecure_channel(target(self._settings.path), CHANNEL_OPTIONS)
        self._fork_guard.check()
        return self._channel

    def _method(self, request: Request[Any]) -> grpc.aio.UnaryUnaryMultiCallable[Any, Any]:
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
    """`netutil.client.Client` for asyncio: the same questions, settings and errors."""

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
        return (await self.call(requests.variable(key, pid))).envs[key]

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

    async def resources(self, pid: int | None = None) -> Resources:
        """Devices, exclusive CPUs and memory that the kubelet gave to the process's container."""
        return await self.call(requests.resources(pid))

    async def all(self, pid: int | None = None) -> All:
        """All of it in one round trip; a part that could not be had is None, and an error."""
        return await self.call(requests.everything(pid))

    async def watch(
        self, *, longest_seconds: float | None = None
    ) -> AsyncGenerator[Observation, None]:
        """All about this process at once, and again whenever a part of it changes.

        An asynchronous generator; else as `Client.watch`.
        """
        merger = SnapshotMerger()
        async with aclosing(self.stream(requests.WATCH, longest_seconds)) as observations:
            async for observation in observations:
                yield merger.merge(observation)

    async def wait_for_interface(self, interface: str, timeout_seconds: float = 60.0) -> Interface:
        """The interface, as soon as it is there: as `Client.wait_for_interface`."""
        waiting = InterfaceWait(interface, timeout_seconds)
        while True:
            watch = self.watch(longest_seconds=waiting.remaining_seconds())
            try:
                async for observation in watch:
                    if (found := waiting.check(observation)) is not None:
                        return found
            except NetUtilError as error:
                pause = waiting.pause_seconds_after(error)
            finally:
                await watch.aclose()
            await asyncio.sleep(pause)


class AsyncNodeClient(AsyncConnection):
    """`netutil.client.NodeClient` for asyncio."""

    def __init__(
        self, socket: str | os.PathLike[str] | None = None, timeout_seconds: float = 5.0
    ) -> None:
        super().__init__(OPERATOR, socket, timeout_seconds)

    async def pods(self) -> NodePods:
        """Every pod on the node."""
        return await self.call(requests.node_pods())
