"""The operator socket: a door of its own, for the host's root alone, and the service behind it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from netutil.agent.door.door import Door
from netutil.agent.door.limits import Limits
from netutil.agent.door.table import ConnectionTable
from netutil.agent.errors import Denied, Reason
from netutil.agent.identity.pinning import peer_credentials
from netutil.agent.installation import installation_of
from netutil.agent.listener.ownership import SocketWatch
from netutil.agent.listener.unix_socket import listen
from netutil.agent.rooms import UNANSWERED_BYTES, Rooms
from netutil.agent.service.activity import Activity
from netutil.agent.service.admission import Admission
from netutil.agent.service.call_log import CallLog
from netutil.agent.service.calls import Answering
from netutil.agent.service.describe import Describing
from netutil.agent.service.describe_node import DescribingNode
from netutil.agent.service.doctor import Doctor
from netutil.agent.service.explain import Explaining
from netutil.agent.service.node import Node
from netutil.agent.service.pod_summary import PodSummaries
from netutil.agent.service.refusals import Refusals
from netutil.agent.service.trace import Traces
from netutil.agent.service.tracing import Tracing
from netutil.agent.service.unfinished import Unfinished, UnfinishedLimits
from netutil.agent.serving import served
from netutil.v1alpha import node_pb2, node_pb2_grpc

_OPERATORS = Limits(64, 64, UNANSWERED_BYTES)
_NODE = node_pb2.DESCRIPTOR.services_by_name["Node"].full_name


@contextlib.asynccontextmanager
async def operators_served(rooms: Rooms, private: Path) -> AsyncIterator[None]:
    """Serve `v1alpha.Node` on the operator socket until the end of the block.

    `private` is where gRPC listens behind it. Raises OSError.
    """
    table, log, unfinished = ConnectionTable(), CallLog(), Unfinished(UnfinishedLimits())
    tracing = Tracing()  # nobody joins it: operators are not shown themselves
    observe = rooms.metrics.observe
    refusals = Refusals(log, observe, rooms.audit.refused, tracing)
    answering = Answering(table, log, observe, unfinished, refusals, tracing)
    admission = Admission(table, unfinished, refusals)

    def add(server: grpc.aio.Server) -> tuple[str, ...]:
        node_pb2_grpc.add_NodeServicer_to_server(_node(rooms, answering), server)
        return (_NODE,)

    listener = listen(rooms.settings.admin_socket, mode=0o600, directory_mode=0o700)
    door = Door(listener, str(private), table, _identify, _OPERATORS, refused=rooms.refused_at_door)
    socket_watch = SocketWatch(door, rooms.pin, rooms.socket_health)
    async with served(private, door, socket_watch, add, admission, rooms.tracing.stop):
        yield


def _node(rooms: Rooms, answering: Answering) -> Node:
    settings, summaries = rooms.settings, PodSummaries(rooms.table, rooms.log)
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
            rooms.netutil.all_facts,
            settings.pod_resources,
        ),
        DescribingNode(rooms.pods, rooms.reads, settings.host_root),
        Activity(
            rooms.pods,
            rooms.table,
            settings.max_connections,
            rooms.log,
            rooms.unfinished,
            rooms.watching,
        ),
        Traces(rooms.tracing, rooms.pods),
        Explaining(rooms.tree, rooms.callers, rooms.pods, rooms.table, rooms.limits),
        Doctor(
            installation_of(settings, rooms.pin_name),
            rooms.tree,
            rooms.callers,
            rooms.pods,
            rooms.resources,
            rooms.table,
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
