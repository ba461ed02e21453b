"""Collected facts of each kind of answer: values, not messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec
from netutil.agent.errors import AgentError
from netutil.agent.facts.claims import NO_CLAIMS, Claims
from netutil.agent.facts.cpu import CpuFacts
from netutil.agent.facts.cpu_partition import CpusetPartition
from netutil.agent.facts.hugepages import (
    ContainerHugepages,
    HugepagePool,
    HugepageUsage,
    PodHugepages,
)
from netutil.agent.facts.interfaces import Interface
from netutil.agent.facts.network import Networks
from netutil.agent.parsers.environment import AllocatedDevice
from netutil.agent.parsers.pci import PciInfo
from netutil.agent.parsers.rtnetlink import Counters
from netutil.agent.pods.index import Match

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Allocated:
    """The devices that environments name; `error` says why they are not known.

    `devices` are those of PCIDEVICE_* variables, which may belong to a network; `others` are
    those of plugins that give none. `af_xdp` are links that the AF_XDP device plugin gave, None
    beside an `error` and where no environment was read. `start_error` says why the environment
    that the container was started with is not known: then only the process's own was read.
    `characters` is how long the variables are that all of this is made of.
    """

    devices: tuple[AllocatedDevice, ...] = ()
    error: AgentError | None = None
    others: tuple[AllocatedDevice, ...] = ()
    start_error: AgentError | None = None
    af_xdp: tuple[AllocatedDevice, ...] | None = None
    characters: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class GivenFunctions:
    """PCI functions that a container was given; `absent` are addresses that the host lacks."""

    pci: tuple[PciInfo, ...] = ()
    absent: tuple[str, ...] = ()
    error: AgentError | None = None


NO_FUNCTIONS = GivenFunctions()


@dataclass(frozen=True, slots=True)
class DeviceHealth:
    """Health of devices of extended resources, by resource and ID: (health, message).

    As the container's status in the pod list says it.
    """

    by_device: Mapping[tuple[str, str], tuple[str, str]]


NO_HEALTH = DeviceHealth({})


@dataclass(frozen=True, slots=True)
class GivenDevices:
    """What is known of a container's devices beyond what PodResources says."""

    functions: GivenFunctions = NO_FUNCTIONS
    claims: Claims = NO_CLAIMS
    health: DeviceHealth = NO_HEALTH


NOTHING_GIVEN = GivenDevices()


class CpuAmounts(msgspec.Struct, frozen=True):
    """CPUs that are asked for and granted; None: not set, or not said."""

    request_cores: float | None
    limit_cores: float | None
    granted_request_cores: float | None
    granted_limit_cores: float | None


@dataclass(frozen=True, slots=True)
class AskedCpus:
    """CPUs of a container and of its pod as a whole; `error` says why one is not known."""

    container: CpuAmounts | None
    pod: CpuAmounts | None
    error: AgentError | None


@dataclass(frozen=True, slots=True)
class Cpus:
    """A container's CPU facts, and the affinity of the process: None if it has ended.

    `partition` is None where it was not asked for. While nothing differs, callers get the same
    object; `answers` is for what is made of it, by a few names.
    """

    facts: CpuFacts
    affinity: str | None
    partition: CpusetPartition | None
    asked: AskedCpus
    answers: dict[str, object] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class AskedHugepages:
    """Huge pages of containers and of their pod as a whole; `error` says why some are not known."""

    containers: tuple[ContainerHugepages, ...]
    pod: tuple[PodHugepages, ...]
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
    """A pod's interfaces. Each part of them may be unknown; the errors say why."""

    interfaces: tuple[Interface, ...]
    networks: Networks | None
    match: Match | None
    host_network: bool
    network_error: AgentError | None
    allocated: Allocated
    link_error: AgentError | None
    pci_error: AgentError | None = None
    claims_error: AgentError | None = None


@dataclass(frozen=True, slots=True)
class InterfacesAnswer(Generic[T, R]):
    """How interfaces become an answer: made without counters, which are put in for each call.

    Counters are by index of the link. `size_bytes` returns the size of the result.
    """

    make: Callable[[Interfaces], T]
    with_counters: Callable[[T, Mapping[int, Counters]], R]
    size_bytes: Callable[[T], int]


@dataclass(frozen=True, slots=True)
class Hugepages:
    """Huge pages of a pod, of the process's container, and of the node. `answers` as of `Cpus`."""

    containers: tuple[ContainerHugepages, ...]
    usage: tuple[HugepageUsage, ...]
    pools: tuple[HugepagePool, ...]
    spec_error: AgentError | None
    pod: tuple[PodHugepages, ...] = ()
    answers: dict[str, object] = field(default_factory=dict, repr=False, compare=False)
