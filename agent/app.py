"""Builds the components of an agent from its configuration; nothing runs or is bound yet."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

import grpc
from netutil.agent.admin.describe import NodeDescriber, PodDescriber
from netutil.agent.admin.diagnostics import Diagnostics, Installation
from netutil.agent.admin.explain import Explainer
from netutil.agent.admin.pod_summary import PodSummaries
from netutil.agent.admin.processes import ProcessLister
from netutil.agent.admin.stats import Activity, TraceStreams
from netutil.agent.api.admin_service import Node, NodeReports
from netutil.agent.api.call_runner import CallRecorder, CallRunner, Rejections
from netutil.agent.api.pod_service import NetUtil
from netutil.agent.collect.caller import CallerResolver
from netutil.agent.collect.claim_sources import ClaimSources
from netutil.agent.collect.collector import Collector
from netutil.agent.collect.container_cache import ContainerCache
from netutil.agent.collect.live_networks import LiveNetworks
from netutil.agent.collect.network_cache import NetworkCache
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.collect.retention import Kept, Memos, Retention
from netutil.agent.config import Config
from netutil.agent.connections.admission import AdmissionCounts
from netutil.agent.connections.attribution import KnownPeers
from netutil.agent.connections.policy import PodPolicy, ServerSizes
from netutil.agent.connections.registry import ConnectionRegistry
from netutil.agent.connections.seen_pods import SeenPods
from netutil.agent.connections.serving import MAX_REQUEST_BYTES, ServedSocket, serve
from netutil.agent.device_plugin.plugin import PluginState
from netutil.agent.errors import PermissionDenied, Reason
from netutil.agent.facts.device_metadata import DeviceMetadataFiles
from netutil.agent.facts.plugin_tree import plugins_directory
from netutil.agent.grpcserver.ancillary import Closer
from netutil.agent.identity.cgroups import CgroupTree, read_cgroup_tree
from netutil.agent.identity.held_cgroups import MAX_HELD, HeldCgroups
from netutil.agent.identity.peer import NO_POD, Peer, identify_peer
from netutil.agent.identity.pidfd import PinPeer, choose_pin, peer_credentials, pin_by_peer_pidfd
from netutil.agent.kubelet.podresources.directory import ResourceDirectory
from netutil.agent.limits.descriptors import (
    affordable_connections,
    affordable_first_processes,
    affordable_held_cgroups,
    affordable_held_files,
    affordable_namespaces,
    descriptors_for,
)
from netutil.agent.limits.in_flight import InFlight, InFlightLimits
from netutil.agent.limits.limits import ConnectionLimits, RateLimits
from netutil.agent.limits.scheduler import FairScheduler
from netutil.agent.listener.ownership import SocketHealth
from netutil.agent.listener.passed_descriptors import can_refuse_descriptors
from netutil.agent.listener.unix_socket import listen
from netutil.agent.messages.all_facts import AllFacts
from netutil.agent.messages.answers import Answers
from netutil.agent.observability.audit import Audit, Names
from netutil.agent.observability.build_info import read_build_info
from netutil.agent.observability.call_stats import CallFeed, CallStats
from netutil.agent.observability.memory import MemoryLimit, own_memory_cgroup
from netutil.agent.observability.metrics import Metrics
from netutil.agent.observability.watchdog import Watchdog
from netutil.agent.parsers import rtnetlink
from netutil.agent.parsers.pod_cgroups import locate
from netutil.agent.pod_source import create_claims_api, create_source
from netutil.agent.pods.claims_api import ClaimsApi
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.flaws import Flaws
from netutil.agent.readings import limits_of, readings
from netutil.agent.watch.notifier import ChangeNotifier
from netutil.agent.watch.stream import SnapshotStreams
from netutil.v1alpha import node_pb2, node_pb2_grpc

_LOG = logging.getLogger(__name__)
_ADMIN_CONNECTIONS = ConnectionLimits(64, 64)
_NODE = node_pb2.DESCRIPTOR.services_by_name["Node"].full_name


@dataclass(frozen=True, slots=True)
class Components:
    """The components of one agent. Used on its event loop."""

    config: Config
    tree: CgroupTree
    pin: PinPeer
    pin_name: str
    pods: PodDirectory
    resources: ResourceDirectory
    claims_api: ClaimsApi | None
    reads: ReadPool
    callers: CallerResolver
    containers: ContainerCache
    networks: NetworkCache
    registry: ConnectionRegistry
    limits: ConnectionLimits
    policy: PodPolicy
    pod_socket: ServedSocket
    socket_health: SocketHealth
    watchdog: Watchdog
    memory: MemoryLimit
    call_stats: CallStats
    call_feed: CallFeed
    in_flight: InFlight
    notifier: ChangeNotifier
    metrics: Metrics
    audit: Audit
    all_facts: AllFacts
    netutil: NetUtil
    retention: Retention
    device_plugin: PluginState


def build(config: Config) -> Components:
    """Return the components. Raises OSError, ValueError if the node cannot meet `config`."""
    namespaces = affordable_namespaces(config.max_network_namespaces)
    limits = ConnectionLimits(
        affordable_connections(config.max_connections, namespaces),
        config.max_connections_per_pod,
    )
    held_cgroups = HeldCgroups(affordable_held_cgroups(MAX_HELD, limits.total, namespaces))
    tree = read_cgroup_tree(config.host_root, config.cgroup_root, held_cgroups)
    pin, pin_name = choose_pin()
    flaws = Flaws()
    source = create_source(config, flaws)
    pods = PodDirectory(source, refresh_seconds=config.pod_refresh, flaws=flaws)
    # The mount of the socket, which every caller with such a device knows of.
    resources = ResourceDirectory(
        config.pod_resources, config.pod_refresh, hidden_resource=config.device_plugin
    )
    device_plugin = PluginState(config.device_plugin)
    reads = ReadPool(threads=config.host_read_threads)
    first_processes = affordable_first_processes(limits.total, namespaces, held_cgroups.max_held)
    callers = CallerResolver(tree, pods, reads, first_processes)
    networks = NetworkCache(reads.run, namespaces)
    live = LiveNetworks(networks, callers.host_namespaces)
    registry, log, call_feed = ConnectionRegistry(), CallStats(), CallFeed()
    scheduler, socket_health, counts = FairScheduler(NO_POD), SocketHealth(), AdmissionCounts()
    held_files = affordable_held_files(
        limits.total, namespaces, held_cgroups.max_held, first_processes
    )
    containers = ContainerCache(callers.container_places, held_files)
    metadata, claims_api = _device_metadata(config), create_claims_api(config)
    claims = ClaimSources(metadata, claims_api)
    collector = Collector(callers, reads, resources, config.host_root, containers, live, claims)
    notifier = ChangeNotifier(
        callers,
        pods,
        resources,
        live,
        containers,
        config.pod_refresh,
        collector.claim_devices,
    )
    watchdog = Watchdog(config.event_loop_stall_seconds)
    memory = MemoryLimit(own_memory_cgroup(tree), config.memory_high_watermark_percent)
    in_flight = InFlight(
        InFlightLimits(
            config.max_calls_per_pod,
            config.max_streams_per_pod,
            config.max_send_buffer_bytes_per_pod,
            config.max_send_buffer_bytes,
        )
    )
    closer = None if can_refuse_descriptors() else Closer()
    metrics = Metrics()
    audit = Audit(_names_in(pods), metrics.count_error, metrics.count_suppressed)
    recorder = CallRecorder(log, metrics.observe, call_feed)
    rejections = Rejections(recorder, audit.record_rejection)
    policy = PodPolicy(
        registry,
        scheduler,
        in_flight,
        rejections.reject,
        audit.record_rejection,
        ServerSizes(config.max_header_bytes, MAX_REQUEST_BYTES),
        RateLimits(
            config.max_calls_per_second_per_pod,
            config.max_call_burst_per_pod,
            config.pod_cost_per_second,
        ),
    )
    metrics.add(
        *readings(
            max_connections=limits.total,
            socket_health=socket_health,
            callers=callers,
            containers=containers,
            held_cgroups=held_cgroups,
            watchdog=watchdog,
            memory=memory,
            registry=registry,
            counts=counts,
            policy=policy,
            closer=closer,
            in_flight=in_flight,
            notifier=notifier,
            networks=networks,
            reads=reads,
            pods=pods,
            resources=resources,
            environments=collector.environments,
            pci=collector.pci,
            claims=claims,
            device_plugin=device_plugin,
        )
    )
    metrics.set_build_info(read_build_info())
    metrics.set_limits(limits_of(config))
    runner = CallRunner(recorder, rejections, in_flight, scheduler)
    answers = Answers(collector)
    all_facts = AllFacts(collector, answers, rejections.record_part)
    watches = SnapshotStreams(callers, collector, notifier, memory.ensure_capacity, scheduler)
    known = KnownPeers(pin is pin_by_peer_pidfd, SeenPods(tree))
    kept = Kept(
        by_pod={
            "call_logs": log,
            "scheduler_accounts": scheduler,
            "snapshot_tokens": watches.pace.tokens,
            "network_tokens": networks.cpu_tokens,
            **{f"{name}_tokens": tokens for name, tokens in policy.tokens.items()},
        },
        by_use={
            "cgroup_identities": tree.identities,
            "cgroup_owners": tree.made_by_root,
            "pod_cgroups": held_cgroups,
            "cgroup_keys": known.cgroup_keys,
            "recent_processes": known.recent,
            "cgroup_paths": Memos((locate,)),
            "first_processes": callers.first_processes,
            "unnamed_containers": pods.first_marks,
            "removed_pods": pods.remembered,
            "pod_flaws": pods.flaws.said,
            "pod_resources": resources,
            "reported_networks": collector.reported_networks,
            "netlink_messages": Memos(rtnetlink.MEMOS),
            "pci_functions": collector.pci,
            "claim_errors": collector.claim_devices.errors,
            **({} if metadata is None else {"device_metadata": metadata}),
        },
        by_call={
            "pods_in_flight": in_flight,
            "pods_with_reads": reads,
            "audit_windows": audit,
            "processes_over_a_limit": known.over_limit,
            "containers": containers,
            "network_namespaces": networks,
            "environments": collector.environments,
        },
    )
    retention = Retention(kept, known.pods, registry, pods, reads)
    metrics.add_held(retention.counts, lambda: float(retention.sweeps))
    _LOG.info(
        "agent: peers are pinned by %s; cgroup hierarchies: %s; pods from %s",
        pin_name,
        ", ".join(sorted(name or "unified" for name in tree.hierarchies)) or "none",
        config.pod_source,
    )
    return Components(
        config=config,
        tree=tree,
        pin=pin,
        pin_name=pin_name,
        pods=pods,
        resources=resources,
        claims_api=claims_api,
        reads=reads,
        callers=callers,
        containers=containers,
        networks=networks,
        registry=registry,
        limits=limits,
        policy=policy,
        pod_socket=ServedSocket(
            partial(_identify_pod, pin, tree),
            limits,
            counts,
            pin,
            socket_health,
            memory.check_capacity,
            known,
            closer,
        ),
        socket_health=socket_health,
        watchdog=watchdog,
        memory=memory,
        call_stats=log,
        call_feed=call_feed,
        in_flight=in_flight,
        notifier=notifier,
        metrics=metrics,
        audit=audit,
        all_facts=all_facts,
        netutil=NetUtil(callers, collector, answers, all_facts, runner, watches),
        retention=retention,
        device_plugin=device_plugin,
    )


def _device_metadata(config: Config) -> DeviceMetadataFiles | None:
    """Return the files of the drivers of ResourceClaims, None where they are not to be read."""
    if config.resource_claims == "off":
        return None
    return DeviceMetadataFiles(plugins_directory(config.kubelet_root))


def _identify_pod(pin: PinPeer, tree: CgroupTree, connection: socket.socket) -> Peer:
    return identify_peer(connection, pin, tree)


def _names_in(pods: PodDirectory) -> Callable[[str | None, str | None], Names]:
    def names(pod_uid: str | None, container_id: str | None) -> Names:
        match = pods.peek(pod_uid, container_id)
        if match is None:
            return "", "", ""
        metadata = match.pod.metadata
        return metadata.namespace, metadata.name, match.container_name

    return names


@contextlib.asynccontextmanager
async def serve_admin(components: Components) -> AsyncIterator[None]:
    """Serve `v1alpha.Node` on the operator socket until the end of the block. Raises OSError."""
    log, in_flight, scheduler = CallStats(), InFlight(InFlightLimits()), FairScheduler()
    call_feed = CallFeed()  # without subscribers: the calls of the operator socket are not traced
    observe = components.metrics.observe
    recorder = CallRecorder(log, observe, call_feed)
    rejections = Rejections(recorder, components.audit.record_rejection)
    runner = CallRunner(recorder, rejections, in_flight, scheduler)
    policy = PodPolicy(
        ConnectionRegistry(),
        scheduler,
        in_flight,
        rejections.reject,
        components.audit.record_rejection,
        components.policy.sizes,
    )

    def add(server: grpc.aio.Server) -> tuple[str, ...]:
        node_pb2_grpc.add_NodeServicer_to_server(_admin_service(components, runner), server)
        return (_NODE,)

    listener = listen(components.config.admin_socket, mode=0o600, directory_mode=0o700)
    served_socket = ServedSocket(
        _identify_admin,
        _ADMIN_CONNECTIONS,
        AdmissionCounts(),
        components.pin,
        components.socket_health,
        closer=components.pod_socket.closer,
    )
    async with serve(listener, served_socket, policy, add, components.call_feed.stop):
        yield


def _admin_service(components: Components, runner: CallRunner) -> Node:
    config, summaries = components.config, PodSummaries(components.registry, components.call_stats)
    reports = NodeReports(
        pods=components.pods,
        callers=components.callers,
        summaries=summaries,
        pod_describer=PodDescriber(
            components.tree,
            components.callers,
            components.pods,
            components.reads,
            summaries,
            components.all_facts.parts,
            config.pod_resources,
        ),
        node_describer=NodeDescriber(components.pods, components.reads, config.host_root),
        activity=Activity(
            components.pods,
            components.registry,
            config.max_connections,
            components.call_stats,
            components.in_flight,
            components.notifier,
            components.reads,
        ),
        traces=TraceStreams(components.call_feed, components.pods),
        explainer=Explainer(
            components.tree,
            components.callers,
            components.pods,
            components.registry,
            components.limits,
            components.reads,
        ),
        diagnostics=Diagnostics(
            installation_of(
                config,
                components.pin_name,
                components.memory,
                components.device_plugin,
                components.claims_api,
            ),
            components.tree,
            components.callers,
            components.pods,
            components.resources,
            components.registry,
            components.reads,
        ),
        processes=ProcessLister(
            components.callers, components.pods, components.resources, components.reads
        ),
    )
    return Node(runner, reports)


def _identify_admin(connection: socket.socket) -> None:
    credentials = peer_credentials(connection)
    if credentials.uid != 0:
        raise PermissionDenied(
            Reason.NOT_AN_OPERATOR,
            f"The operator socket answers uid 0 only, not uid {credentials.uid}.",
            read="SO_PEERCRED",
        )


def installation_of(
    config: Config,
    pin_name: str,
    memory: MemoryLimit,
    device_plugin: PluginState,
    claims_api: ClaimsApi | None = None,
) -> Installation:
    """Return the values of the configuration that the diagnostics check."""
    return Installation(
        claims=ClaimSources(_device_metadata(config), claims_api),
        host_root=config.host_root,
        socket=config.socket,
        admin_socket=config.admin_socket,
        believes_anybody=config.kubelet_verify == "none"
        and config.pod_source in ("kubelet", "auto"),
        pod_resources=config.pod_resources,
        max_connections=config.max_connections,
        descriptors_needed=descriptors_for(config.max_connections, config.max_network_namespaces),
        pin_name=pin_name,
        memory=memory,
        device_plugin=device_plugin,
    )
