"""What `netutil node map` draws: the node as one value, and how it is made of the answers.

No environment, annotation or label is in it. Names are as the workloads have them: whoever
draws escapes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from netutil.client import node_questions
from netutil.client.asynchronous import AsyncNodeClient
from netutil.client.cpulist import numbers_of
from netutil.client.devices import DeviceSource, Interface
from netutil.client.node_results import DescribedContainer, DescribedPod, NetworkDevice
from netutil.client.results import NodeContainer, NodeCPU

_NOTHING_ALLOCATED = "CONTAINER_WITHOUT_RESOURCES"
_MAX_FIELDS = 4
"""Fields of a pod that are named as not understood."""
"""The kubelet lists no container of that name: it allocated nothing to it (init containers)."""


@dataclass(frozen=True, slots=True)
class AllottedDevice:
    """A device that a device plugin gave to a container."""

    resource: str
    id: str
    numa_nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PicturedContainer:
    """A container; without CPUs it does not run.

    `exclusive` says whether the kubelet gave all of `cpus` to it alone, None where that is not
    known. False says nothing about other containers.
    """

    name: str
    state: str
    cpus: tuple[int, ...]
    exclusive: bool | None
    devices: tuple[AllottedDevice, ...]


@dataclass(frozen=True, slots=True)
class PicturedInterface:
    """An interface of a pod; empty and None for what is not known. `numa_node` is its device's.

    `source` says whether the device is a fact, an inference or a guess.
    """

    name: str
    device_type: str
    pci_address: str
    pf_address: str
    numa_node: int | None
    source: DeviceSource = DeviceSource.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class PicturedPod:
    """A pod; `problems` say what is not known of it beside what is drawn."""

    namespace: str
    name: str
    host_network: bool
    containers: tuple[PicturedContainer, ...]
    interfaces: tuple[PicturedInterface, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodePicture:
    """The node; pods ordered by namespace, then name. `problems` are parts that are missing."""

    node_name: str
    kernel: str
    observed_at: datetime | None
    cpus: tuple[NodeCPU, ...]
    devices: tuple[NetworkDevice, ...]
    pods: tuple[PicturedPod, ...]
    problems: tuple[str, ...]


async def gather_picture(client: AsyncNodeClient, longest_seconds: float) -> NodePicture:
    """Ask for the node, then for all of its pods at once, for so long at the most."""
    node = await client.ask(node_questions.described_node())
    question = node_questions.described_pods()
    pods, observed_at = [], None
    async with aclosing(client.stream(question, longest_seconds)) as described:
        async for one in described:
            pods.append(pictured(one))
            observed_at = one.observed_at
    return NodePicture(
        node_name=node.node_name,
        kernel=node.kernel,
        observed_at=observed_at,
        cpus=node.cpus,
        devices=node.network_devices,
        pods=tuple(pods),
        problems=tuple(f"{error.part}: {error.message}" for error in node.errors),
    )


def pictured(answer: DescribedPod) -> PicturedPod:
    """The pod as it is drawn. Init and ephemeral containers only while they run."""
    interfaces = answer.interfaces.interfaces if answer.interfaces is not None else ()
    return PicturedPod(
        namespace=answer.pod.namespace,
        name=answer.pod.name,
        host_network=answer.host_network,
        containers=tuple(_container(one) for one in answer.containers if _is_drawn(one.container)),
        interfaces=tuple(_interface(one) for one in interfaces),
        problems=tuple(dict.fromkeys(_problems(answer))),
    )


def _problems(answer: DescribedPod) -> Iterator[str]:
    """What is missing of a pod, part and reason."""
    for path in answer.not_understood[:_MAX_FIELDS]:
        yield f"{path}: not understood"
    if (more := len(answer.not_understood) - _MAX_FIELDS) > 0:
        yield f"{more} more fields: not understood"
    found = [*answer.errors, *(e for one in answer.containers for e in one.every_error)]
    interfaces = answer.interfaces
    if interfaces is not None:
        found += filter(
            None,
            (
                *(interfaces.network_error, interfaces.device_info_error),
                *(interfaces.link_error, interfaces.pci_error),
            ),
        )
    for error in found:
        if error.reason != _NOTHING_ALLOCATED:
            yield f"{error.part}: {error.reason or error.code}"


def _is_drawn(container: NodeContainer) -> bool:
    return container.kind == "container" or container.state == "running"


def _container(found: DescribedContainer) -> PicturedContainer:
    exclusive = None
    cpus = _cpus(found.container)
    if found.cpu is not None and found.cpu.exclusive_cpus is not None:
        # The cgroup's set may be wider than what the kubelet gave: another program's doing.
        own = set(found.cpu.exclusive_cpu_ids or ())
        exclusive = bool(own) and own.issuperset(cpus)
    devices = found.resources.devices if found.resources is not None else ()
    return PicturedContainer(
        name=found.container.name,
        state=found.container.state,
        cpus=cpus,
        exclusive=exclusive,
        devices=tuple(AllottedDevice(one.resourceName, one.ID, one.numa_nodes) for one in devices),
    )


def _cpus(container: NodeContainer) -> tuple[int, ...]:
    return tuple(sorted(numbers_of(container.effective_cpus)))


def _interface(found: Interface) -> PicturedInterface:
    reported = found.allocated.pci_address if found.allocated is not None else ""
    pci = found.pci
    return PicturedInterface(
        name=found.name,
        device_type=str(found.device_type),
        pci_address=pci.address if pci is not None else reported,
        pf_address=pci.pf_address if pci is not None else "",
        numa_node=pci.numa_node if pci is not None else None,
        source=found.device_source,
    )
