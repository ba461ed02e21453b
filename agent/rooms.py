"""Makes all rooms of an agent from its settings: who knows whom is read here.

Nothing runs yet, and nothing is bound; `daemon` does that.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from netutil.agent.collect.container_cache import ContainerCache
from netutil.agent.collect.network_cache import NetworkCache
from netutil.agent.connections.admission import AdmissionCounts
from netutil.agent.connections.attribution import KnownPeers
from netutil.agent.connections.policy import PodPolicy, ServerSizes
from netutil.agent.connections.registry import ConnectionRegistry
from netutil.agent.connections.seen_pods import SeenPods
from netutil.agent.grpcserver.ancillary import Closer
from netutil.agent.identity.cgroups import CgroupTree, read_cgroup_tree
from netutil.agent.identity.held_cgroups import MAX_HELD, HeldCgroups
from netutil.agent.identity.peer import NO_POD, Peer, identify_peer
from netutil.agent.identity.pinning import Pin, choose_pin, pin_by_peer_pidfd
from netutil.agent.limits.descriptors import (
    affordable_connections,
    affordable_held_cgroups,
    affordable_held_files,
    affordable_namespaces,
)
from netutil.agent.limits.in_flight import InFlight, InFlightLimits
from netutil.agent.limits.limits import ConnectionLimits, RateLimits
from netutil.agent.limits.scheduler import FairScheduler
from netutil.agent.listener.ownership import SocketHealth
from netutil.agent.listener.passed_descriptors import can_refuse_descriptors
from netutil.agent.ops.audit import Audit, Names
from netutil.agent.ops.memory import MemoryLimit, own_memory_cgroup
from netutil.agent.ops.metrics import Metrics
from netutil.agent.ops.watchdog import Watchdog
from netutil.agent.parsers import rtnetlink
from netutil.agent.parsers.pod_cgroups import locate
from netutil.agent.podresources.directory import ResourceDirectory
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.flaws import Flaws
from netutil.agent.readings import limits_of, readings
from netutil.agent.service.call_log import CallLog
from netutil.agent.service.caller import Callers
from netutil.agent.service.calls import Answering
from netutil.agent.service.gather import Gathering
from netutil.agent.service.live import LiveNetworks
from netutil.agent.service.netutil import NetUtil
from netutil.agent.service.reads import ReadPool
from netutil.agent.service.refusals import CallRecorder, Refusals
from netutil.agent.service.retention import Kept, Memos, Retention
from netutil.agent.service.tracing import Tracing
from netutil.agent.service.watch import Watches
from netutil.agent.service.watching import Watching
from netutil.agent.serving import MAX_REQUEST_BYTES, ServedSocket
from netutil.agent.settings import Settings
from netutil.agent.sources import open_source

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rooms:
    """The rooms of one agent. Used on its event loop."""

    settings: Settings
    tree: CgroupTree
    pin: Pin
    pin_name: str
    pods: PodDirectory
    resources: ResourceDirectory
    reads: ReadPool
    callers: Callers
    containers: ContainerCache
    networks: NetworkCache
    registry: ConnectionRegistry
    limits: ConnectionLimits
    policy: PodPolicy
    pod_socket: ServedSocket
    socket_health: SocketHealth
    watchdog: Watchdog
    memory: MemoryLimit
    log: CallLog
    tracing: Tracing
    in_flight: InFlight
    watching: Watching
    metrics: Metrics
    audit: Audit
    netutil: NetUtil
    retention: Retention


def make_rooms(settings: Settings) -> Rooms:
    """Return the rooms. Raises OSError, ValueError for settings that cannot be met here."""
    namespaces = affordable_namespaces(settings.max_network_namespaces)
    limits = ConnectionLimits(
        affordable_connections(settings.max_connections, namespaces),
        settings.max_connections_per_pod,
    )
    held_cgroups = HeldCgroups(affordable_held_cgroups(MAX_HELD, limits.total, namespaces))
    tree = read_cgroup_tree(settings.host_root, settings.cgroup_root, held_cgroups)
    pin, pin_name = choose_pin()
    flaws = Flaws()
    source = open_source(settings, flaws)
    pods = PodDirectory(source, refresh_seconds=settings.pod_refresh, flaws=flaws)
    resources = ResourceDirectory(settings.pod_resources, settings.pod_refresh)
    reads = ReadPool(threads=settings.max_read_threads)
    callers = Callers(tree, pods, reads)
    networks = NetworkCache(reads.run, namespaces)
    live = LiveNetworks(networks, callers.host_namespaces)
    registry, log, tracing = ConnectionRegistry(), CallLog(), Tracing()
    scheduler, socket_health, counts = FairScheduler(NO_POD), SocketHealth(), AdmissionCounts()
    held_files = affordable_held_files(limits.total, namespaces, held_cgroups.max_held)
    containers = ContainerCache(callers.container_places, held_files)
    watching = Watching(callers, pods, resources, live, containers, settings.pod_refresh)
    gathering = Gathering(callers, reads, resources, settings.host_root, containers, live)
    watchdog = Watchdog(settings.stall_seconds)
    memory = MemoryLimit(own_memory_cgroup(tree), settings.memory_percent)
    in_flight = InFlight(
        InFlightLimits(
            settings.max_calls_per_pod,
            settings.max_streams_per_pod,
            settings.max_unread_bytes_per_pod,
            settings.max_unread_bytes,
        )
    )
    closer = None if can_refuse_descriptors() else Closer()
    metrics = Metrics()
    audit = Audit(_names_in(pods), metrics.refused, metrics.not_logged)
    recorder = CallRecorder(log, metrics.observe, tracing)
    refusals = Refusals(recorder, audit.refused)
    policy = PodPolicy(
        registry,
        scheduler,
        in_flight,
        refusals.refuse,
        audit.refused,
        ServerSizes(settings.max_header_bytes, MAX_REQUEST_BYTES),
        RateLimits(
            settings.max_calls_per_second_per_pod,
            settings.max_call_burst_per_pod,
            settings.pod_cost_per_second,
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
            watching=watching,
            networks=networks,
            reads=reads,
            pods=pods,
            resources=resources,
            environments=gathering.environments,
            pci=gathering.pci,
        )
    )
    metrics.set_limits(limits_of(settings))
    answering = Answering(recorder, refusals, in_flight, scheduler)
    watches = Watches(callers, gathering, watching, memory.ensure_room, scheduler)
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
            "reported_networks": gathering.reported_networks,
            "netlink_messages": Memos(rtnetlink.MEMOS),
            "pci_functions": gathering.pci,
        },
        by_call={
            "pods_in_flight": in_flight,
            "pods_with_reads": reads,
            "refusals": audit,
            "processes_over_a_limit": known.over_limit,
            "containers": containers,
            "network_namespaces": networks,
            "environments": gathering.environments,
        },
    )
    retention = Retention(kept, known.pods, registry, pods, reads)
    metrics.add_held(retention.counts, lambda: float(retention.sweeps))
    _LOG.info(
        "agent: peers are pinned by %s; cgroup hierarchies: %s; pods from %s",
        pin_name,
        ", ".join(sorted(name or "unified" for name in tree.hierarchies)) or "none",
        settings.pod_source,
    )
    return Rooms(
        settings=settings,
        tree=tree,
        pin=pin,
        pin_name=pin_name,
        pods=pods,
        resources=resources,
        reads=reads,
        callers=callers,
        containers=containers,
        networks=networks,
        registry=registry,
        limits=limits,
        policy=policy,
        pod_socket=ServedSocket(
            partial(_identify, pin, tree),
            limits,
            counts,
            pin,
            socket_health,
            memory.refusal,
            known,
            closer,
        ),
        socket_health=socket_health,
        watchdog=watchdog,
        memory=memory,
        log=log,
        tracing=tracing,
        in_flight=in_flight,
        watching=watching,
        metrics=metrics,
        audit=audit,
        netutil=NetUtil(callers, gathering, answering, watches, refusals),
        retention=retention,
    )


def _identify(pin: Pin, tree: CgroupTree, connection: socket.socket) -> Peer:
    return identify_peer(connection, pin, tree)


def _names_in(pods: PodDirectory) -> Callable[[str | None, str | None], Names]:
    def names(pod_uid: str | None, container_id: str | None) -> Names:
        match = pods.peek(pod_uid, container_id)
        if match is None:
            return "", "", ""
        metadata = match.pod.metadata
        return metadata.namespace, metadata.name, match.container_name

    return names
