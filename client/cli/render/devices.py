"""The tables of interfaces, devices and huge pages. Pure."""

from __future__ import annotations

from netutil.client.cli.render.cells import listed, observed, or_nothing, size, unknown, yes_no
from netutil.client.cli.render.claims import claim_notes, claims, health_note, pci_device
from netutil.client.cli.render.tables import Table
from netutil.client.models.core import DeviceInfo
from netutil.client.models.devices import (
    ContainerHugepages,
    DefaultRoute,
    DeviceTypeSource,
    HugepagePool,
    Hugepages,
    Interface,
    Interfaces,
    Link,
    LinkCounters,
    PodHugepages,
    Resources,
)
from netutil.client.text import NOTHING, certainty_mark, container_name, level_name

_MAIN_TABLE = 254
"""RT_TABLE_MAIN of linux/rtnetlink.h."""


def interfaces(answer: Interfaces) -> tuple[Table, ...]:
    """The interfaces, and a table with counters and routes of their links."""
    headers = (
        *("NAME", "TYPE", "NETWORK", "MAC", "MTU", "STATE"),
        *("ADDRESSES", "DEVICE", "NUMA", "DRIFT"),
    )
    notes = [
        ", ".join((f"source: {answer.source}", *observed(answer.observed_at))),
        *(["the pod uses the node's own network: links are not listed"] * answer.host_network),
        *_af_xdp(answer),
        *not_known(answer),
        *(f"{subject(one)}: {one.device_reason}" for one in answer.interfaces if one.device_reason),
        *(
            f"{subject(one)}: {one.device_type} is inferred from the device's ids or driver"
            for one in answer.interfaces
            if one.device_type_source is DeviceTypeSource.DEVICE_ID
        ),
        *(note for one in answer.interfaces for note in claim_notes(subject(one), one.claim)),
    ]
    rows = tuple(map(_interface, answer.interfaces))
    # Two networks on one link are two interfaces of that link.
    links = {
        (one.name, one.link.index): one.link for one in answer.interfaces if one.link is not None
    }
    table = Table("INTERFACES", headers, rows, tuple(notes))
    if not links:
        return (table,)
    return (table, _links([(name, link) for (name, _), link in links.items()]))


def _af_xdp(answer: Interfaces) -> tuple[str, ...]:
    """A note of the links that the AF_XDP device plugin gave, if there are any."""
    devices = answer.af_xdp.devices if answer.af_xdp else ()
    names = ", ".join(one.name + " (container's start)" * one.from_start for one in devices)
    return (f"AF_XDP devices (AFXDP_DEVICES): {names}",) if names else ()


def not_known(answer: Interfaces) -> tuple[str, ...]:
    """A note for each part of the interfaces that is not known, and why."""
    return (
        *unknown("reported networks", answer.network_error),
        *unknown("devices of the Userspace CNI plugin", answer.device_info_error),
        *unknown("devices of the environment", answer.allocated_error),
        *unknown("devices that the container was started with", answer.start_error),
        *unknown("live links", answer.link_error),
        *unknown("PCI devices of the node", answer.pci_error),
        *unknown("devices of resource claims", answer.claims_error),
    )


def subject(interface: Interface) -> str:
    """What a note about an interface begins with: its name, else the name of its device."""
    if interface.name:
        return interface.name
    if interface.allocated is not None:
        return interface.allocated.name
    return claimed(interface)


def claimed(interface: Interface) -> str:
    """The device of a claim: its address by the driver's attribute, else its name."""
    device = interface.claim.device if interface.claim is not None else None
    return NOTHING if device is None else device.pci_bus_id or device.device or NOTHING


def _interface(interface: Interface) -> tuple[str, ...]:
    network = interface.network
    return (
        interface.name or NOTHING,
        str(interface.device_type),
        network.name or NOTHING if network else NOTHING,
        *_now(interface),
        _behind(interface),
        or_nothing(interface.pci.numa_node) if interface.pci else NOTHING,
        "; ".join(
            f"{one.field}: reported {one.reported or 'nothing'}, found {one.found or 'nothing'}"
            for one in interface.drift
        )
        or NOTHING,
    )


def _now(interface: Interface) -> tuple[str, str, str, str]:
    """Hardware address, MTU, state and addresses of the link, else of a report."""
    link, network = interface.link, interface.network
    if link is not None:
        addresses = listed(one.address for one in link.addresses)
        return link.mac or NOTHING, str(link.mtu), link.operational_state or NOTHING, addresses
    if network is not None:
        return network.mac or NOTHING, or_nothing(network.mtu), NOTHING, listed(network.ips)
    device = interface.claim.device if interface.claim is not None else None
    if device is not None and (data := device.network_data) is not None:
        return data.hardware_address or NOTHING, NOTHING, NOTHING, listed(data.ips)
    return (NOTHING,) * 4


def _behind(interface: Interface) -> str:
    if interface.pci is not None:
        return f"{pci_device(interface.pci)}{certainty_mark(interface.device_source)}"
    reported = device(interface.network.device_info if interface.network else None)
    if reported == NOTHING and interface.allocated is not None:
        return f"{interface.allocated.name}{certainty_mark(interface.device_source)}"
    return claimed(interface) if reported == NOTHING else reported


def _links(links: list[tuple[str, Link]]) -> Table:
    headers = (
        *("NAME", "INDEX", "KIND", "UP", "PARENT", "MASTER", "VLAN"),
        *("DEFAULT ROUTES", "RX", "RX DROPPED", "TX", "TX DROPPED"),
    )
    return Table("LINKS", headers, tuple(_link(name, link) for name, link in links))


def _link(name: str, link: Link) -> tuple[str, ...]:
    count = link.counters or LinkCounters(*[0] * 8)
    return (
        name,
        str(link.index),
        or_nothing(link.kind),
        yes_no(link.up),
        link.parent or _foreign(link.parent_index),
        or_nothing(link.master),
        or_nothing(link.vlan_id),
        ", ".join(map(_route, link.default_routes)) or NOTHING,
        f"{count.rx_bytes} B, {count.rx_packets} packets",
        str(count.rx_dropped),
        f"{count.tx_bytes} B, {count.tx_packets} packets",
        str(count.tx_dropped),
    )


def _route(route: DefaultRoute) -> str:
    table = "" if route.table in (0, _MAIN_TABLE) else f" (table {route.table})"
    return f"{route.gateway or 'on link'}{table}"


def _foreign(index: int | None) -> str:
    """A link of another network namespace, as ip(8) names it."""
    return NOTHING if index is None else f"if{index}"


def resources(answer: Resources) -> tuple[Table, ...]:
    """Devices, with notes on missing and unhealthy ones; memory and claims if there are any."""
    # No list may be the agent's conclusion from class and spec: no word of the kubelet.
    given = f"kubelet: exclusive CPUs {answer.exclusive_cpus}"
    none = "no exclusive CPUs from the kubelet"
    notes = [
        *(given if answer.exclusive_cpus else none, *observed(answer.observed_at)),
        *unknown("PCI devices of the node", answer.pci_error),
        *(
            f"{address}: the node has no PCI device of that address"
            for address in answer.absent_pci
        ),
        *(f"{one.address}: bound to no driver" for one in answer.pci if not one.driver),
        *(note for one in answer.devices for note in health_note(one.id, one)),
    ]
    devices = tuple((one.resource_name, one.id, listed(one.numa_nodes)) for one in answer.devices)
    tables = [Table("DEVICES", ("RESOURCE", "DEVICE", "NUMA"), devices, tuple(notes))]
    if answer.memory:
        memory = tuple(
            (one.type, size(one.size_bytes), listed(one.numa_nodes)) for one in answer.memory
        )
        tables.append(Table("MEMORY", ("TYPE", "SIZE", "NUMA"), memory))
    tables += claims(answer)
    return tuple(tables)


def hugepages(answer: Hugepages) -> tuple[Table, ...]:
    """Huge pages that are requested, in use, and on the node."""
    asked = (
        *(_asked("(all of the pod)", one) for one in answer.pod or ()),
        *(_asked(container_name(one.container_name), one) for one in answer.containers or ()),
    )
    used = tuple(
        (
            *(size(one.page_size_bytes), size(one.usage_bytes)),
            "no limit" if one.limit_bytes is None else size(one.limit_bytes),
            *(level_name(one.limit_level), str(one.failures)),
        )
        for one in answer.usage
    )
    notes = tuple(unknown("what the pod asks for", answer.spec_error))
    no_cgroup = () if used else ("the container has no hugetlb cgroup",)
    return (
        Table(
            "HUGE PAGES ASKED FOR",
            ("CONTAINER", "PAGE SIZE", "REQUEST", "LIMIT", "GRANTED LIMIT"),
            asked,
            notes,
        ),
        Table(
            "OF THIS CONTAINER",
            ("PAGE SIZE", "USED", "LIMIT", "LIMIT OF", "FAILURES"),
            used,
            no_cgroup,
        ),
        Table(
            "OF THE NODE",
            ("PAGE SIZE", "TOTAL", "FREE", "RESERVED", "SURPLUS", "FREE ON NUMA NODES"),
            tuple(map(_pool, answer.pools)),
        ),
    )


def _asked(name: str, one: ContainerHugepages | PodHugepages) -> tuple[str, ...]:
    return (
        *(name, size(one.page_size_bytes)),
        *(size(one.request_bytes), size(one.limit_bytes), size(one.granted_limit_bytes)),
    )


def _pool(pool: HugepagePool) -> tuple[str, ...]:
    return (
        size(pool.page_size_bytes),
        size(pool.total_bytes),
        size(pool.free_bytes),
        size(pool.reserved_bytes),
        size(pool.surplus_bytes),
        ", ".join(f"{one.numa_node}: {size(one.free_bytes)}" for one in pool.numa_nodes) or NOTHING,
    )


def device(device: DeviceInfo | None) -> str:
    """The device behind an interface, in a few words."""
    if device is None:
        return NOTHING
    parts = [device.type]
    if device.pci is not None:
        parts.append(device.pci.pci_address)
    if device.vdpa is not None:
        parts += [device.vdpa.driver, device.vdpa.pci_address or device.vdpa.parent_device]
    if device.vhost_user is not None:
        parts += [device.vhost_user.mode, device.vhost_user.path]
    if device.memif is not None:
        parts += [device.memif.role, device.memif.path]
    return " ".join(filter(None, parts)) or NOTHING
