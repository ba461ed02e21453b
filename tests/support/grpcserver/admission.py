"""A gRPC server behind real admission and limits, on the test's own event loop."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from netutil.agent.api.call_runner import CallRecorder, Rejections
from netutil.agent.connections import admission as admission_module
from netutil.agent.connections.admission import (
    AdmissionCounts,
    AdmissionRules,
    ConnectionAdmission,
    Identify,
)
from netutil.agent.connections.attribution import KnownPeers
from netutil.agent.connections.policy import PodPolicy, ServerSizes
from netutil.agent.connections.registry import Connection, ConnectionRegistry, connection_of
from netutil.agent.connections.serving import ServedSocket, serve, server_config
from netutil.agent.errors import AgentError, Reason
from netutil.agent.grpcserver import Server, call_of
from netutil.agent.identity.peer import NO_POD, Peer, Requester
from netutil.agent.identity.pidfd import choose_pin, peer_credentials, pin_pid
from netutil.agent.limits.in_flight import InFlight, InFlightLimits
from netutil.agent.limits.limits import ConnectionLimits, RateLimits
from netutil.agent.limits.scheduler import FairScheduler
from netutil.agent.listener.acceptor import Acceptor
from netutil.agent.listener.ownership import SocketHealth
from netutil.agent.listener.unix_socket import listen
from netutil.agent.messages.status import code_of
from netutil.agent.observability.call_stats import CallFeed, CallStats
from netutil.agent.parsers.cgroup import identify as identify_cgroups

from tests.support.grpcserver.raw import Echo, RawClient, fields
from tests.support.waiting import until

POD = "11111111-2222-3333-4444-555555555555"
OTHER_POD = "99999999-8888-7777-6666-555555555555"
POD_KEY = POD.replace("-", "")
SIZES = ServerSizes(header_bytes=8 * 1024, request_bytes=64 * 1024)
_TIMEOUT_SECONDS = 20.0
_MANY = ConnectionLimits(total=100, per_pod=100)


def peer_of(connection: socket.socket, pod_uid: str = POD) -> Peer:
    """Return the process at the other end as one of a pod."""
    credentials = peer_credentials(connection)
    cgroups = identify_cgroups(f"0::/kubepods/pod{pod_uid}/{'a' * 64}\n")
    return Peer(credentials, pin_pid(credentials.pid), cgroups, pod_uid.replace("-", ""))


def peers_of(*pod_uids: str) -> Identify:
    """Return what identifies each next connection as one of the next pod."""
    left = iter(pod_uids)
    return lambda connection: peer_of(connection, next(left))


def one_process_per_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let admission see another PID for each connection: one test plays several processes."""
    numbers = itertools.count(1)
    monkeypatch.setattr(admission_module, "peer_pid", lambda _: next(numbers))


@dataclass(frozen=True)
class Rejection:
    """One call of `RecordRejection`."""

    stage: str
    requester: Requester
    key: str
    method: str
    error: AgentError

    @property
    def reason(self) -> Reason:
        return self.error.reason


class Handlers(Echo):
    """`Echo`, and `Who`: the key of the caller's pod, or the error that its connection has."""

    async def who(self, _: bytes, context: Any) -> bytes:
        connection = connection_of(call_of(context))
        if connection.error is not None:
            await context.abort(code_of(connection.error), str(connection.error.reason))
        return connection.key.encode()

    async def lingers(self, request: bytes, _: Any) -> bytes:
        """Wait also when it is cancelled, as a handler with something to clean up does."""
        self.running += 1
        try:
            await self.gate.wait()
        finally:
            await asyncio.sleep(0.01)
            self.running -= 1
        return request

    def handlers(self) -> dict[str, Any]:
        return super().handlers() | {
            "Who": grpc.unary_unary_rpc_method_handler(self.who),
            "Lingers": grpc.unary_unary_rpc_method_handler(self.lingers),
        }


WHO = "/test.Echo/Who"


@dataclass
class Rig:
    """The parts of one served socket, and its clients."""

    path: str
    server: Server
    handlers: Handlers
    registry: ConnectionRegistry
    scheduler: FairScheduler
    in_flight: InFlight
    policy: PodPolicy
    counts: AdmissionCounts
    acceptor: Acceptor
    rejections: list[Rejection]
    clients: list[socket.socket] = field(default_factory=list)
    calling: list[RawClient] = field(default_factory=list)

    def connect_raw(self) -> socket.socket:
        """Return a client whose connection waits in the queue of the socket."""
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        client.connect(self.path)
        self.clients.append(client)
        return client

    async def connected(self) -> socket.socket:
        """Return a client that the agent has accepted: the order of clients is known."""
        goal = self.counts.accept.accepted + 1
        client = self.connect_raw()
        await until(lambda: self.counts.accept.accepted == goal)
        return client

    async def client(self) -> RawClient:
        """Return a client that speaks HTTP/2, and has been accepted."""
        client = await self.connected()
        self.clients.remove(client)
        speaking = RawClient(*await asyncio.open_unix_connection(sock=client))
        self.calling.append(speaking)
        speaking.hello()
        return speaking

    async def who(self) -> str:
        """Return the result of a call on a new connection, as `call_result` does."""
        client = await self.client()
        found = await call_result(client)
        client.writer.close()
        return found

    def connections(self) -> list[Connection]:
        """Return the open connections."""
        return list(self.registry)

    def errors(self) -> list[Reason | None]:
        """Return the reason of the error of each open connection, None for one without."""
        errors = [entry.error for entry in self.registry]
        return [None if error is None else error.reason for error in errors]

    def reasons(self) -> list[Reason]:
        """Return the reasons of all rejections so far."""
        return [rejection.reason for rejection in self.rejections]


async def call_result(client: RawClient, stream: int = 1) -> str:
    """Return the result of a connection's call: the quota key of its pod, a reason, or "closed"."""
    client.ask(stream, head=fields(p_path=WHO))
    frame = await client.frame()
    if frame is None:
        return "closed"
    found: dict[str, str] = {}
    body = b""
    while True:
        assert frame is not None, "the connection ended before the answer"
        if frame.kind == 1:
            decoded = client.decoded(frame)
            found |= decoded if frame.stream == stream else {}
        elif frame.kind == 0:
            body += frame.payload
        if frame.stream == stream and frame.kind in (0, 1) and frame.flags & 1:
            return found.get("grpc-message") or body[5:].decode()
        frame = await client.frame()


@asynccontextmanager
async def rig(
    directory: Path,
    *,
    identify: Identify = peer_of,
    limits: ConnectionLimits = _MANY,
    in_flight: InFlightLimits | None = None,
    rates: RateLimits | None = None,
    check_capacity: Callable[[], AgentError | None] = lambda: None,
    known: KnownPeers | None = None,
) -> AsyncIterator[Rig]:
    """Serve at `net.sock` below a directory; afterwards no descriptor is open."""
    path = str(directory / "net.sock")
    descriptors = open_descriptors()
    rejections: list[Rejection] = []

    def record(
        stage: str, requester: Requester, pod_key: str, method: str, error: AgentError
    ) -> None:
        rejections.append(Rejection(stage, requester, pod_key, method, error))

    refusals = Rejections(CallRecorder(CallStats(), lambda *_: None, CallFeed()), record)
    registry, counts = ConnectionRegistry(), AdmissionCounts()
    scheduler = FairScheduler(NO_POD)
    calls = InFlight(in_flight or InFlightLimits())
    policy = PodPolicy(registry, scheduler, calls, refusals.reject, record, SIZES, rates)
    server, handlers = Server(server_config(SIZES), policy), Handlers()
    server.add_registered_method_handlers("test.Echo", handlers.handlers())
    known = KnownPeers() if known is None else known
    rules = AdmissionRules(identify, limits, counts, check_capacity, known)
    admission = ConnectionAdmission(server, policy, rules)
    listener = listen(path, mode=0o666, directory_mode=0o755)
    acceptor = Acceptor(listener, admission, counts.accept)
    scheduler.look_between((server.poller.look, acceptor.look))
    it = Rig(
        path,
        server,
        handlers,
        registry,
        scheduler,
        calls,
        policy,
        counts,
        acceptor,
        rejections,
    )
    acceptor.open()
    try:
        yield it
    finally:
        acceptor.close()
        for client in it.clients:
            client.close()
        for speaking in it.calling:
            speaking.writer.close()
            await asyncio.gather(speaking.writer.wait_closed(), return_exceptions=True)
        await until(lambda: len(registry) == 0)
        await server.stop(0)
    assert calls.calls == 0
    await until(lambda: open_descriptors() <= descriptors)


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[ConnectionRegistry]:
    """Serve health and reflection as the agent does, and no service of its own."""
    registry, counts = ConnectionRegistry(), AdmissionCounts()
    refusals = Rejections(CallRecorder(CallStats(), lambda *_: None, CallFeed()), lambda *_: None)
    policy = PodPolicy(
        registry,
        FairScheduler(NO_POD),
        InFlight(InFlightLimits()),
        refusals.reject,
        lambda *_: None,
        SIZES,
    )
    pin, _ = choose_pin()
    rules = AdmissionRules(peer_of, ConnectionLimits(200, 200), counts)
    served_socket = ServedSocket(rules, pin, SocketHealth())
    listener = listen(str(path), mode=0o666, directory_mode=0o755)
    async with serve(listener, served_socket, policy, lambda _: (), lambda: None):
        yield registry


def open_descriptors() -> int:
    return psutil.Process().num_fds()
