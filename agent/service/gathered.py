"""What was gathered for one kind of answer: values, not yet messages."""

from __future__ import annotations

from dataclasses import dataclass

from netutil.agent.errors import AgentError
from netutil.agent.facts.cpu import CpuFacts
from netutil.agent.facts.hugepages import (
    ContainerHugepages,
    HugepagePool,
    HugepageUsage,
    PodHugepages,
)
from netutil.agent.facts.interfaces import Interface
from netutil.agent.facts.network import Networks
from netutil.agent.pods.index import Match


@dataclass(frozen=True, slots=True)
class Cpus:
    """A container's CPU facts, and the affinity of the process: None if it has ended."""

    facts: CpuFacts
    affinity: str | None


@dataclass(frozen=True, slots=True)
class CpuAmounts:
    """CPUs that are asked for and granted; None: not set, or not said."""

    request_cores: float | None
    limit_cores: float | None
    granted_request_cores: float | None
    granted_limit_cores: float | None


@dataclass(frozen=True, slots=True)
class AskedCpus:
    """CPUs of a container and of its pod as a whole, or why they are not known."""

    container: CpuAmounts | None
    pod: CpuAmounts | None
    error: AgentError | None


@dataclass(frozen=True, slots=True)
class ResourceAmount:
    """One resource of a pod as a whole, as written; "" where none is set."""

    name: str
    request: str
    limit: str
    granted_request: str
    granted_limit: str


@dataclass(frozen=True, slots=True)
class Interfaces:
    """A pod's interfaces. Networks, devices and links may be unknown; the errors say why."""

    interfaces: tuple[Interface, ...]
    networks: Networks | None
    match: Match | None
    host_network: bool
    network_error: AgentError | None
    allocated_error: AgentError | None
    link_error: AgentError | None


@dataclass(frozen=True, slots=True)
class Hugepages:
    """Huge pages of a pod, of the process's container, and of the node."""

    containers: tuple[ContainerHugepages, ...]
    usage: tuple[HugepageUsage, ...]
    pools: tuple[HugepagePool, ...]
    spec_error: AgentError | None
    pod: tuple[PodHugepages, ...] = ()
