"""Runs an agent until SIGTERM or SIGINT: starts its parts in order, and drains them in order."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator

import grpc
from netutil.agent.admin_socket import serve_admin
from netutil.agent.app import build
from netutil.agent.components import Components
from netutil.agent.config import Config
from netutil.agent.connections.serving import serve
from netutil.agent.device_plugin.plugin import DevicePlugin, PluginSettings
from netutil.agent.errors import AgentError
from netutil.agent.listener.acceptor import Acceptor
from netutil.agent.listener.stale import remove_private_directories, remove_stale_sockets
from netutil.agent.listener.unix_socket import listen
from netutil.agent.loop_slice import shorten_slice
from netutil.agent.observability.log_setup import report_failure
from netutil.agent.observability.probes import ProbeServer
from netutil.v1alpha import netutil_pb2, netutil_pb2_grpc

_LOG = logging.getLogger(__name__)
_GENERATIONS = (700, 4, 10)
_SWITCH_SECONDS = 0.0005
_NETUTIL = netutil_pb2.DESCRIPTOR.services_by_name["NetUtil"].full_name


class Agent:
    """The running agent. `run` returns when it has stopped cleanly."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stopping = asyncio.Event()
        self._components = build(config)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then finish what is in flight."""
        config, components = self._config, self._components
        kubernetes, claims_api = components.kubernetes, components.kubernetes.claims.api
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(report_failure)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        async with contextlib.AsyncExitStack() as stack:
            remove_private_directories(tempfile.gettempdir())
            components.observers.watchdog.start()
            stack.callback(components.observers.watchdog.stop)
            stack.callback(components.observers.audit.close)
            stack.callback(components.facts.containers.close)
            stack.callback(components.identity.tree.held.close)
            stack.push_async_callback(kubernetes.pods.close)
            stack.push_async_callback(kubernetes.resources.close)
            if claims_api is not None:
                stack.push_async_callback(claims_api.close)
            stack.callback(components.facts.networks.close)
            stack.push_async_callback(components.service.notifier.close)
            # Started before the sockets: an agent whose address is in use must not take the
            # sockets from a running agent. Closed after the sockets: /readyz fails while calls
            # in flight finish.
            if config.observability.metrics_address:
                probes = ProbeServer(
                    config.observability.metrics_address,
                    components.observers.metrics.registry,
                    self._live,
                    self._ready,
                )
                probes.start()
                stack.push_async_callback(asyncio.to_thread, probes.close)
            for path in filter(None, (config.sockets.pods, config.sockets.admin)):
                remove_stale_sockets(path)
            if config.sockets.admin:
                await stack.enter_async_context(serve_admin(components))
            acceptor = await stack.enter_async_context(_serve_pods(components))
            if config.kubelet.device_plugin:
                await stack.enter_async_context(_device_plugin(components, acceptor))
            if claims_api is not None:
                claims_api.start()
            first = asyncio.create_task(self._first_list())
            retention = asyncio.create_task(components.retention.run(), name="retention")
            _LOG.info("agent: serving on %s", config.sockets.pods)
            _limit_pauses()
            _return_memory_of_start()
            await self._stopping.wait()
            _LOG.info("agent: stopping")
            first.cancel()
            retention.cancel()
            await asyncio.gather(first, retention, return_exceptions=True)

    async def _first_list(self) -> None:
        """Fetch the first pod list, for readiness and for the first caller."""
        pods = self._components.kubernetes.pods
        while pods.last is None:
            try:
                await pods.refresh()
            except AgentError as error:
                _LOG.warning("agent: no pod list yet: %s (read %s)", error, error.read)
                await asyncio.sleep(1)

    def _live(self) -> str:
        """Return a problem that only a restart of the container fixes, "" for none."""
        socket_health = self._components.service.socket.health
        return self._components.observers.watchdog.problem() or socket_health.problem()

    def _ready(self) -> str:
        if self._stopping.is_set():
            return "the agent is stopping"
        pods = self._components.kubernetes.pods
        if pods.last is None:
            error = pods.last_error
            return f"no pod list yet: {f'{error} {error.advice}' if error else 'not read'}"
        unconfirmed = pods.unconfirmed
        if unconfirmed is not None:
            return f"the pod list is not confirmed: {unconfirmed} {unconfirmed.advice}"
        return ""


@contextlib.asynccontextmanager
async def _serve_pods(components: Components) -> AsyncIterator[Acceptor]:
    """Serve `v1alpha.NetUtil` on the pods' socket until the end of the block. Raises OSError."""
    service = components.service

    def add(server: grpc.aio.Server) -> tuple[str, ...]:
        netutil_pb2_grpc.add_NetUtilServicer_to_server(service.netutil, server)
        return (_NETUTIL,)

    listener = listen(components.config.sockets.pods, mode=0o666, directory_mode=0o755)
    async with serve(
        listener, service.socket, service.policy, add, service.notifier.stop
    ) as acceptor:
        yield acceptor


@contextlib.asynccontextmanager
async def _device_plugin(components: Components, acceptor: Acceptor) -> AsyncIterator[None]:
    """Keep the device plugin registered until the end of the block. A failure ends nothing else."""
    config = components.config

    def has_socket() -> bool:
        return acceptor.listener.still_ours()

    plugin = DevicePlugin(
        PluginSettings(
            config.kubelet.device_plugin,
            config.kubelet.device_plugin_dir,
            os.path.dirname(config.sockets.pods),
        ),
        components.kubernetes.device_plugin,
        has_socket,
    )
    task = asyncio.create_task(plugin.run(), name="device plugin")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _return_memory_of_start() -> None:
    """Give back what the imports have freed between what is kept (malloc_trim(3))."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)


def _limit_pauses() -> None:
    """Bound the pauses of the event loop: garbage collections, and threads with the GIL.

    A collection of all objects takes a tenth of a second, and the garbage of one pod's calls can
    cause several collections in a second. So the startup objects, which live as long as the
    process, are frozen, and generation 1 is collected more often, while it is small. Generation 2
    is collected as often as usual: without the startup objects that is fast, and the garbage of
    connections and calls would otherwise grow to 30 MiB. A reading thread keeps the GIL for the
    switch interval when the loop requests the GIL: 5 ms by default. The thread keeps the CPU for
    its slice.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GENERATIONS)
    sys.setswitchinterval(_SWITCH_SECONDS)
    if why := shorten_slice():
        _LOG.info("the event loop has the usual slice of CPU time: %s", why)
