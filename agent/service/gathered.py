"""What was gathered for one kind of answer: values, not yet messages."""

from __future__ import annotations

from dataclasses import dataclass

from netutil.agent.errors import AgentError
from netutil.agent.facts.cpu import CpuFacts
from netutil.agent.facts.hugepages import ContainerHugepages, HugepagePool, HugepageUsage
from netutil.agent.facts.interfaces import Interface
from netutil.agent.facts.network import Networks
from netutil.agent.pods.index import Match


@dataclass(frozen=True, slots=True)
class Cpus:
    """A container's CPU facts, and the affinity of the process: None if it has ended."""

    facts: CpuFacts
    affinity: str | None


@dataclass(frozen=True, slots=True)
class Interfaces:
    """A pod's interfaces. Each part of them may be unknown; the errors say why."""

    interfaces: tuple[Interface, ...]
    networks: Networks | None
    match: Match | None
    host_network: bool
    network_error: AgentError | None
    allocated_error: AgentError | None
    link_error: AgentError | None
    pci_error: AgentError | None = None


@dataclass(frozen=True, slots=True)
class Hugepages:
    """Huge pages of a pod, of the process's container, and of the node."""

    containers: tuple[ContainerHugepages, ...]
    usage: tuple[HugepageUsage, ...]
    pools: tuple[HugepagePool, ...]
    spec_error: AgentError | None
