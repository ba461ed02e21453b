"""What a link of a network namespace is, as rtnetlink(7) shows it."""

from __future__ import annotations

from dataclasses import dataclass

from netutil.agent.parsers.rtnetlink import MAIN_TABLE, NO_COUNTERS, Counters


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a link: with prefix length ("10.1.0.5/24"), its scope, and its peer."""

    address: str
    scope: str
    peer: str = ""


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """A default route. `gateway` is "" where the network is on the link.

    `table` is that of RTA_TABLE: the main one, or one that a rule leads to.
    """

    gateway: str
    ip_version: int
    metric: int = 0
    source: str = ""
    table: int = MAIN_TABLE


@dataclass(frozen=True, slots=True)
class Link:
    """One link. What is None or "" is not shown for its kind; see message Link of the proto."""

    index: int
    name: str
    kind: str = ""
    mac: str = ""
    mtu: int = 0
    operational_state: str = "UNKNOWN"
    up: bool = False
    addresses: tuple[Address, ...] = ()
    default_routes: tuple[DefaultRoute, ...] = ()
    counters: Counters = NO_COUNTERS
    vlan_id: int | None = None
    parent_index: int | None = None
    parent: str = ""
    parent_namespace_id: int | None = None
    master: str = ""
    parent_device_bus: str = ""
    parent_device: str = ""
    num_vfs: int | None = None
