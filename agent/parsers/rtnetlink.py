"""Parses messages of rtnetlink(7) about links, addresses, routes and rules.

Sources: linux/if_link.h, if_addr.h, rtnetlink.h. pyroute2 decodes them (`netlink_messages`). It
takes 0.1 ms for a link; of what was seen lately the outcome is kept, by the bytes of the message,
which hardly ever change but for a link's counters.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import _lru_cache_wrapper, lru_cache
from typing import Any, TypeVar

import msgspec
from netutil.agent.parsers.addresses import format_hardware_address
from netutil.agent.parsers.netlink_messages import (
    OPERATIONAL_STATES,
    Address,
    Attributes,
    Link,
    LinkCounters,
    Route,
    attributes,
    decoded,
    reduced,
    value,
)

T = TypeVar("T")
_IFF_UP = 0x1
MAIN_TABLE = 254
"""RT_TABLE_MAIN of linux/rtnetlink.h."""
_NETLINK_HEADER_BYTES = 16
_RULE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE, _U32 = struct.Struct("=HH"), struct.Struct("=I")
# linux/fib_rules.h
_FR_ACT_TO_TBL, _FRA_TABLE, _FRA_L3MDEV = 1, 15, 19
_REMEMBERED, _MAX_REMEMBERED_BYTES = 1024, 512
"""Messages of each kind; a workload makes routes of any size."""


class Counters(msgspec.Struct, frozen=True):
    """Bytes and packets since the link was made, in the order of struct rtnl_link_stats64."""

    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_errors: int = 0
    tx_errors: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0


NO_COUNTERS = Counters()


class LinkMessage(msgspec.Struct, frozen=True):
    """RTM_NEWLINK. `below` and `master` are indices; what the message lacks is None or ""."""

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    operational_state: str
    up: bool
    counters: Counters
    vlan_id: int | None
    below: int | None
    below_namespace_id: int | None
    master: int | None
    parent_device_bus: str
    parent_device: str
    num_vfs: int | None


class AddressMessage(msgspec.Struct, frozen=True):
    """RTM_NEWADDR. `far` is the other end of a point-to-point link, else the address itself."""

    index: int
    prefix_length: int
    scope: int
    own: str
    far: str


class NextHop(msgspec.Struct, frozen=True):
    """Where a route leads: by which link, and to which gateway ("" for none)."""

    index: int
    gateway: str


class RouteMessage(msgspec.Struct, frozen=True):
    """RTM_NEWROUTE, with one next hop, or with each of a multipath route."""

    family: int
    metric: int
    source: str
    hops: tuple[NextHop, ...]
    table: int


class RuleMessage(msgspec.Struct, frozen=True):
    """RTM_NEWRULE. `table` is where it sends packets, None if nowhere.

    `any_vrf`: it sends the packets of each VRF to the VRF's own table (FRA_L3MDEV).
    """

    family: int
    table: int | None
    any_vrf: bool


def parse_link(message: bytes) -> LinkMessage:
    """Return what a message says, given with its header of netlink. Raises ValueError."""
    found = attributes(decoded(LinkCounters, reduced(LinkCounters, message)))
    stats = value(found, "IFLA_STATS64")
    link = _link(reduced(Link, message))
    return link if stats is None else msgspec.structs.replace(link, counters=Counters(**stats))


def parse_address(message: bytes) -> AddressMessage:
    """Return what a message says, given with its header of netlink. Raises ValueError."""
    return _address(reduced(Address, message))


def parse_route(message: bytes) -> RouteMessage:
    """Return what a message says, given with its header of netlink. Raises ValueError."""
    return _route(reduced(Route, message))


def parse_rule(message: bytes) -> RuleMessage:
    """Return what a message says, given with its header of netlink. Raises ValueError.

    Not by pyroute2: of struct fib_rule_hdr and two numbers it would make forty attributes.
    """
    start = _NETLINK_HEADER_BYTES + _RULE.size
    if len(message) < start:
        raise ValueError(f"a rule of {len(message)} bytes")
    family, _, _, _, table, _, _, action, _ = _RULE.unpack_from(message, _NETLINK_HEADER_BYTES)
    any_vrf = False
    for number, value_ in _attributes_of(message, start):
        if number == _FRA_TABLE and len(value_) == _U32.size:
            (table,) = _U32.unpack(value_)
        elif number == _FRA_L3MDEV:
            any_vrf = any(value_)
    leads = action == _FR_ACT_TO_TBL
    return RuleMessage(family, table if leads and table else None, leads and any_vrf)


def _attributes_of(message: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield number and value of each attribute from `start` on. Raises ValueError."""
    while start + _ATTRIBUTE.size <= len(message):
        size, number = _ATTRIBUTE.unpack_from(message, start)
        if not _ATTRIBUTE.size <= size <= len(message) - start:
            raise ValueError(f"an attribute of {size} bytes where {len(message) - start} are left")
        yield number, message[start + _ATTRIBUTE.size : start + size]
        start += (size + 3) & ~3


_MEMOS: list[_lru_cache_wrapper[Any]] = []


def _remembered(parse: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """Return a function that parses what it has not seen lately."""
    kept = lru_cache(_REMEMBERED)(parse)
    _MEMOS.append(kept)

    def parsed(message: bytes) -> T:
        return kept(message) if len(message) <= _MAX_REMEMBERED_BYTES else parse(message)

    return parsed


@_remembered
def _link(message: bytes) -> LinkMessage:
    link = decoded(Link, message)
    found = attributes(link)
    kind, vlan_id = _kind(value(found, "IFLA_LINKINFO"))
    return LinkMessage(
        index=link["index"],
        name=_text(value(found, "IFLA_IFNAME")),
        kind=kind,
        mac=format_hardware_address(link["ifi_type"], value(found, "IFLA_ADDRESS") or b""),
        mtu=value(found, "IFLA_MTU") or 0,
        operational_state=OPERATIONAL_STATES.get(value(found, "IFLA_OPERSTATE"), "UNKNOWN"),
        up=bool(link["flags"] & _IFF_UP),
        counters=NO_COUNTERS,
        vlan_id=vlan_id,
        below=value(found, "IFLA_LINK"),
        below_namespace_id=value(found, "IFLA_LINK_NETNSID"),
        master=value(found, "IFLA_MASTER"),
        parent_device_bus=_text(value(found, "IFLA_PARENT_DEV_BUS_NAME")),
        parent_device=_text(value(found, "IFLA_PARENT_DEV_NAME")),
        num_vfs=value(found, "IFLA_NUM_VF"),
    )


@_remembered
def _address(message: bytes) -> AddressMessage:
    address = decoded(Address, message)
    found = attributes(address)
    far = value(found, "IFA_ADDRESS") or ""
    own = value(found, "IFA_LOCAL") or far
    return AddressMessage(address["index"], address["prefixlen"], address["scope"], own, far)


@_remembered
def _route(message: bytes) -> RouteMessage:
    route = decoded(Route, message)
    found = attributes(route)
    multipath = value(found, "RTA_MULTIPATH")
    if multipath is not None:
        hops = tuple(NextHop(one["oif"], _gateway(attributes(one))) for one in multipath)
    else:
        hops = (NextHop(value(found, "RTA_OIF") or 0, _gateway(found)),)
    return RouteMessage(
        route["family"],
        value(found, "RTA_PRIORITY") or 0,
        value(found, "RTA_PREFSRC") or "",
        hops,
        value(found, "RTA_TABLE") or route["table"],
    )


MEMOS = tuple(_MEMOS)
"""The functions whose results are kept, for the sweep of unused entries."""


def _kind(link_info: Any) -> tuple[str, int | None]:
    """Return the kind of a link, and the VLAN's id of one that is a VLAN's."""
    if link_info is None:
        return "", None
    found = attributes(link_info)
    kind = _text(value(found, "IFLA_INFO_KIND"))
    data = value(found, "IFLA_INFO_DATA") if kind == "vlan" else None
    return kind, None if data is None else value(attributes(data), "IFLA_VLAN_ID")


def _gateway(found: Attributes) -> str:
    """Return the gateway; RTA_VIA is one of another family than the route's."""
    via = value(found, "RTA_VIA")
    return value(found, "RTA_GATEWAY") or (via and via["addr"]) or ""


def _text(found: str | bytes | None) -> str:
    """Return a text; the library leaves one that is no UTF-8 as it came."""
    return found.decode(errors="replace") if isinstance(found, bytes) else found or ""
