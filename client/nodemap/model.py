"""The node as one value for `netutil node map`, made from the agent's answers.

No environment, annotation or label is in it. Names are as the workloads have them: each
drawing escapes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from netutil.client.cpulist import parse_cpulist
from netutil.client.models.core import NodeCPU, PartError
from netutil.client.models.devices import DeviceSource, Drift, Interface, Resources
from netutil.client.models.node import (
    DescribedContainer,
    DescribedPod,
    NetworkDevice,
    NodeContainer,
)
from netutil.client.rpc import requests
from netutil.client.rpc.aio import AsyncNodeClient

_NOTHING_ALLOCATED = "CONTAINER_WITHOUT_RESOURCES"
_NETWORK_PARTS = ("network_status", "interfaces", "device_info", "link")
_MAX_FIELDS = 4
"""Fields of a pod that are named as not understood."""
"""The kubelet lists no container of that name: it allocated nothing to it (init containers)."""


@dataclass(frozen=True, slots=True)
class AllottedDevice:
    """A device that a device plugin or a resource claim gave to a container.

    `resource` names the claim as "claim nic". `id` is a PCI address if the device has one.
    `health` is empty for a healthy device, and where the kubelet does not say.
    """

    resource: str
    id: str
    numa_nodes: tuple[int, ...]
    health: str = ""


@dataclass(frozen=True, slots=True)
class PicturedContainer:
    """A container. A container without CPUs does not run.

    `exclusive` says whether the kubelet gave all of `cpus` to it alone, None if that is not
    known. False says nothing about other containers.
    """

    name: str
    state: str
    cpus: tuple[int, ...]
    exclusive: bool | None
    devices: tuple[AllottedDevice, ...]


@dataclass(frozen=True, slots=True)
class PicturedInterface:
    """An interface of a pod; unknown values are empty or None. `numa_node` is that of its device.

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
    """A pod; `problems` are its unknown parts, with reasons.

    `faults` are faults of its network: malformed sources, links that are down, drift between
    report and kernel, and conditions that a network driver reports as False.
    """

    namespace: str
    name: str
    host_network: bool
    containers: tuple[PicturedContainer, ...]
    interfaces: tuple[PicturedInterface, ...]
    problems: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


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
    """Call for the node, then for all of its pods in one stream, within that time."""
    node = await client.call(requests.described_node())
    question = requests.described_pods()
    pods, observed_at = [], None
    async with aclosing(client.stream(question, longest_seconds)) as described:
        async for one in described:
            pods.append(picture_pod(one))
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


def picture_pod(answer: DescribedPod) -> PicturedPod:
    """The pod as it is drawn. Init and ephemeral containers only while they run."""
    interfaces = answer.interfaces.interfaces if answer.interfaces is not None else ()
    return PicturedPod(
        namespace=answer.pod.namespace,
        name=answer.pod.name,
        host_network=answer.host_network,
        containers=tuple(_container(one) for one in answer.containers if _is_drawn(one.container)),
        interfaces=tuple(_interface(one) for one in interfaces),
        problems=tuple(dict.fromkeys(_problems(answer))),
        faults=tuple(dict.fromkeys(_faults(answer))),
    )


def _problems(answer: DescribedPod) -> Iterator[str]:
    """The unknown parts of a pod, with reasons."""
    for path in answer.not_understood[:_MAX_FIELDS]:
        yield f"{path}: not understood"
    if (more := len(answer.not_understood) - _MAX_FIELDS) > 0:
        yield f"{more} more fields: not understood"
    of_containers = (error for one in answer.containers for error in one.every_error)
    for error in (*_network_errors(answer), *of_containers):
        if error.reason != _NOTHING_ALLOCATED and not _is_fault(error):
            yield _text(error)


def _faults(answer: DescribedPod) -> Iterator[str]:
    yield from (_text(error) for error in _network_errors(answer) if _is_fault(error))
    for one in answer.interfaces.interfaces if answer.interfaces is not None else ():
        name = one.name or "unnamed interface"
        if one.link is not None and not one.link.up:
            yield f"{name}: down"
        for drift in one.drift:
            yield f"{name}: {_drift(drift)}"
        claimed = one.claim.device if one.claim is not None else None
        for condition in claimed.not_ready if claimed is not None else ():
            yield f"{name}: {condition.type} is False ({condition.reason or 'no reason'})"


def _drift(drift: Drift) -> str:
    if drift.field == "link" and not drift.found:
        return "reported, but the pod has no such link"
    return f"{drift.field} reported {drift.reported or 'nothing'}, found {drift.found or 'nothing'}"


def _network_errors(answer: DescribedPod) -> tuple[PartError, ...]:
    """The errors of the pod itself: its networks and interfaces."""
    interfaces = answer.interfaces
    if interfaces is None:
        return answer.errors
    pieces = (
        *(interfaces.network_error, interfaces.device_info_error),
        *(interfaces.link_error, interfaces.pci_error, interfaces.claims_error),
    )
    return (*answer.errors, *(error for error in pieces if error is not None))


def _is_fault(error: PartError) -> bool:
    """Whether the source itself is faulty, not the reading of it."""
    return error.code == "FAILED_PRECONDITION" and error.part in _NETWORK_PARTS


def _text(error: PartError) -> str:
    return f"{error.part}: {error.reason or error.code}"


def _is_drawn(container: NodeContainer) -> bool:
    return container.kind == "container" or container.state == "running"


def _container(found: DescribedContainer) -> PicturedContainer:
    exclusive = None
    cpus = _cpus(found.container)
    if found.cpu is not None and found.cpu.exclusive_cpus is not None:
        # The cgroup's set may be wider than what the kubelet gave: another program's doing.
        own = set(found.cpu.exclusive_cpu_ids or ())
        exclusive = bool(own) and own.issuperset(cpus)
    return PicturedContainer(
        name=found.container.name,
        state=found.container.state,
        cpus=cpus,
        exclusive=exclusive,
        devices=tuple(dict.fromkeys(_devices(found.resources))),
    )


def _devices(found: Resources | None) -> Iterator[AllottedDevice]:
    if found is None:
        return
    for one in found.devices:
        health = one.health if one.is_suspect else ""
        yield AllottedDevice(one.resource_name, one.id, one.numa_nodes, health)
    for request in found.claims or ():
        name = request.pod_claim or request.claim_name
        resource = f"claim {name}" if request.pod_claim else request.extended_resource or name
        for device in request.devices or ():
            whole = f"{request.driver}/{device.pool}/{device.device}"
            health = device.health if device.is_suspect else ""
            yield AllottedDevice(resource, device.pci_bus_id or whole, device.numa_nodes, health)


def _cpus(container: NodeContainer) -> tuple[int, ...]:
    return tuple(sorted(parse_cpulist(container.effective_cpus)))


def _interface(found: Interface) -> PicturedInterface:
    reported = found.allocated.pci_address if found.allocated is not None else ""
    device = found.claim.device if found.claim is not None else None
    claimed = device.pci_bus_id if device is not None else ""
    pci = found.pci
    return PicturedInterface(
        name=found.name,
        device_type=str(found.device_type),
        pci_address=pci.address if pci is not None else reported or claimed,
        pf_address=pci.pf_address if pci is not None else "",
        numa_node=pci.numa_node if pci is not None else None,
        source=found.device_source,
    )
