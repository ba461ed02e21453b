"""Decoded answers of PodResources v1. Pure.

The kubelet keeps devices in maps without an order and returns them in another one each
time, so everything is sorted here: what has not changed reads the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from sys import intern
from typing import Any

import msgspec
from google.protobuf.message import DecodeError
from netutil.agent.parsers.addresses import normalise_pci_address
from netutil.podresources.v1 import podresources_pb2 as v1

Key = tuple[str, str]
"""A pod's namespace and name."""

_MAX_NUMBER = 2**31 - 1


class PodResourcesMalformed(ValueError):
    """What was read is no answer of this API. The text says where it breaks: "it is …"."""


@dataclass(frozen=True, slots=True)
class DeviceAllocation:
    """Devices of one extended resource. `numa_nodes` is empty where the plugin names none."""

    resource_name: str
    device_ids: tuple[str, ...]
    numa_nodes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MemoryBlock:
    """Memory that the memory manager reserved: "memory" or "hugepages-<size>"."""

    memory_type: str
    size_bytes: int
    numa_nodes: tuple[int, ...]


class ClaimResource(msgspec.Struct, frozen=True):
    """One device of a resource claim. CDI device names are fully qualified."""

    cdi_devices: tuple[str, ...]
    driver_name: str
    pool_name: str
    device_name: str


@dataclass(frozen=True, slots=True)
class DynamicResource:
    """A resource claim of dynamic resource allocation."""

    claim_name: str
    claim_namespace: str
    claim_resources: tuple[ClaimResource, ...]


@dataclass(frozen=True, slots=True)
class ContainerResources:
    """What the kubelet gave to a container alone. `cpu_ids` are exclusive CPUs, in rising order.

    `observed_at` is when the kubelet was asked. `agent_devices` are of the agent's own device
    plugin, and not among `devices`. `kept` is what is made of these resources once, under a few
    fixed names; it is released with them, when the next answer of the kubelet comes.
    """

    devices: tuple[DeviceAllocation, ...]
    cpu_ids: tuple[int, ...]
    memory: tuple[MemoryBlock, ...]
    dynamic_resources: tuple[DynamicResource, ...]
    observed_at: datetime
    agent_devices: tuple[DeviceAllocation, ...] = ()
    kept: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def without_cpus(self) -> ContainerResources:
        """Return the same without `cpu_ids`."""
        found: ContainerResources | None = self.kept.get("without_cpus")
        if found is None:
            found = self.kept["without_cpus"] = replace(self, cpu_ids=(), kept={})
        return found

    @property
    def with_agent_devices(self) -> ContainerResources:
        """Return the same with `agent_devices` among `devices`."""
        if not self.agent_devices:
            return self
        found: ContainerResources | None = self.kept.get("with_agent_devices")
        if found is None:
            devices = _in_order((*self.devices, *self.agent_devices))
            found = replace(self, devices=devices, agent_devices=(), kept={})
            self.kept["with_agent_devices"] = found
        return found

    @property
    def pci_addresses(self) -> tuple[str, ...]:
        """Return the PCI addresses among the devices, sorted, as sysfs spells them."""
        found: tuple[str, ...] | None = self.kept.get("pci_addresses")
        if found is None:
            ids = {device_id for one in self.devices for device_id in one.device_ids}
            found = tuple(sorted(set(filter(None, map(normalise_pci_address, ids)))))
            self.kept["pci_addresses"] = found
        return found


@dataclass(frozen=True, slots=True)
class Asked:
    """When the kubelet was asked: `monotonic_seconds` of the directory's clock, and UTC."""

    monotonic_seconds: float
    at: datetime


@dataclass(frozen=True, slots=True)
class PodEntry:
    """What one answer says of a namespace and name: how many pods, and what a single one has."""

    asked: Asked
    pods: int
    containers: dict[str, ContainerResources]


def absent(asked: Asked) -> PodEntry:
    """Return the entry of a pod that the kubelet does not know."""
    return PodEntry(asked, 0, {})


def decode_list(body: bytes, asked: Asked, hidden_resource: str = "") -> dict[Key, PodEntry]:
    """Return the pods of a ListPodResourcesResponse; `hidden_resource` is the agent's own.

    Raises `PodResourcesMalformed`.
    """
    response = v1.ListPodResourcesResponse()
    _parse(response, body)
    entries: dict[Key, PodEntry] = {}
    for pod in response.pod_resources:
        key = (pod.namespace, pod.name)
        other = entries.get(key)
        entries[key] = (
            _entry(pod, asked, hidden_resource)
            if other is None
            else PodEntry(asked, other.pods + 1, {})
        )
    return entries


def decode_pod(body: bytes, key: Key, asked: Asked, hidden_resource: str = "") -> PodEntry:
    """Return the pod of a GetPodResourcesResponse; `hidden_resource` is the agent's own.

    Raises `PodResourcesMalformed`.
    """
    response = v1.GetPodResourcesResponse()
    _parse(response, body)
    pod = response.pod_resources
    if (pod.namespace, pod.name) != key:
        raise PodResourcesMalformed("it is about another pod than was asked for")
    return _entry(pod, asked, hidden_resource)


def _parse(message: v1.ListPodResourcesResponse | v1.GetPodResourcesResponse, body: bytes) -> None:
    try:
        message.ParseFromString(body)
    except DecodeError:
        what = message.DESCRIPTOR.full_name
        raise PodResourcesMalformed(f"it is no {what} (of {len(body)} bytes)") from None


def _entry(pod: v1.PodResources, asked: Asked, hidden_resource: str) -> PodEntry:
    if not pod.name or not pod.namespace:
        raise PodResourcesMalformed("it is about a pod without a name or a namespace")
    try:
        containers = {
            intern(one.name): _container(one, asked, hidden_resource) for one in pod.containers
        }
    except ValueError as error:
        where = f"{f'{pod.namespace}/{pod.name}'!r:.256}"
        raise PodResourcesMalformed(f"it is wrong about pod {where}: {error}") from None
    if len(containers) != len(pod.containers):
        where = f"{f'{pod.namespace}/{pod.name}'!r:.256}"
        raise PodResourcesMalformed(f"it is wrong about pod {where}: two containers of one name")
    return PodEntry(asked, 1, containers)


def _container(
    container: v1.ContainerResources, asked: Asked, hidden_resource: str
) -> ContainerResources:
    return ContainerResources(
        devices=_devices(one for one in container.devices if one.resource_name != hidden_resource),
        agent_devices=_devices(
            one for one in container.devices if one.resource_name == hidden_resource
        ),
        cpu_ids=_numbers(container.cpu_ids),
        memory=_memory(container.memory),
        dynamic_resources=_claims(container.dynamic_resources),
        observed_at=asked.at,
    )


def _devices(found: Iterable[v1.ContainerDevices]) -> tuple[DeviceAllocation, ...]:
    return _in_order(
        DeviceAllocation(intern(one.resource_name), tuple(sorted(one.device_ids)), _near(one))
        for one in found
    )


def _in_order(devices: Iterable[DeviceAllocation]) -> tuple[DeviceAllocation, ...]:
    """Return devices in an order of their own: the kubelet lists them in another one each time."""
    return tuple(
        sorted(devices, key=lambda one: (one.resource_name, one.numa_nodes, one.device_ids))
    )


def _memory(found: Iterable[v1.ContainerMemory]) -> tuple[MemoryBlock, ...]:
    blocks = [MemoryBlock(intern(one.memory_type), one.size, _near(one)) for one in found]
    blocks.sort(key=lambda one: (one.memory_type, one.numa_nodes, one.size_bytes))
    return tuple(blocks)


def _claims(found: Iterable[v1.DynamicResource]) -> tuple[DynamicResource, ...]:
    claims = [
        DynamicResource(
            one.claim_name,
            one.claim_namespace,
            tuple(_claim_resource(each) for each in one.claim_resources),
        )
        for one in found
    ]
    claims.sort(key=lambda one: (one.claim_namespace, one.claim_name))
    return tuple(claims)


def _claim_resource(found: v1.ClaimResource) -> ClaimResource:
    return ClaimResource(
        cdi_devices=tuple(device.name for device in found.cdi_devices),
        driver_name=intern(found.driver_name),
        pool_name=intern(found.pool_name),
        device_name=found.device_name,
    )


def _near(found: v1.ContainerDevices | v1.ContainerMemory) -> tuple[int, ...]:
    # A plugin that hands on the kernel's numa_node of -1 means that it does not know.
    return _numbers(node.ID for node in found.topology.nodes if node.ID >= 0)


def _numbers(found: Iterable[int]) -> tuple[int, ...]:
    numbers = tuple(sorted(set(found)))
    if numbers and not 0 <= numbers[0] <= numbers[-1] <= _MAX_NUMBER:
        raise ValueError(f"{numbers[0]}…{numbers[-1]} is no range of CPUs or NUMA nodes")
    return numbers
