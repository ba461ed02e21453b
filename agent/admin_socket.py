"""Serves `v1alpha.Node` on the operator socket, for uid 0 of the host only."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator

import grpc
from netutil.agent.admin.describe import NodeDescriber, PodDescriber
from netutil.agent.admin.diagnostics import (
    ConnectionCapacity,
    Diagnostics,
    Installation,
    Paths,
)
from netutil.agent.admin.explain import Explainer
from netutil.agent.admin.pod_lister import PodLister
from netutil.agent.admin.pod_summary import PodSummaries
from netutil.agent.admin.processes import ProcessLister
from netutil.agent.admin.stats import Activity, TraceStreams
from netutil.agent.api.admin_service import Node, NodeReports, PodReports
from netutil.agent.api.call_runner import CallRecorder, CallRunner, Rejections
from netutil.agent.collect.claim_sources import ClaimSources
from netutil.agent.components import Components
from netutil.agent.connections.admission import AdmissionCounts, AdmissionRules
from netutil.agent.connections.policy import PodPolicy
from netutil.agent.connections.registry import ConnectionRegistry
from netutil.agent.connections.serving import ServedSocket, serve
from netutil.agent.errors import PermissionDenied, Reason
from netutil.agent.identity.pidfd import peer_credentials
from netutil.agent.limits.descriptors import (
    descriptors_for,
)
from netutil.agent.limits.in_flight import InFlight, InFlightLimits
from netutil.agent.limits.limits import ConnectionLimits
from netutil.agent.limits.scheduler import FairScheduler
from netutil.agent.listener.unix_socket import listen
from netutil.agent.observability.call_stats import CallFeed, CallStats
from netutil.agent.pod_source import create_device_metadata
from netutil.v1alpha import node_pb2, node_pb2_grpc

_ADMIN_CONNECTIONS = ConnectionLimits(64, 64)
_NODE = node_pb2.DESCRIPTOR.services_by_name["Node"].full_name


@contextlib.asynccontextmanager
async def serve_admin(components: Components) -> AsyncIterator[None]:
    """Serve `v1alpha.Node` on the operator socket until the end of the block. Raises OSError."""
    observers, pod_socket = components.observers, components.service.socket
    log, in_flight, scheduler = CallStats(), InFlight(InFlightLimits()), FairScheduler()
    call_feed = CallFeed()  # without subscribers: the calls of the operator socket are not traced
    recorder = CallRecorder(log, observers.metrics.observe, call_feed)
    rejections = Rejections(recorder, observers.audit.record_rejection)
    runner = CallRunner(recorder, rejections, in_flight, scheduler)
    policy = PodPolicy(
        ConnectionRegistry(),
        scheduler,
        in_flight,
        rejections.reject,
        observers.audit.record_rejection,
        components.service.policy.sizes,
    )

    def add(server: grpc.aio.Server) -> tuple[str, ...]:
        node_pb2_grpc.add_NodeServicer_to_server(Node(runner, _reports(components)), server)
        return (_NODE,)

    listener = listen(components.config.sockets.admin, mode=0o600, directory_mode=0o700)
    served_socket = ServedSocket(
        AdmissionRules(_identify_admin, _ADMIN_CONNECTIONS, AdmissionCounts()),
        pod_socket.pin,
        pod_socket.health,
        pod_socket.closer,
    )
    async with serve(listener, served_socket, policy, add, observers.call_feed.stop):
        yield


def _reports(components: Components) -> NodeReports:
    config, observers, service = components.config, components.observers, components.service
    pods, reads = components.kubernetes.pods, components.facts.reads
    return NodeReports(
        pods=_pod_reports(components),
        describer=NodeDescriber(pods, reads, config.host.root),
        activity=Activity(
            pods,
            service.policy.registry,
            config.limits.connections.total,
            observers.call_stats,
            service.in_flight,
            service.notifier,
            reads,
        ),
        traces=TraceStreams(observers.call_feed, pods),
        diagnostics=Diagnostics(
            _installation(components),
            components.identity.tree,
            components.facts.callers,
            pods,
            components.kubernetes.resources,
            service.policy.registry,
            reads,
        ),
    )


def _pod_reports(components: Components) -> PodReports:
    tree, service = components.identity.tree, components.service
    pods, resources = components.kubernetes.pods, components.kubernetes.resources
    callers, reads = components.facts.callers, components.facts.reads
    registry = service.policy.registry
    summaries = PodSummaries(registry, components.observers.call_stats)
    return PodReports(
        lister=PodLister(pods, callers, summaries),
        describer=PodDescriber(
            tree,
            callers,
            pods,
            reads,
            summaries,
            service.all_facts.parts,
            components.config.kubelet.pod_resources,
        ),
        processes=ProcessLister(callers, pods, resources, reads),
        explainer=Explainer(tree, callers, pods, registry, service.socket.rules.limits, reads),
    )


def _identify_admin(connection: socket.socket) -> None:
    credentials = peer_credentials(connection)
    if credentials.uid != 0:
        raise PermissionDenied(
            Reason.NOT_AN_OPERATOR,
            f"The operator socket answers uid 0 only, not uid {credentials.uid}.",
            read="SO_PEERCRED",
        )


def _installation(components: Components) -> Installation:
    """Return the values of the configuration that the diagnostics check."""
    config, kubernetes = components.config, components.kubernetes
    connections = config.limits.connections.total
    return Installation(
        paths=Paths(
            config.sockets.pods,
            config.sockets.admin,
            config.kubelet.pod_resources,
            config.host.root,
        ),
        believes_anybody=config.kubelet.api.verify == "none"
        and config.pod_source.kind in ("kubelet", "auto"),
        connections=ConnectionCapacity(
            connections, descriptors_for(connections, config.limits.network_namespaces)
        ),
        pin_name=components.identity.pin_name,
        memory=components.observers.memory,
        device_plugin=kubernetes.device_plugin,
        # Files of its own: the metrics of the agent's are of answers.
        claims=ClaimSources(create_device_metadata(config.kubelet), kubernetes.claims.api),
    )
