"""Tables of `netutil node describe`: the node, its network devices and its interfaces. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from netutil.client.cli.render.cells import listed, or_nothing, unknown
from netutil.client.cli.render.tables import Table
from netutil.client.models.core import NodeCPU
from netutil.client.models.devices import LinkCounters
from netutil.client.models.node import (
    DescribedNode,
    HostInterface,
    HostInterfaces,
    NetworkDevice,
)
from netutil.client.text import NOTHING


def _kind(one: HostInterface) -> str:
    """The kind; of a hardware link, which has none, its device."""
    if one.kind:
        return one.kind
    return one.parent_device or NOTHING


_NO_COUNTERS = LinkCounters(0, 0, 0, 0, 0, 0, 0, 0)
_COUNTERS: dict[str, Callable[[LinkCounters], int]] = {
    "RX BYTES": lambda of: of.rx_bytes,
    "TX BYTES": lambda of: of.tx_bytes,
    "RX PKTS": lambda of: of.rx_packets,
    "TX PKTS": lambda of: of.tx_packets,
    "RX ERR": lambda of: of.rx_errors,
    "TX ERR": lambda of: of.tx_errors,
    "RX DROP": lambda of: of.rx_dropped,
    "TX DROP": lambda of: of.tx_dropped,
}
_COLUMNS: dict[str, Callable[[HostInterface], str]] = {
    "NAME": lambda one: one.name,
    "KIND": _kind,
    "STATE": lambda one: or_nothing(one.operational_state),
    "MTU": lambda one: or_nothing(one.mtu),
    "MBIT/S": lambda one: or_nothing(one.speed_megabits),
    "MASTER": lambda one: or_nothing(one.master),
}
_LEAST_COLUMNS = {
    "KIND": 100,
    "MASTER": 120,
    "MBIT/S": 120,
    "RX PKTS": 150,
    "TX PKTS": 150,
}
"""Columns of the narrowest terminal that shows a column which not every terminal has."""
_NUMERIC = frozenset({"MTU", "MBIT/S", *_COUNTERS})
_ORDERS: dict[str, Callable[[HostInterface], Any]] = {
    "index": lambda one: 0,
    "traffic": lambda one: -sum(_sum(one, "RX BYTES", "TX BYTES")),
    "errors": lambda one: -sum(_sum(one, "RX ERR", "TX ERR")),
    "dropped": lambda one: -sum(_sum(one, "RX DROP", "TX DROP")),
    "name": lambda one: one.name,
}


def in_order(node: DescribedNode, order: str) -> DescribedNode:
    """The node with its interfaces in an order of `--sort`."""
    found = node.host_interfaces
    if found is None or found.interfaces is None:
        return node
    ordered = tuple(sorted(found.interfaces, key=_ORDERS[order]))
    return replace(node, host_interfaces=replace(found, interfaces=ordered))


def described_node(node: DescribedNode, width: int | None) -> tuple[Table, ...]:
    """The node, a line for each of its network devices, and one for each of its interfaces.

    Fewer columns in a narrow terminal.
    """
    rows = (("node", node.node_name or NOTHING), ("kernel", node.kernel), *_cpus(node))
    notes = tuple(note for error in node.errors for note in unknown(error.part, error))
    tables = [Table("NODE", (), rows, notes)]
    if node.network_devices:
        tables.append(_devices(node.network_devices))
    tables.append(_interfaces(node.host_interfaces, width))
    return tuple(tables)


def _cpus(node: DescribedNode) -> Iterator[tuple[str, str]]:
    counts = node.cpu_counts
    yield "cpus_online", or_nothing(counts.logical if counts else None)
    yield "cores_online", or_nothing(counts.cores if counts else None)
    yield "cpus_offline", str(sum(not cpu.online for cpu in node.cpus)) if node.cpus else NOTHING
    yield "sockets", _different(node.cpus, lambda cpu: cpu.socket)
    yield "numa_nodes", _different(node.cpus, lambda cpu: cpu.numa_node)


def _different(cpus: Sequence[NodeCPU], of: Callable[[NodeCPU], int | None]) -> str:
    found = {of(cpu) for cpu in cpus} - {None}
    return str(len(found)) if found else NOTHING


def _devices(devices: Iterable[NetworkDevice]) -> Table:
    headers = ("ADDRESS", "DRIVER", "NUMA", "PF", "VFS", "INTERFACES")
    rows = tuple(
        (
            one.pci.address,
            or_nothing(one.pci.driver),
            or_nothing(one.pci.numa_node),
            or_nothing(one.pci.pf_address),
            or_nothing(None if one.pci.pf_address else one.pci.max_vfs),
            listed(one.interfaces),
        )
        for one in devices
    )
    return Table("NETWORK DEVICES", headers, rows, numeric=frozenset({"NUMA", "VFS"}))


def _interfaces(found: HostInterfaces | None, width: int | None) -> Table:
    headers = tuple(
        header
        for header in (*_COLUMNS, *_COUNTERS)
        if width is None or width >= _LEAST_COLUMNS.get(header, 0)
    )
    if found is None:
        return Table(
            "INTERFACES", headers, (), ("not known: the agent is older than this command",)
        )
    notes = [
        *(["there are more interfaces than are read"] if found.truncated else []),
        *unknown("interfaces", found.error),
    ]
    rows = tuple(_row(one, headers) for one in found.interfaces or ())
    return Table("INTERFACES", headers, rows, tuple(notes), _NUMERIC, frozenset({"MASTER"}))


def _row(one: HostInterface, headers: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        _COLUMNS[header](one) if header in _COLUMNS else _counter(one, header) for header in headers
    )


def _counter(one: HostInterface, header: str) -> str:
    return NOTHING if one.counters is None else str(_COUNTERS[header](one.counters))


def _sum(one: HostInterface, *headers: str) -> Iterator[int]:
    return (_COUNTERS[header](one.counters or _NO_COUNTERS) for header in headers)
