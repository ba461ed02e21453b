"""Converts interfaces, devices, huge pages and CPUs to messages of the API. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf import json_format, struct_pb2
from msgspec.structs import asdict
from netutil.agent.collect.results import AskedCpus, Cpus, GivenDevices, Hugepages, Interfaces
from netutil.agent.facts.hugepages import HugepagePool, HugepageUsage
from netutil.agent.facts.interfaces import DeviceType, Interface, TypeSource
from netutil.agent.facts.links import Link
from netutil.agent.facts.pairing import DeviceSource
from netutil.agent.facts.topology import Cpu
from netutil.agent.kubelet.podresources.model import ContainerResources, DeviceAllocation
from netutil.agent.messages import convert, convert_claims
from netutil.agent.messages.convert_claims import pci_info
from netutil.agent.messages.status import part_error, truncate_utf8
from netutil.agent.parsers.cpulist import format_cpu_list
from netutil.agent.parsers.environment import AllocatedDevice
from netutil.v1alpha import netutil_pb2 as api

_TYPES = {
    DeviceType.HOST: api.DEVICE_TYPE_HOST,
    DeviceType.SR_IOV: api.DEVICE_TYPE_SR_IOV,
    DeviceType.VDPA: api.DEVICE_TYPE_VDPA,
    DeviceType.VHOST_USER: api.DEVICE_TYPE_VHOST_USER,
    DeviceType.MEMIF: api.DEVICE_TYPE_MEMIF,
    DeviceType.UNKNOWN: api.DEVICE_TYPE_UNKNOWN,
}
_TYPE_SOURCES = {
    TypeSource.NONE: api.DEVICE_TYPE_SOURCE_UNSPECIFIED,
    TypeSource.DEVICE_INFO: api.DEVICE_TYPE_SOURCE_DEVICE_INFO,
    TypeSource.SYSFS: api.DEVICE_TYPE_SOURCE_SYSFS,
    TypeSource.LINK: api.DEVICE_TYPE_SOURCE_LINK,
    TypeSource.DEVICE_ID: api.DEVICE_TYPE_SOURCE_DEVICE_ID,
}
_DEVICE_SOURCES = {
    DeviceSource.NONE: api.DEVICE_SOURCE_UNSPECIFIED,
    DeviceSource.DEVICE_INFO: api.DEVICE_SOURCE_DEVICE_INFO,
    DeviceSource.LINK: api.DEVICE_SOURCE_LINK,
    DeviceSource.ENVIRONMENT: api.DEVICE_SOURCE_ENVIRONMENT,
    DeviceSource.ELIMINATION: api.DEVICE_SOURCE_ELIMINATION,
    DeviceSource.RESOURCE_NAME: api.DEVICE_SOURCE_RESOURCE_NAME,
    DeviceSource.ORDER: api.DEVICE_SOURCE_ORDER,
    DeviceSource.CLAIM: api.DEVICE_SOURCE_CLAIM,
}


def interfaces(found: Interfaces) -> api.InterfacesResponse:
    """Return the answer to GetInterfaces. Counters are those of the links that were found."""
    response = api.InterfacesResponse(
        interfaces=[_interface(one) for one in found.interfaces],
        observed_at=convert.timestamp(found.match.observed_at) if found.match else None,
        host_network=found.host_network,
    )
    if found.networks is not None:
        response.source = convert.SOURCES[found.networks.source]
        if found.networks.device_info_error is not None:
            error = part_error("device_info", found.networks.device_info_error)
            response.device_info_error.CopyFrom(error)
    if found.network_error is not None:
        response.network_error.CopyFrom(part_error("network_status", found.network_error))
    if found.allocated.error is not None:
        response.allocated_error.CopyFrom(part_error("allocated", found.allocated.error))
    if found.allocated.af_xdp is not None:
        response.af_xdp.CopyFrom(api.AfXdpDevices(devices=map(_allocated, found.allocated.af_xdp)))
    if found.allocated.start_error is not None:
        response.start_error.CopyFrom(part_error("start", found.allocated.start_error))
    if found.link_error is not None:
        response.link_error.CopyFrom(part_error("link", found.link_error))
    if found.pci_error is not None:
        response.pci_error.CopyFrom(part_error("pci", found.pci_error))
    if found.claims_error is not None:
        response.claims_error.CopyFrom(part_error("claims", found.claims_error))
    return response


def hugepages(found: Hugepages) -> api.HugepagesResponse:
    """Return the answer to GetHugepages."""
    response = api.HugepagesResponse(
        containers=[api.ContainerHugepages(**asdict(one)) for one in found.containers],
        usage=[_usage(one) for one in found.usage],
        pools=[_pool(one) for one in found.pools],
        pod=[api.PodHugepages(**asdict(one)) for one in found.pod],
    )
    if found.spec_error is not None:
        response.spec_error.CopyFrom(part_error("containers", found.spec_error))
    return response


def resources(found: ContainerResources, given: GivenDevices) -> api.ResourceResponse:
    """Return the answer to GetResource."""
    functions, claims, health = given.functions, given.claims, given.health.by_device
    response = api.ResourceResponse(
        devices=[
            _device(one, device_id, health) for one in found.devices for device_id in one.device_ids
        ],
        exclusive_cpu_ids=found.cpu_ids,
        exclusive_cpus=format_cpu_list(found.cpu_ids),
        memory=[
            api.MemoryBlock(
                type=one.memory_type, size_bytes=one.size_bytes, numa_nodes=one.numa_nodes
            )
            for one in found.memory
        ],
        dynamic_resources=[
            api.DynamicResource(
                claim_name=one.claim_name,
                claim_namespace=one.claim_namespace,
                claim_resources=[api.ClaimResource(**asdict(each)) for each in one.claim_resources],
            )
            for one in found.dynamic_resources
        ],
        observed_at=convert.timestamp(found.observed_at),
        pci=[pci_info(one) for one in functions.pci],
        absent_pci=functions.absent,
        claims=[convert_claims.request(one) for one in claims.requests],
    )
    pci_error = functions.error or claims.pci_error
    if pci_error is not None:
        response.pci_error.CopyFrom(part_error("pci", pci_error))
    if claims.error is not None:
        response.claims_error.CopyFrom(part_error("claims", claims.error))
    return response


def _device(
    one: DeviceAllocation, device_id: str, health: Mapping[tuple[str, str], tuple[str, str]]
) -> api.Device:
    known, message = health.get((one.resource_name, device_id), ("", ""))
    return api.Device(
        ID=device_id,
        resourceName=one.resource_name,
        numa_nodes=one.numa_nodes,
        health=known,
        health_message=truncate_utf8(message),
    )


def cpus(found: Cpus) -> api.CPUResponse:
    """Return the answer to GetCPUInfo without each CPU."""
    response = convert.cpu(found.facts, found.affinity, found.partition)
    _add_asked_cpus(response, found.asked)
    return response


def _add_asked_cpus(response: api.CPUResponse, asked: AskedCpus) -> None:
    """Add what container and pod ask for to the answer to GetCPUInfo."""
    if asked.container is not None:
        response.container_amounts.CopyFrom(api.CPUAmounts(**asdict(asked.container)))
    if asked.pod is not None:
        response.pod_amounts.CopyFrom(api.CPUAmounts(**asdict(asked.pod)))
    if asked.error is not None:
        response.spec_error.CopyFrom(part_error("amounts", asked.error))


def add_topology(
    response: api.CPUResponse, cpus: Iterable[Cpu], exclusive: Iterable[int] | None
) -> None:
    """Add each CPU, and those that the kubelet gave exclusively, to the answer to GetCPUInfo.

    `exclusive` is None where it is not known.
    """
    own = None if exclusive is None else frozenset(exclusive)
    if own is not None:
        response.exclusive_cpus = format_cpu_list(own)
        response.exclusive_cpu_ids.extend(sorted(own))
    response.cpus.extend(cpu_of_node(cpu, None if own is None else cpu.id in own) for cpu in cpus)


def cpu_of_node(cpu: Cpu, exclusive: bool | None = None) -> api.CPU:
    """Return one CPU; `exclusive` is None where it is not known, or of no container."""
    return api.CPU(
        id=cpu.id,
        core=cpu.core,
        socket=cpu.socket,
        numa_node=cpu.numa_node,
        siblings=cpu.siblings,
        online=cpu.online,
        isolated=cpu.isolated,
        nohz_full=cpu.nohz_full,
        exclusive=exclusive,
    )


def _usage(usage: HugepageUsage) -> api.HugepageUsage:
    parts = asdict(usage)
    parts["limit_level"] = convert.LEVELS[usage.limit_level] if usage.limit_level else None
    return api.HugepageUsage(**parts)


def _pool(pool: HugepagePool) -> api.HugepagePool:
    parts = asdict(pool)
    parts["numa_nodes"] = [api.NumaHugepages(**asdict(one)) for one in pool.numa_nodes]
    return api.HugepagePool(**parts)


def _interface(one: Interface) -> api.Interface:
    return api.Interface(
        name=one.name,
        device_type=_TYPES[one.device_type],
        network=convert.network_status(one.network) if one.network else None,
        link=_link(one.link) if one.link else None,
        pci=pci_info(one.pci) if one.pci else None,
        allocated=_allocated(one.allocated) if one.allocated else None,
        drift=[api.Drift(**asdict(drift)) for drift in one.drift],
        device_source=_DEVICE_SOURCES[one.device_source],
        device_reason=truncate_utf8(one.device_reason),
        device_type_source=_TYPE_SOURCES[one.type_source],
        claim=convert_claims.interface_claim(one.claim) if one.claim else None,
    )


def _link(link: Link) -> api.Link:
    parts = asdict(link)
    del parts["name"]
    parts["addresses"] = [api.Address(**asdict(one)) for one in link.addresses]
    parts["default_routes"] = [api.DefaultRoute(**asdict(one)) for one in link.default_routes]
    parts["counters"] = api.LinkCounters(**asdict(link.counters))
    return api.Link(**parts)


def _allocated(device: AllocatedDevice) -> api.AllocatedDevice:
    info = None
    if device.info is not None:
        info = json_format.ParseDict(dict(device.info), struct_pb2.Struct())
    return api.AllocatedDevice(
        variable=device.variable,
        position=device.position,
        pci_address=device.pci_address,
        info=info,
        name=device.name,
        problem=device.problem or "",
        from_start=device.from_start,
    )
