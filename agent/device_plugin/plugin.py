"""Keeps the agent's device plugin registered with the kubelet.

The kubelet has the plugin for as long as its ListAndWatch stream is open. The kubelet ends the
stream when it stops. A kubelet that starts removes all sockets of the directory and makes its own;
then each plugin has to register again. Kubelets from 1.25 to 1.35 also end the stream of a plugin
when another one of the same resource ends, as in an update with surge (kubernetes#121994,
kubernetes#127803). So the plugin registers again whenever its stream has ended. Each time it
listens under a fresh name: kubelets since the fix of that distinguish plugins by it.

In an update two agents run side by side. Only the agent that has the pods' socket registers. The
other one answers the kubelet until it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import grpc
from netutil.agent.backoff import Backoff
from netutil.agent.device_plugin.registration import (
    KUBELET_SOCKET,
    NotRegistered,
    register,
)
from netutil.agent.device_plugin.service import AllocationCount, DevicePluginService
from netutil.agent.kubelet.socket import Signature, socket_signature
from netutil.agent.listener.stale import remove_stale_sockets
from netutil.agent.listener.unix_socket import temporary_name
from netutil.deviceplugin.v1beta1 import deviceplugin_pb2_grpc

_LOG = logging.getLogger(__name__)

SOCKET_NAME = "netutil.sock"
"""What the names of the plugin's sockets begin with."""
CHECK_SECONDS = 1.0
WATCH_SECONDS = 15.0
"""Kubelets before 1.25 connect after they have answered, for 10 s at most."""
_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 1.0, 30.0
_STABLE_SECONDS = 60.0
"""A registration that lasted so long was no failure: the next pause is the first again."""
SERVER_SECONDS = 5.0
"""For gRPC to start or to stop a server."""
MAX_CALLS = 16
"""Calls at once, streams among them. The kubelet has one stream and one call per container."""
MAX_REQUEST_BYTES = 256 * 1024
"""All devices of a node in one request are 16 KiB."""
_SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.so_reuseport", 0),
)
_OWNER_ONLY = 0o177
_WAITS = "Another agent of this node has the pods' socket and registers the device plugin."


@dataclass(frozen=True, slots=True)
class PluginSettings:
    """The resource, the kubelet's directory of device plugins, and the directory to mount."""

    resource_name: str
    directory: str
    host_path: str


@dataclass(slots=True)
class PluginState:
    """What became of the plugin. `resource_name` is "" for an agent without it.

    `problem` is one sentence about why the kubelet does not have the plugin, "" while it has;
    `remedy` says what to do.
    """

    resource_name: str = ""
    registered: bool = False
    registrations: int = 0
    failures: int = 0
    problem: str = ""
    remedy: str = ""
    allocations: AllocationCount = field(default_factory=AllocationCount)


class DevicePlugin:
    """Registers the plugin and serves it. Used on one event loop."""

    def __init__(
        self, settings: PluginSettings, state: PluginState, has_socket: Callable[[], bool]
    ) -> None:
        """`has_socket` returns whether the pods' socket is this agent's, and must not block."""
        self._settings = settings
        self._state = state
        self._has_socket = has_socket
        self._kubelet_socket = os.path.join(settings.directory, KUBELET_SOCKET)
        self._own_socket = os.path.join(settings.directory, SOCKET_NAME)
        self._backoff = Backoff(_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS)

    async def run(self) -> None:
        """Keep the plugin registered until cancelled. Raises nothing else."""
        await self._remove_stale()
        while True:
            kubelet = await asyncio.to_thread(socket_signature, self._kubelet_socket)
            if not self._has_socket():
                self._not_registered(_WAITS, "Nothing, while an update runs.", failed=False)
                await asyncio.sleep(CHECK_SECONDS)
                continue
            await self._attempt(kubelet)
            await self._pause(kubelet)

    async def _remove_stale(self) -> None:
        """Remove the sockets of agents that were killed."""
        try:
            await asyncio.to_thread(remove_stale_sockets, self._own_socket)
        except OSError as error:
            _LOG.warning("device plugin: cannot read %s: %s", self._settings.directory, error)

    async def _attempt(self, kubelet: Signature | None) -> None:
        """Register, and serve until the registration is lost. The state then has the reason."""
        began = time.monotonic()
        try:
            lost = await self._serve(kubelet)
        except NotRegistered as error:
            self._not_registered(error.message, error.advice)
        except Exception as error:  # noqa: BLE001 - the agent goes on without its plugin
            _LOG.exception("device plugin: unexpected error")
            text = f"The device plugin failed in an unforeseen way: {type(error).__name__}."
            self._not_registered(text, "This is a bug of the agent; its log has the traceback.")
        else:
            if time.monotonic() - began >= _STABLE_SECONDS:
                self._backoff.reset()
            self._not_registered(lost, "The agent registers again.", failed=False)

    async def _serve(self, kubelet: Signature | None) -> str:
        """Return why the registration was lost. Raises `NotRegistered` if there was none."""
        service = DevicePluginService(self._settings.host_path, self._state.allocations)
        async with self._listening(service) as path:
            name = os.path.basename(path)
            await register(self._kubelet_socket, name, self._settings.resource_name)
            try:
                async with asyncio.timeout(WATCH_SECONDS):
                    await service.watched.wait()
            except TimeoutError:
                raise NotRegistered(
                    "The kubelet took the registration, and did not call the plugin within"
                    f" {WATCH_SECONDS:g} s.",
                    "Look at the kubelet's log for the resource; the agent tries again.",
                ) from None
            self._registered()
            try:
                return await self._until_lost(service, kubelet, path)
            finally:
                self._state.registered = False

    async def _until_lost(
        self, service: DevicePluginService, kubelet: Signature | None, path: str
    ) -> str:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await service.unwatched.wait()
                return "The kubelet ended its stream."
            if lost := await asyncio.to_thread(self._lost, kubelet, path):
                return lost

    def _lost(self, kubelet: Signature | None, path: str) -> str:
        """Return what happened to the sockets that a registration needs, "" if nothing. Blocks."""
        if socket_signature(self._kubelet_socket) != kubelet:
            return "The kubelet made its socket again."
        if socket_signature(path) is None:
            return f"The plugin's socket in {self._settings.directory} was removed."
        return ""

    @contextlib.asynccontextmanager
    async def _listening(self, service: DevicePluginService) -> AsyncIterator[str]:
        """Serve the kubelet on a fresh socket within the block; return its path."""
        path = temporary_name(self._own_socket)
        try:
            _ensure_bindable(path)
        except OSError:
            raise self._cannot_bind() from None
        server = grpc.aio.server(options=_SERVER_OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
        deviceplugin_pb2_grpc.add_DevicePluginServicer_to_server(service, server)
        try:
            # The loop's other binds set the umask likewise, so this may not run in a thread.
            previous = os.umask(_OWNER_ONLY)
            try:
                server.add_insecure_port("unix:" + quote(path))
            except RuntimeError:
                raise self._cannot_bind() from None
            finally:
                os.umask(previous)
            await _to_its_end(server.start())
            yield path
        finally:
            try:
                await _to_its_end(server.stop(0))
            finally:
                with contextlib.suppress(OSError):  # gRPC has removed it
                    os.unlink(path)

    def _cannot_bind(self) -> NotRegistered:
        return NotRegistered(
            f"The device plugin cannot make its socket in {self._settings.directory}.",
            "Mount the kubelet's directory of device plugins, writable, at --device-plugin-dir.",
        )

    def _registered(self) -> None:
        state = self._state
        state.registered, state.problem, state.remedy = True, "", ""
        state.registrations += 1
        _LOG.info(
            "device plugin: registered %s with the kubelet; it mounts %s",
            state.resource_name,
            self._settings.host_path,
        )

    def _not_registered(self, problem: str, remedy: str, *, failed: bool = True) -> None:
        """Note why the kubelet does not have the plugin. The log has each reason once in a row."""
        state = self._state
        state.failures += failed
        if problem != state.problem:
            level = logging.WARNING if failed else logging.INFO
            _LOG.log(level, "device plugin: %s %s", problem, remedy)
        state.problem, state.remedy = problem, remedy

    async def _pause(self, kubelet: Signature | None) -> None:
        """Wait for the next attempt: no longer than until the kubelet makes its socket again."""
        until = time.monotonic() + self._backoff.pause()
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, CHECK_SECONDS))
            now = await asyncio.to_thread(socket_signature, self._kubelet_socket)
            if now != kubelet and now is not None:
                return


def _ensure_bindable(path: str) -> None:
    """Bind a socket and remove it. Raises OSError.

    gRPC keeps the memory of a server that was never started: some KiB for each attempt.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.bind(path)
    os.unlink(path)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait until `work` has ended, and only then raise a cancellation that came meanwhile.

    Raises `NotRegistered` if it does not end in time.

    A server of grpc.aio that is cancelled during its start makes its stop raise InvalidStateError,
    which would hide the cancellation. A stop that is cancelled leaves the server's calls open.
    (grpc/_cython/_cygrpc/aio/server.pyx.pxi, `_server_main_loop` and `_start_shutting_down`.)
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    ends_at = time.monotonic() + SERVER_SECONDS
    while not task.done() and (left := ends_at - time.monotonic()) > 0:
        try:
            await asyncio.wait({task}, timeout=left)
        except asyncio.CancelledError as error:
            cancelled = error
    if not task.done():
        task.cancel()
        if cancelled is not None:
            raise cancelled
        raise NotRegistered(
            f"gRPC did not start or stop the device plugin's server within {SERVER_SECONDS:g} s.",
            "Look whether the node is overloaded; the agent tries again.",
        )
    if cancelled is not None:
        raise cancelled from task.exception()
    task.result()
