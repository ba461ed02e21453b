"""Builds the components of an agent from its configuration; nothing runs or is bound yet."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from netutil.agent.api.call_runner import CallRecorder, CallRunner, Rejections
from netutil.agent.api.pod_service import NetUtil
from netutil.agent.collect.caller import CallerResolver
from netutil.agent.collect.claim_sources import ClaimSources
from netutil.agent.collect.collector import Collector
from netutil.agent.collect.container_cache import ContainerCache
from netutil.agent.collect.environment_reader import EnvironmentReader
from netutil.agent.collect.live_networks import LiveNetworks
from netutil.agent.collect.network_cache import NetworkCache
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.collect.retention import Kept, Memos, Retention
from netutil.agent.components import (
    Components,
    Facts,
    Identity,
    Kubernetes,
    Observers,
    PodService,
)
from netutil.agent.config import Config, Host, Limits, Observability
from netutil.agent.connections.admission import AdmissionCounts, AdmissionRules
from netutil.agent.connections.attribution import KnownPeers
from netutil.agent.connections.policy import PodPolicy, ServerSizes
from netutil.agent.connections.registry import ConnectionRegistry
from netutil.agent.connections.seen_pods import SeenPods
from netutil.agent.connections.serving import MAX_REQUEST_BYTES, ServedSocket
from netutil.agent.device_plugin.plugin import PluginState
from netutil.agent.grpcserver.ancillary import Closer
from netutil.agent.identity.cgroup_mounts import read_cgroup_tree
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.held_cgroups import MAX_HELD, HeldCgroups
from netutil.agent.identity.peer import NO_POD, Peer, identify_peer
from netutil.agent.identity.pidfd import PinPeer, choose_pin, pin_by_peer_pidfd
from netutil.agent.kubelet.podresources.directory import ResourceDirectory
from netutil.agent.limits.descriptors import (
    affordable_connections,
    affordable_first_processes,
    affordable_held_cgroups,
    affordable_held_files,
    affordable_namespaces,
)
from netutil.agent.limits.in_flight import InFlight, InFlightLimits
from netutil.agent.limits.limits import ConnectionLimits, RateLimits
from netutil.agent.limits.scheduler import FairScheduler
from netutil.agent.listener.ownership import SocketHealth
from netutil.agent.listener.passed_descriptors import can_refuse_descriptors
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
from netutil.agent.pod_source import create_claims_api, create_device_metadata, create_source
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.flaws import Flaws
from netutil.agent.readings import limits_of, readings
from netutil.agent.watch.notifier import ChangeNotifier
from netutil.agent.watch.stream import SnapshotStreams

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Capacity:
    """What the limit of open files affords."""

    namespaces: int
    connections: ConnectionLimits
    held_cgroups: int
    first_processes: int
    held_files: int


def build(config: Config) -> Components:
    """Return the components. Raises OSError, ValueError if the node cannot meet `config`."""
    capacity = _capacity(config.limits)
    identity = _identity(config.host, capacity)
    kubernetes = _kubernetes(config)
    facts = _facts(config, capacity, identity, kubernetes)
    observers = _observers(config.observability, identity, kubernetes)
    service = _service(config, capacity, identity, kubernetes, facts, observers)
    kept = _kept(identity, kubernetes, facts, observers, service)
    retention = Retention(
        kept,
        service.socket.rules.known.pods,
        service.policy.registry,
        kubernetes.pods,
        facts.reads,
    )
    components = Components(config, identity, kubernetes, facts, observers, service, retention)
    for found in readings(components):
        observers.metrics.add(*found)
    observers.metrics.set_limits(limits_of(config.limits))
    observers.metrics.add_held(retention.counts, lambda: float(retention.sweeps))
    _LOG.info(
        "agent: peers are pinned by %s; cgroup hierarchies: %s; pods from %s",
        identity.pin_name,
        ", ".join(sorted(name or "unified" for name in identity.tree.hierarchies)) or "none",
        config.pod_source.kind,
    )
    return components


def _capacity(limits: Limits) -> _Capacity:
    """Return what can be held open. Raises OSError if that is less than the least."""
    namespaces = affordable_namespaces(limits.network_namespaces)
    connections = ConnectionLimits(
        affordable_connections(limits.connections.total, namespaces), limits.connections.per_pod
    )
    cgroups = affordable_held_cgroups(MAX_HELD, connections.total, namespaces)
    first_processes = affordable_first_processes(connections.total, namespaces, cgroups)
    files = affordable_held_files(connections.total, namespaces, cgroups, first_processes)
    return _Capacity(namespaces, connections, cgroups, first_processes, files)


def _identity(host: Host, capacity: _Capacity) -> Identity:
    held_cgroups = HeldCgroups(capacity.held_cgroups)
    tree = read_cgroup_tree(host.root, host.cgroup_root, held_cgroups)
    return Identity(tree, *choose_pin())


def _kubernetes(config: Config) -> Kubernetes:
    flaws, refresh_seconds = Flaws(), config.pod_source.refresh_seconds
    source = create_source(config, flaws)
    kubelet = config.kubelet
    return Kubernetes(
        PodDirectory(source, refresh_seconds=refresh_seconds, flaws=flaws),
        # The mount of the socket, which every caller with such a device knows of.
        ResourceDirectory(
            kubelet.pod_resources, refresh_seconds, hidden_resource=kubelet.device_plugin
        ),
        ClaimSources(create_device_metadata(kubelet), create_claims_api(config)),
        PluginState(kubelet.device_plugin),
    )


def _facts(
    config: Config, capacity: _Capacity, identity: Identity, kubernetes: Kubernetes
) -> Facts:
    reads = ReadPool(threads=config.limits.host_read_threads)
    callers = CallerResolver(identity.tree, kubernetes.pods, reads)
    environments = EnvironmentReader(callers, capacity.first_processes)
    containers = ContainerCache(callers.directories.places, capacity.held_files)
    networks = NetworkCache(reads.run, capacity.namespaces)
    live = LiveNetworks(networks, callers.host_namespaces)
    collector = Collector(
        callers,
        environments,
        kubernetes.resources,
        config.host.root,
        containers,
        live,
        kubernetes.claims,
    )
    return Facts(reads, callers, containers, networks, live, collector)


def _observers(config: Observability, identity: Identity, kubernetes: Kubernetes) -> Observers:
    metrics = Metrics()
    metrics.set_build_info(read_build_info())
    return Observers(
        metrics,
        Audit(_names_in(kubernetes.pods), metrics.count_error, metrics.count_suppressed),
        CallStats(),
        CallFeed(),
        Watchdog(config.event_loop_stall_seconds),
        MemoryLimit(own_memory_cgroup(identity.tree), config.memory_high_watermark_percent),
    )


def _service(
    config: Config,
    capacity: _Capacity,
    identity: Identity,
    kubernetes: Kubernetes,
    facts: Facts,
    observers: Observers,
) -> PodService:
    calls, sizes = config.limits.calls, config.limits.sizes
    callers, collector, memory = facts.callers, facts.collector, observers.memory
    recorder = CallRecorder(observers.call_stats, observers.metrics.observe, observers.call_feed)
    rejections = Rejections(recorder, observers.audit.record_rejection)
    scheduler = FairScheduler(NO_POD)
    in_flight = InFlight(
        InFlightLimits(
            calls.in_flight,
            calls.streams,
            sizes.send_buffer_bytes_per_pod,
            sizes.send_buffer_bytes,
        )
    )
    policy = PodPolicy(
        ConnectionRegistry(),
        scheduler,
        in_flight,
        rejections.reject,
        observers.audit.record_rejection,
        ServerSizes(sizes.header_bytes, MAX_REQUEST_BYTES),
        RateLimits(calls.per_second, calls.burst, calls.cost_per_second),
    )
    notifier = ChangeNotifier(
        callers,
        kubernetes.pods,
        kubernetes.resources,
        facts.live,
        facts.containers,
        config.pod_source.refresh_seconds,
        collector.claim_devices,
    )
    runner = CallRunner(recorder, rejections, in_flight, scheduler)
    answers = Answers(collector)
    all_facts = AllFacts(collector, answers, rejections.record_part)
    watches = SnapshotStreams(callers, collector, notifier, memory.ensure_capacity, scheduler)
    pin, tree = identity.pin, identity.tree
    rules = AdmissionRules(
        partial(_identify_pod, pin, tree),
        capacity.connections,
        AdmissionCounts(),
        memory.check_capacity,
        KnownPeers(pin is pin_by_peer_pidfd, SeenPods(tree)),
    )
    closer = None if can_refuse_descriptors() else Closer()
    return PodService(
        ServedSocket(rules, pin, SocketHealth(), closer),
        policy,
        in_flight,
        notifier,
        watches,
        all_facts,
        NetUtil(callers, collector, answers, all_facts, runner, watches),
    )


def _kept(
    identity: Identity,
    kubernetes: Kubernetes,
    facts: Facts,
    observers: Observers,
    service: PodService,
) -> Kept:
    """Return every cache whose entries are swept."""
    tree, pods, collector = identity.tree, kubernetes.pods, facts.collector
    known, metadata = service.socket.rules.known, kubernetes.claims.files
    tokens = service.policy.tokens
    return Kept(
        by_pod={
            "call_logs": observers.call_stats,
            "scheduler_accounts": service.policy.scheduler,
            "snapshot_tokens": service.watches.pace.tokens,
            "network_tokens": facts.networks.cpu_tokens,
            **{f"{name}_tokens": of_pods for name, of_pods in tokens.items()},
        },
        by_use={
            "cgroup_identities": tree.identities,
            "cgroup_owners": tree.made_by_root,
            "pod_cgroups": tree.held,
            "cgroup_keys": known.cgroup_keys,
            "recent_processes": known.recent,
            "cgroup_paths": Memos((locate,)),
            "first_processes": collector.environments.reader.first_processes,
            "unnamed_containers": pods.first_marks,
            "removed_pods": pods.remembered,
            "pod_flaws": pods.flaws.said,
            "pod_resources": kubernetes.resources,
            "reported_networks": collector.networks.reported,
            "netlink_messages": Memos(rtnetlink.MEMOS),
            "pci_functions": collector.pci,
            "claim_errors": collector.claim_devices.errors,
            **({} if metadata is None else {"device_metadata": metadata}),
        },
        by_call={
            "pods_in_flight": service.in_flight,
            "pods_with_reads": facts.reads,
            "audit_windows": observers.audit,
            "processes_over_a_limit": known.over_limit,
            "containers": facts.containers,
            "network_namespaces": facts.networks,
            "environments": collector.environments.held,
        },
    )


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
