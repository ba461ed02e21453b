"""The answers of the operator socket, as plain values.

Fields have the names of node.proto, which says what each means; `netutil node … -o json`
prints the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from netutil.client.models.core import CPU, UNKNOWN_WITH, NetworkStatus, NodeCPU, PartError
from netutil.client.models.devices import (
    Hugepages,
    Interfaces,
    LinkCounters,
    PCIInfo,
    Resources,
)


@dataclass(frozen=True, slots=True)
class NodeContainer:
    """A container of a pod on the node; `effective_cpus` is empty if it does not run."""

    name: str
    id: str
    kind: str
    state: str
    effective_cpus: str


@dataclass(frozen=True, slots=True)
class NodePod:
    """A pod on the node, and its calls to the agent.

    `networks` is None if they could not be read; `networks_error` says why. Beside networks it
    says why there may be more: `userspace/configuration-data` is malformed.
    `refused`, `not_found` and `failed` calls are among `calls`; `last_error` is the reason of the
    last refused or failed call.
    """

    namespace: str
    name: str
    uid: str
    qos_class: str
    phase: str
    containers: tuple[NodeContainer, ...]
    networks: tuple[str, ...] | None = field(metadata={UNKNOWN_WITH: "networks_error"})
    connections: int
    calls: int
    last_error: str
    last_error_at: datetime | None
    networks_error: str
    refused: int
    not_found: int
    failed: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NodePods:
    """Every pod on the node, ordered by namespace, then name."""

    pods: tuple[NodePod, ...]
    observed_at: datetime | None


@dataclass(frozen=True, slots=True)
class FactSource:
    """Where a part of an answer was read."""

    part: str
    read: str


@dataclass(frozen=True, slots=True)
class DescribedContainer:
    """A container, and the facts that a process of it gets; parts that are None have an error."""

    container: NodeContainer
    started_at: datetime | None
    processes: int
    pids: tuple[int, ...]
    cpu: CPU | None
    hugepages: Hugepages | None
    resources: Resources | None
    sources: tuple[FactSource, ...]
    errors: tuple[PartError, ...]

    @property
    def every_error(self) -> tuple[PartError, ...]:
        """The errors, with those of what container and pod request, and of their claims."""
        parts = [part.spec_error for part in (self.cpu, self.hugepages) if part is not None]
        if self.resources is not None:
            parts.append(self.resources.claims_error)
            parts += (one.error for one in self.resources.claims or ())
        return (*self.errors, *(error for error in parts if error is not None))


@dataclass(frozen=True, slots=True)
class ResourceAmount:
    """One resource of a pod as a whole, as Kubernetes writes it; "" where none is set."""

    name: str
    request: str
    limit: str
    granted_request: str
    granted_limit: str


@dataclass(frozen=True, slots=True)
class DescribedPod:
    """Everything that the agent knows about a pod. `annotations` are their names only.

    `not_understood` are the paths of unknown fields, whose values in the pod source are malformed.
    """

    pod: NodePod
    cgroup_uid: str
    node_name: str
    service_account: str
    ips: tuple[str, ...]
    host_network: bool
    labels: Mapping[str, str]
    annotations: tuple[str, ...]
    observed_at: datetime | None
    containers: tuple[DescribedContainer, ...]
    network_status: NetworkStatus | None
    interfaces: Interfaces | None
    sources: tuple[FactSource, ...]
    errors: tuple[PartError, ...]
    resources: tuple[ResourceAmount, ...] = ()
    not_understood: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkDevice:
    """A network controller; `interfaces` are its links in the node's own network namespace."""

    pci: PCIInfo
    interfaces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CPUCounts:
    """How many CPUs run now, and how many cores they are of; None: not known."""

    logical: int | None
    cores: int | None


@dataclass(frozen=True, slots=True)
class HostInterface:
    """A network interface of the node itself.

    None: not known. Where the agent may not enter the node's network namespace, `name` and
    `counters` are all that is known.
    """

    name: str
    index: int | None
    kind: str | None
    mac: str | None
    mtu: int | None
    operational_state: str | None
    up: bool | None
    master: str | None
    parent_device_bus: str
    parent_device: str
    counters: LinkCounters | None
    speed_megabits: int | None
    duplex: str | None


@dataclass(frozen=True, slots=True)
class HostInterfaces:
    """The network interfaces of the node. `truncated`: there are more.

    `interfaces` is None if they could not be read: `error` says why. Beside interfaces it says
    what is not known of them.
    """

    interfaces: tuple[HostInterface, ...] | None = field(metadata={UNKNOWN_WITH: "error"})
    truncated: bool
    error: PartError | None


@dataclass(frozen=True, slots=True)
class DescribedNode:
    """The node itself. `errors` has one entry per part that could not be read.

    `host_interfaces` is None if they were not asked for, or the agent is too old to know them.
    """

    node_name: str
    kernel: str
    cpus: tuple[NodeCPU, ...]
    network_devices: tuple[NetworkDevice, ...]
    errors: tuple[PartError, ...]
    cpu_counts: CPUCounts | None = None
    host_interfaces: HostInterfaces | None = None


@dataclass(frozen=True, slots=True)
class PodActivity:
    """The counters of one pod since the agent's start."""

    namespace: str
    name: str
    uid: str
    connections: int
    open_calls: int
    calls: int
    refused: int
    seconds: float
    latency_counts: tuple[int, ...]
    last_error: str
    not_found: int
    failed: int


@dataclass(frozen=True, slots=True)
class AgentUse:
    """What the agent's own process uses. `cpu_seconds` is user and system time since its start."""

    pid: int
    rss_bytes: int
    cpu_seconds: float
    threads: int
    descriptors: int
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Activity:
    """The counters of all pods. `agent` is None where its use is not known: see `agent_error`."""

    uptime_seconds: float
    pods: tuple[PodActivity, ...]
    latency_bounds_seconds: tuple[float, ...]
    connections: int
    max_connections: int
    watchers: int
    agent: AgentUse | None = None
    agent_error: PartError | None = None


@dataclass(frozen=True, slots=True)
class TracedCall:
    """One call. `event` is "answered"; of a stream "began" and "ended"."""

    at: datetime
    method: str
    event: str
    namespace: str
    pod: str
    container: str
    container_id: str
    pid: int
    uid: int
    code: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Traced:
    """Calls that were answered, and how many before them were left out."""

    calls: tuple[TracedCall, ...]
    lost: int


@dataclass(frozen=True, slots=True)
class ExplainStep:
    """One step of an identification; `outcome` is "ok", "degraded" or "stopped"."""

    name: str
    outcome: str
    found: tuple[str, ...]
    code: str
    reason: str
    read: str
    advice: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether a process is answered, and the steps of its identification."""

    pid: int
    steps: tuple[ExplainStep, ...]
    answered: bool
    pod: str
    container: str


@dataclass(frozen=True, slots=True)
class Check:
    """One check; `outcome` is "ok", "warning" or "failed"."""

    name: str
    outcome: str
    found: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All checks."""

    checks: tuple[Check, ...]
