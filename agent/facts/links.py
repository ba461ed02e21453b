"""The links, addresses and default routes of a network namespace."""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import msgspec
from netutil.agent.errors import Reason, ResourceExhausted, Unavailable, resource_exhausted
from netutil.agent.facts.rtnetlink import Message, dump, open_rtnetlink
from netutil.agent.parsers.rtnetlink import (
    MAIN_TABLE,
    NO_COUNTERS,
    AddressMessage,
    Counters,
    LinkMessage,
    RouteMessage,
    RuleMessage,
    parse_address,
    parse_link,
    parse_route,
    parse_rule,
)
from netutil.agent.yield_cpu import in_pieces

T = TypeVar("T")
MAX_LINKS = 256
MAX_ADDRESSES = 4096
MAX_DEFAULT_ROUTES = 256
MAX_RULES = 4096
_RTM_GETLINK, _RTM_GETADDR, _RTM_GETROUTE, _RTM_GETRULE = 18, 22, 26, 34
_RTM_NEWLINK, _RTM_NEWADDR, _RTM_NEWROUTE, _RTM_NEWRULE = 16, 20, 24, 32
_RTM_DELROUTE = 25
_IFINFOMSG = struct.Struct("=BBHiII")
_IFADDRMSG = struct.Struct("=BBBBi")
_RTMSG = struct.Struct("=BBBBBBBBI")
# IFLA_EXT_MASK: without RTEXT_FILTER_VF the kernel does not say how many virtual functions a
# device has; with RTEXT_FILTER_SKIP_STATS it leaves out statistics of each, which are not used
# here.
_WITH_FUNCTIONS = struct.pack("=HHI", 8, 29, 1 | 8)
_READ_FROM = "/proc/<pid>/ns/net and rtnetlink"
_ALL_TABLES, _UNICAST = 0, 1
_NAMES_PARENT_DEVICES = (5, 14)
"""Since Linux 5.14 a link has IFLA_PARENT_DEV_NAME and IFLA_PARENT_DEV_BUS_NAME."""
_RELEASE = re.compile(r"(\d{1,4})\.(\d{1,4})")
_SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
_VERSIONS = {int(socket.AF_INET): 4, int(socket.AF_INET6): 6}


class Address(msgspec.Struct, frozen=True):
    """One address of a link: with prefix length ("10.1.0.5/24"), its scope, and its peer."""

    address: str
    scope: str
    peer: str = ""


class DefaultRoute(msgspec.Struct, frozen=True):
    """A default route. `gateway` is "" where the network is on the link.

    `table` is that of RTA_TABLE: the main one, or one that a rule leads to.
    """

    gateway: str
    ip_version: int
    metric: int = 0
    source: str = ""
    table: int = MAIN_TABLE


class Link(msgspec.Struct, frozen=True):
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


def read_links(thread: int) -> tuple[Link, ...]:
    """Return the links of a process's network namespace by index, lo included.

    `thread` is /proc/<pid> or /proc/<pid>/task/<tid>, open. Raises `Unavailable` if the
    namespace cannot be entered or does not answer, `ResourceExhausted` for more
    than the agent reads and for a shortage, OSError with ESRCH or ENOENT if the thread has ended.
    """
    namespace = open_namespace(thread)
    try:
        with failures():
            return links_in(namespace)
    finally:
        os.close(namespace)


def open_namespace(thread: int) -> int:
    """Return a descriptor of a process's network namespace (nsfs). Raises as `read_links`."""
    try:
        return os.open("ns/net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=thread)
    except OSError as error:
        if isinstance(error, PermissionError):
            why = f"the agent may not look at it: {error.strerror}"
            raise _unreadable(why) from error
        raise resource_exhausted(error, _READ_FROM) or error from error


@contextmanager
def failures() -> Iterator[None]:
    """Raise what a reading of a network namespace raises as the error that callers get."""
    try:
        yield
    except TimeoutError as error:
        raise _unreadable("the kernel did not answer in time") from error
    except OSError as error:
        raise resource_exhausted(error, _READ_FROM) or _unreadable(str(error)) from error
    except ValueError as error:
        raise _unreadable(f"a message of the kernel is not as expected ({error})") from error


def names_parent_devices(release: str, links: Iterable[Link]) -> bool:
    """Return whether a link without a parent device has none, rather than one that is not named.

    `release` is that of the running kernel (uname(2)); one that names the parent of another link
    does so whatever its release is.
    """
    match = _RELEASE.match(release)
    new = match is not None and (int(match[1]), int(match[2])) >= _NAMES_PARENT_DEVICES
    return new or any(link.parent_device for link in links)


def network_namespace(thread: int) -> tuple[int, int]:
    """Return the identity of a process's network namespace, as stat(2) of its file shows it.

    That is the device of nsfs, of which a kernel has one, and the inode number in the text of the
    link (namespaces(7); `ns_get_name` in fs/nsfs.c). To follow the link takes twice as long.
    Raises `Unavailable` if the agent may not look at it, FileNotFoundError or ProcessLookupError
    for a thread that has ended.
    """
    try:
        name = os.readlink("ns/net", dir_fd=thread)
    except PermissionError as error:
        raise _unreadable(f"the agent may not look at it: {error.strerror}") from error
    return _nsfs_device(), int(name[len("net:[") : -1])


@cache
def _nsfs_device() -> int:
    return os.stat("/proc/self/ns/net").st_dev


def host_network_namespace() -> tuple[int, int] | None:
    """Return the same of the host's init, None where the agent may not look at it."""
    try:
        found = os.stat("/proc/1/ns/net")
    except OSError:
        return None
    return found.st_dev, found.st_ino


def links_in(namespace: int) -> tuple[Link, ...]:
    """Return the links of a namespace, a descriptor of nsfs.

    Without the number of virtual functions where that spoils the message.

    The kernel reports it with a list of them all, and hundreds make that longer than an attribute
    can be, and the message longer than what is received.
    """
    try:
        with _opened(namespace) as connection:
            return dump_links(connection, with_functions=True)
    except ValueError:
        with _opened(namespace) as connection:
            return dump_links(connection, with_functions=False)


def _opened(namespace: int) -> socket.socket:
    with entering():
        return open_rtnetlink(namespace)


@contextmanager
def entering() -> Iterator[None]:
    """Raise an OSError as the error of a network namespace that cannot be entered."""
    try:
        yield
    except OSError as error:
        found = resource_exhausted(error, _READ_FROM)
        raise found or _unreadable(f"it cannot be entered: {error.strerror}") from error


def dump_links(connection: socket.socket, *, with_functions: bool) -> tuple[Link, ...]:
    """Return the links of the namespace of an rtnetlink socket.

    `with_functions` asks for the number of virtual functions. The links are dumped first: that
    takes the RTNL lock (rtnl_dump_ifinfo in the kernel's net/core/rtnetlink.c), addresses and
    routes do not need it since Linux 6.9. A change that sent a notification before all that it
    does was done (a link that goes down takes its routes along without a word) is so waited for.
    Raises as `dump`, and `ResourceExhausted` for more links, addresses or routes than are read.
    """
    extent = _WITH_FUNCTIONS if with_functions else b""
    links = _decoded(
        dump(connection, _RTM_GETLINK, _IFINFOMSG.pack(0, 0, 0, 0, 0, 0) + extent),
        _RTM_NEWLINK,
        parse_link,
        MAX_LINKS,
        "links",
    )
    addresses = _decoded(
        dump(connection, _RTM_GETADDR, _IFADDRMSG.pack(0, 0, 0, 0, 0)),
        _RTM_NEWADDR,
        parse_address,
        MAX_ADDRESSES,
        "addresses",
    )
    routes = [
        route
        for family in _VERSIONS
        for route in _decoded(
            filter(is_default_route, _routes(connection, family)),
            _RTM_NEWROUTE,
            parse_route,
            MAX_DEFAULT_ROUTES,
            "default routes",
        )
    ]
    routes = _in_use(routes, connection)
    names = {link.index: link.name for link in links}
    by_address: defaultdict[int, list[Address]] = defaultdict(list)
    for one in addresses:
        by_address[one.index].append(_address(one))
    by_route: defaultdict[int, list[DefaultRoute]] = defaultdict(list)
    for found in routes:
        for index, route in _default_routes(found):
            by_route[index].append(route)
    return tuple(
        _link(one, names, tuple(by_address[one.index]), tuple(by_route[one.index]))
        for one in in_pieces(sorted(links, key=lambda one: one.index))
    )


def _routes(connection: socket.socket, family: int) -> tuple[Message, ...]:
    """Return the routes of every table; none where none was ever made (ENOENT)."""
    try:
        request = _RTMSG.pack(family, 0, 0, 0, _ALL_TABLES, 0, 0, 0, 0)
        return dump(connection, _RTM_GETROUTE, request)
    except FileNotFoundError:
        return ()


def _in_use(routes: Sequence[RouteMessage], connection: socket.socket) -> list[RouteMessage]:
    """Return the routes of the main table, then those of tables that a rule leads to, by table.

    A route of another table is used by no packet. The rules are read only where there is one.
    """
    if all(route.table == MAIN_TABLE for route in routes):
        return list(routes)
    rules = [rule for rule in _rules(connection) if rule.family in _VERSIONS]
    led = {(rule.family, rule.table) for rule in rules}
    any_vrf = {rule.family for rule in rules if rule.any_vrf}
    used = [
        route
        for route in routes
        if route.table == MAIN_TABLE
        or route.family in any_vrf
        or (route.family, route.table) in led
    ]
    return sorted(used, key=lambda route: (route.table != MAIN_TABLE, route.table))


def _rules(connection: socket.socket) -> Iterable[RuleMessage]:
    """Return the routing rules; none for a kernel without CONFIG_IP_MULTIPLE_TABLES."""
    try:
        found = dump(connection, _RTM_GETRULE, _RTMSG.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
            return ()
        raise
    return _decoded(found, _RTM_NEWRULE, parse_rule, MAX_RULES, "routing rules")


def is_default_route(message: Message) -> bool:
    """Return whether a message is a default route, without decoding it.

    A router's table may hold a million others.
    """
    if message.type not in (_RTM_NEWROUTE, _RTM_DELROUTE) or len(message.body) < _RTMSG.size:
        return False
    family, destination_length, _, _, _, _, _, kind, _ = _RTMSG.unpack_from(message.body)
    return family in _VERSIONS and kind == _UNICAST and destination_length == 0


def _decoded(
    messages: Iterable[Message], kind: int, parse: Callable[[bytes], T], most: int, what: str
) -> list[T]:
    wanted = [message for message in messages if message.type == kind]
    if len(wanted) > most:
        raise ResourceExhausted(
            Reason.NETWORK_NAMESPACE_TOO_LARGE,
            f"The caller's network namespace has {len(wanted)} {what}; the agent reads at most"
            f" {most}.",
            read="rtnetlink in the caller's network namespace",
        )
    return [parse(message.data) for message in in_pieces(wanted)]


def _link(
    found: LinkMessage,
    names: Mapping[int, str],
    addresses: tuple[Address, ...],
    routes: tuple[DefaultRoute, ...],
) -> Link:
    elsewhere = found.below_namespace_id
    below = found.below
    if below == found.index and elsewhere is None:
        below = None  # tunnels and loopback name themselves
    return Link(
        index=found.index,
        name=found.name,
        kind=found.kind,
        mac=found.mac,
        mtu=found.mtu,
        operational_state=found.operational_state,
        up=found.up,
        addresses=addresses,
        default_routes=routes,
        counters=found.counters,
        vlan_id=found.vlan_id,
        parent_index=below or None,
        parent=names.get(below or 0, "") if elsewhere is None else "",
        parent_namespace_id=elsewhere,
        master=names.get(found.master or 0, ""),
        parent_device_bus=found.parent_device_bus,
        parent_device=found.parent_device,
        num_vfs=found.num_vfs,
    )


def _address(found: AddressMessage) -> Address:
    return Address(
        f"{found.own}/{found.prefix_length}",
        _SCOPES.get(found.scope, str(found.scope)),
        found.far if found.far != found.own else "",
    )


def _default_routes(found: RouteMessage) -> Iterable[tuple[int, DefaultRoute]]:
    """Yield (link index, route); a multipath route is one for each of its next hops."""
    version = _VERSIONS[found.family]
    for hop in found.hops:
        if hop.index:
            yield (
                hop.index,
                DefaultRoute(hop.gateway, version, found.metric, found.source, found.table),
            )


def _unreadable(why: str) -> Unavailable:
    return Unavailable(
        Reason.NETWORK_NAMESPACE_NOT_READABLE,
        f"The links of the caller's network namespace cannot be read: {why}.",
        read=_READ_FROM,
        advice="The agent needs CAP_SYS_ADMIN to look into a network namespace; else try again.",
    )
