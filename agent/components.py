"""The components of one agent, grouped by what they are for. `app.build` creates them.

All are used on the agent's event loop.
"""

from __future__ import annotations

from dataclasses import dataclass

from netutil.agent.api.pod_service import NetUtil
from netutil.agent.collect.caller import CallerResolver
from netutil.agent.collect.claim_sources import ClaimSources
from netutil.agent.collect.collector import Collector
from netutil.agent.collect.container_cache import ContainerCache
from netutil.agent.collect.live_networks import LiveNetworks
from netutil.agent.collect.network_cache import NetworkCache
from netutil.agent.collect.read_pool import ReadPool
from netutil.agent.collect.retention import Retention
from netutil.agent.config import Config
from netutil.agent.connections.policy import PodPolicy
from netutil.agent.connections.serving import ServedSocket
from netutil.agent.device_plugin.plugin import PluginState
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.pidfd import PinPeer
from netutil.agent.kubelet.podresources.directory import ResourceDirectory
from netutil.agent.limits.in_flight import InFlight
from netutil.agent.messages.all_facts import AllFacts
from netutil.agent.observability.audit import Audit
from netutil.agent.observability.call_stats import CallFeed, CallStats
from netutil.agent.observability.memory import MemoryLimit
from netutil.agent.observability.metrics import Metrics
from netutil.agent.observability.watchdog import Watchdog
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.watch.notifier import ChangeNotifier
from netutil.agent.watch.stream import SnapshotStreams


@dataclass(frozen=True, slots=True)
class Identity:
    """From an accepted socket to a process, and from the process to its container."""

    tree: CgroupTree
    pin: PinPeer
    pin_name: str


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """What Kubernetes reports of this node, and what the kubelet gets from the agent."""

    pods: PodDirectory
    resources: ResourceDirectory
    claims: ClaimSources
    device_plugin: PluginState


@dataclass(frozen=True, slots=True)
class Facts:
    """Callers and their facts, and what is held of both between calls."""

    reads: ReadPool
    callers: CallerResolver
    containers: ContainerCache
    networks: NetworkCache
    live: LiveNetworks
    collector: Collector


@dataclass(frozen=True, slots=True)
class Observers:
    """What observes the agent itself."""

    metrics: Metrics
    audit: Audit
    call_stats: CallStats
    call_feed: CallFeed
    watchdog: Watchdog
    memory: MemoryLimit


@dataclass(frozen=True, slots=True)
class PodService:
    """What serves `v1alpha.NetUtil` on the pods' socket."""

    socket: ServedSocket
    policy: PodPolicy
    in_flight: InFlight
    notifier: ChangeNotifier
    watches: SnapshotStreams
    all_facts: AllFacts
    netutil: NetUtil


@dataclass(frozen=True, slots=True)
class Components:
    """The components of one agent."""

    config: Config
    identity: Identity
    kubernetes: Kubernetes
    facts: Facts
    observers: Observers
    service: PodService
    retention: Retention
