"""Builds the agent from its settings, runs it until it is told to stop, and takes it down.

The wiring of all rooms is read here, on one screen; nothing reaches for globals.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from netutil.agent.door.door import Door, DoorCounts, Limits
from netutil.agent.door.listener import listen
from netutil.agent.door.table import ConnectionTable
from netutil.agent.errors import AgentError, Denied, Reason
from netutil.agent.identity.cgroups import read_cgroup_tree
from netutil.agent.identity.peer import Peer, identify_peer
from netutil.agent.identity.pinning import choose_pin, peer_credentials
from netutil.agent.ops.http import OpsServer
from netutil.agent.ops.metrics import Metrics
from netutil.agent.podresources.directory import ResourceDirectory
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.service.caller import Callers
from netutil.agent.service.calls import Answering, CallLog
from netutil.agent.service.gather import Gathering
from netutil.agent.service.netutil import NetUtil
from netutil.agent.service.node import Node
from netutil.agent.service.reads import ReadPool
from netutil.agent.service.unfinished import Unfinished, UnfinishedLimits
from netutil.agent.settings import Settings
from netutil.agent.sources import open_source
from netutil.v1alpha import netutil_pb2, netutil_pb2_grpc, node_pb2, node_pb2_grpc

_LOG = logging.getLogger(__name__)
_GRACE_SECONDS = 10.0
_DESCRIPTORS_PER_CONNECTION = 5
_UNANSWERED_BYTES = 256 * 1024
_OPERATORS = Limits(64, 64, _UNANSWERED_BYTES)
_GRPC_OPTIONS = (
    ("grpc.max_receive_message_length", 64 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    ("grpc.max_concurrent_streams", 64),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.so_reuseport", 0),
    # One connection's reads may not grow to 4 MiB each, gRPC's own bound.
    ("grpc.experimental.tcp_max_read_chunk_size", 64 * 1024),
)
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_NETUTIL = netutil_pb2.DESCRIPTOR.services_by_name["NetUtil"].full_name
_NODE = node_pb2.DESCRIPTOR.services_by_name["Node"].full_name


class Agent:
    """The running agent. `run` returns when it has stopped cleanly."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self._tree = read_cgroup_tree(settings.host_root)
        self._pin, pin_name = choose_pin()
        self._pods = PodDirectory(open_source(settings), refresh_seconds=settings.pod_refresh)
        self._reads = ReadPool()
        self._table = ConnectionTable()
        self._admin_table = ConnectionTable()
        self._log = CallLog()
        self._door_counts = DoorCounts()
        self._callers = Callers(self._tree, self._pods, self._reads)
        self._resources = ResourceDirectory(settings.pod_resources, settings.pod_refresh)
        self._gathering = Gathering(self._callers, self._reads, self._resources, settings.host_root)
        self._unfinished = Unfinished(UnfinishedLimits(settings.max_calls_per_pod))
        self._metrics = Metrics(*self._readings())
        _LOG.info(
            "agent: peers are pinned by %s; cgroup hierarchies: %s; pods from %s",
            pin_name,
            ", ".join(sorted(name or "unified" for name in self._tree.hierarchies)) or "none",
            settings.pod_source,
        )

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then finish what is in flight."""
        _raise_descriptor_limit(self._settings.max_connections * _DESCRIPTORS_PER_CONNECTION)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        async with contextlib.AsyncExitStack() as stack:
            private = tempfile.mkdtemp(prefix="netutil-")  # mode 0700
            stack.callback(shutil.rmtree, private, ignore_errors=True)
            stack.push_async_callback(self._pods.close)
            stack.push_async_callback(self._resources.close)
            # Before the sockets: an agent that cannot have its address must not take
            # them from one that runs. And closed after them: /readyz says no while
            # calls in flight are finished.
            if self._settings.metrics_address:
                ops = OpsServer(
                    self._settings.metrics_address, self._metrics.registry, _live, self._ready
                )
                ops.start()
                stack.push_async_callback(asyncio.to_thread, ops.close)
            await stack.enter_async_context(self._public(Path(private, "public.sock")))
            if self._settings.admin_socket:
                await stack.enter_async_context(self._admin(Path(private, "admin.sock")))
            first = asyncio.create_task(self._first_list())
            _LOG.info("agent: serving on %s", self._settings.socket)
            await self._stopping.wait()
            _LOG.info("agent: stopping")
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _public(self, path: Path) -> AsyncIterator[None]:
        answering = Answering(self._table, self._log, self._metrics.observe, self._unfinished)

        def add(server: grpc.aio.Server) -> tuple[str, ...]:
            netutil_pb2_grpc.add_NetUtilServicer_to_server(
                NetUtil(self._callers, self._gathering, answering), server
            )
            return (_NETUTIL,)

        settings = self._settings
        listener = listen(settings.socket, mode=0o666, directory_mode=0o755)
        limits = Limits(
            settings.max_connections, settings.max_connections_per_pod, _UNANSWERED_BYTES
        )
        door = Door(listener, str(path), self._table, self._identify, limits, self._door_counts)
        async with _served(path, door, add):
            yield

    @contextlib.asynccontextmanager
    async def _admin(self, path: Path) -> AsyncIterator[None]:
        unfinished = Unfinished(UnfinishedLimits())
        answering = Answering(self._admin_table, CallLog(), self._metrics.observe, unfinished)

        def add(server: grpc.aio.Server) -> tuple[str, ...]:
            node = Node(self._pods, self._callers, self._table, self._log, answering)
            node_pb2_grpc.add_NodeServicer_to_server(node, server)
            return (_NODE,)

        listener = listen(self._settings.admin_socket, mode=0o600, directory_mode=0o700)
        door = Door(listener, str(path), self._admin_table, self._identify_operator, _OPERATORS)
        async with _served(path, door, add):
            yield

    def _identify(self, connection: socket.socket) -> Peer:
        return identify_peer(connection, self._pin, self._tree)

    def _identify_operator(self, connection: socket.socket) -> None:
        credentials = peer_credentials(connection)
        if credentials.uid != 0:
            raise Denied(
                Reason.NOT_AN_OPERATOR,
                f"The operator socket answers uid 0 only, not uid {credentials.uid}.",
                read="SO_PEERCRED",
            )

    async def _first_list(self) -> None:
        """Read the pod list at the start, so that readiness and the first caller have it."""
        while self._pods.last is None:
            try:
                await self._pods.refresh()
            except AgentError as error:
                _LOG.warning("agent: no pod list yet: %s (read %s)", error, error.read)
                await asyncio.sleep(1)

    def _ready(self) -> str:
        if self._stopping.is_set():
            return "the agent is stopping"
        if self._pods.last is None:
            return f"no pod list yet: {self._pods.last_error or 'not read'}"
        return ""

    def _readings(self) -> tuple[dict[str, tuple[str, Callable[[], float]]], ...]:
        def counts(name: str) -> Callable[[], float]:
            return lambda: float(getattr(self._door_counts, name))

        def stats(name: str) -> Callable[[], float]:
            return lambda: float(getattr(self._pods.stats, name))

        def resource_stats(name: str) -> Callable[[], float]:
            return lambda: float(getattr(self._resources.stats, name))

        gauges = {
            "netutil_connections": ("Open connections.", lambda: float(len(self._table))),
            "netutil_max_connections": (
                "The limit of open connections.",
                lambda: float(self._settings.max_connections),
            ),
            "netutil_calls_unfinished": (
                "Calls under way.",
                lambda: float(self._unfinished.calls),
            ),
            "netutil_unread_bytes": (
                "Bytes of large answers not taken yet.",
                lambda: float(self._unfinished.bytes),
            ),
            "netutil_read_threads": ("Threads for reads.", lambda: float(self._reads.threads)),
        }
        counters = {
            "netutil_connections_accepted": ("Connections accepted.", counts("accepted")),
            "netutil_connections_refused": ("Connections refused.", counts("refused")),
            "netutil_connections_closed": (
                "Connections closed at once, past every limit.",
                counts("closed_at_once"),
            ),
            "netutil_accept_failures": ("Accepts that failed.", counts("accept_failures")),
            "netutil_read_timeouts": (
                "Reads given up by their callers.",
                lambda: float(self._reads.timeouts),
            ),
            "netutil_pod_list_fetches": ("Fetches of the pod list.", stats("fetches")),
            "netutil_pod_list_failures": ("Failed fetches of it.", stats("failures")),
            "netutil_pod_list_misses": ("Callers that the list did not know.", stats("misses")),
            "netutil_pod_resources_lists": ("PodResources lists asked.", resource_stats("fetches")),
            "netutil_pod_resources_gets": ("PodResources gets asked.", resource_stats("gets")),
            "netutil_pod_resources_failures": (
                "PodResources lists that failed.",
                resource_stats("failures"),
            ),
        }
        return gauges, counters


@contextlib.asynccontextmanager
async def _served(
    path: Path, door: Door, add: Callable[[grpc.aio.Server], tuple[str, ...]]
) -> AsyncIterator[None]:
    """Serve gRPC on a private path behind a door, until the end of the block; then drain."""
    server = grpc.aio.server(options=_GRPC_OPTIONS)
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    names = add(server)
    reflection.enable_server_reflection((*names, _HEALTH, reflection.SERVICE_NAME), server)
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    for name in ("", *names):
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    door.open()
    try:
        yield
    finally:
        door.close()
        await health.enter_graceful_shutdown()
        await server.stop(_GRACE_SECONDS)
        await door.drop_all()


def _live() -> str:
    return ""


def _raise_descriptor_limit(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < wanted:
        _LOG.warning(
            "agent: --max-connections needs %d file descriptors, the limit is %d", wanted, hard
        )
