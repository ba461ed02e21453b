"""The operators' socket, for the host's root alone, and the service behind it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator

import grpc
from netutil.agent.connections.admission import AdmissionCounts
from netutil.agent.connections.policy import PodPolicy
from netutil.agent.connections.registry import ConnectionRegistry
from netutil.agent.errors import Denied, Reason
from netutil.agent.identity.pinning import peer_credentials
from netutil.agent.installation import installation_of
from netutil.agent.limits.in_flight import InFlight, InFlightLimits
from netutil.agent.limits.limits import ConnectionLimits
from netutil.agent.limits.scheduler import FairScheduler
from netutil.agent.listener.unix_socket import listen
from netutil.agent.rooms import Rooms
from netutil.agent.service.activity import Activity
from netutil.agent.service.call_log import CallLog
from netutil.agent.service.calls import Answering
from netutil.agent.service.describe import Describing
from netutil.agent.service.describe_node import DescribingNode
from netutil.agent.service.doctor import Doctor
from netutil.agent.service.explain import Explaining
from netutil.agent.service.node import Node
from netutil.agent.service.pod_summary import PodSummaries
from netutil.agent.service.refusals import CallRecorder, Refusals
from netutil.agent.service.trace import Traces
from netutil.agent.service.tracing import Tracing
from netutil.agent.serving import ServedSocket, served
from netutil.v1alpha import node_pb2, node_pb2_grpc

_CONNECTIONS = ConnectionLimits(64, 64)
_NODE = node_pb2.DESCRIPTOR.services_by_name["Node"].full_name


@contextlib.asynccontextmanager
async def operators_served(rooms: Rooms) -> AsyncIterator[None]:
    """Serve `v1alpha.Node` on the operators' socket until the end of the block. Raises OSError."""
    log, in_flight, scheduler = CallLog(), InFlight(InFlightLimits()), FairScheduler()
    tracing = Tracing()  # no subscriber ever joins: operators do not see their own calls
    observe = rooms.metrics.observe
    recorder = CallRecorder(log, observe, tracing)
    refusals = Refusals(recorder, rooms.audit.refused)
    answering = Answering(recorder, refusals, in_flight, scheduler)
    policy = PodPolicy(
        ConnectionRegistry(),
        scheduler,
        in_flight,
        refusals.refuse,
        rooms.audit.refused,
        rooms.policy.sizes,
    )

    def add(server: grpc.aio.Server) -> tuple[str, ...]:
        node_pb2_grpc.add_NodeServicer_to_server(_node(rooms, answering), server)
        return (_NODE,)

    listener = listen(rooms.settings.admin_socket, mode=0o600, directory_mode=0o700)
    served_socket = ServedSocket(
        _identify,
        _CONNECTIONS,
        AdmissionCounts(),
        rooms.pin,
        rooms.socket_health,
        closer=rooms.pod_socket.closer,
    )
    async with served(listener, served_socket, policy, add, rooms.tracing.stop):
        yield


def _node(rooms: Rooms, answering: Answering) -> Node:
    settings, summaries = rooms.settings, PodSummaries(rooms.registry, rooms.log)
    return Node(
        rooms.pods,
        rooms.callers,
        answering,
        summaries,
        Describing(
            rooms.tree,
            rooms.callers,
            rooms.pods,
            rooms.reads,
            summaries,
            rooms.netutil.parts,
            settings.pod_resources,
        ),
        DescribingNode(rooms.pods, rooms.reads, settings.host_root),
        Activity(
            rooms.pods,
            rooms.registry,
            settings.max_connections,
            rooms.log,
            rooms.in_flight,
            rooms.watching,
        ),
        Traces(rooms.tracing, rooms.pods),
        Explaining(rooms.tree, rooms.callers, rooms.pods, rooms.registry, rooms.limits),
        Doctor(
            installation_of(settings, rooms.pin_name),
            rooms.tree,
            rooms.callers,
            rooms.pods,
            rooms.resources,
            rooms.registry,
            rooms.reads,
        ),
    )


def _identify(connection: socket.socket) -> None:
    credentials = peer_credentials(connection)
    if credentials.uid != 0:
        raise Denied(
            Reason.NOT_AN_OPERATOR,
            f"The operator socket answers uid 0 only, not uid {credentials.uid}.",
            read="SO_PEERCRED",
        )
