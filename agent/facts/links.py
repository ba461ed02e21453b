"""The links of a network namespace with their addresses and default routes, as they are now.

Source: rtnetlink(7); attributes as linux/if_link.h, if_addr.h and rtnetlink.h name them.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from netutil.agent.errors import Exhausted, Reason, Unavailable
from netutil.agent.facts.link import Address, DefaultRoute, Link, LinkCounters
from netutil.agent.facts.netlink import Message, dump, open_rtnetlink
from pyroute2.netlink.exceptions import NetlinkDecodeError
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

MOST_LINKS = 256
MOST_ADDRESSES = 4096
MOST_DEFAULT_ROUTES = 256
_RTM_GETLINK, _RTM_GETADDR, _RTM_GETROUTE = 18, 22, 26
_RTM_NEWLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 20, 24
_IFINFOMSG = struct.Struct("=BBHiII")
_IFADDRMSG = struct.Struct("=BBBBi")
_RTMSG = struct.Struct("=BBBBBBBBI")
# Without it the kernel does not say how many virtual functions a device has.
_EXT_MASK_VF = struct.pack("=HHI", 8, 29, 1)
_IFF_UP = 0x1
_MAIN_TABLE, _UNICAST = 254, 1
_SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
_VERSIONS = {socket.AF_INET: 4, socket.AF_INET6: 6}
_COUNTERS = tuple(one.name for one in fields(LinkCounters))


def read_links(process_directory: int) -> tuple[Link, ...]:
    """Return the links of a process's network namespace by index, lo included.

    `process_directory` is /proc/<pid>, open. Raises `Unavailable` if the
    namespace cannot be entered or does not answer, `Exhausted` for more
    than the agent reads, OSError with ESRCH or ENOENT if the process is gone.
    """
    namespace = os.open("ns/net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process_directory)
    try:
        connection = open_rtnetlink(namespace)
    except OSError as error:
        raise _unreadable(f"it cannot be entered: {error.strerror}") from error
    finally:
        os.close(namespace)
    try:
        with connection:
            return _read(connection)
    except TimeoutError as error:
        raise _unreadable("the kernel did not answer in time") from error
    except (OSError, NetlinkDecodeError) as error:
        raise _unreadable(str(error)) from error


def network_namespace(process_directory: int) -> tuple[int, int]:
    """Return what tells the network namespace of a process from others (namespaces(7))."""
    found = os.stat("ns/net", dir_fd=process_directory)
    return found.st_dev, found.st_ino


def host_network_namespace() -> tuple[int, int] | None:
    """Return the same of the host's init, None where the agent may not look at it."""
    try:
        found = os.stat("/proc/1/ns/net")
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _read(connection: socket.socket) -> tuple[Link, ...]:
    links = _decoded(
        dump(connection, _RTM_GETLINK, _IFINFOMSG.pack(0, 0, 0, 0, 0, 0) + _EXT_MASK_VF),
        _RTM_NEWLINK,
        ifinfmsg,
        MOST_LINKS,
        "links",
    )
    addresses = _decoded(
        dump(connection, _RTM_GETADDR, _IFADDRMSG.pack(0, 0, 0, 0, 0)),
        _RTM_NEWADDR,
        ifaddrmsg,
        MOST_ADDRESSES,
        "addresses",
    )
    routes = [
        route
        for family in _VERSIONS
        for route in _decoded(
            filter(
                _is_default,
                dump(
                    connection, _RTM_GETROUTE, _RTMSG.pack(family, 0, 0, 0, _MAIN_TABLE, 0, 0, 0, 0)
                ),
            ),
            _RTM_NEWROUTE,
            rtmsg,
            MOST_DEFAULT_ROUTES,
            "default routes",
        )
    ]
    names = {link["index"]: _text(link.get_attr("IFLA_IFNAME")) for link in links}
    by_address: defaultdict[int, list[Address]] = defaultdict(list)
    for one in addresses:
        by_address[one["index"]].append(_address(one))
    by_route: defaultdict[int, list[DefaultRoute]] = defaultdict(list)
    for one in routes:
        for index, route in _default_routes(one):
            by_route[index].append(route)
    return tuple(
        _link(one, names, tuple(by_address[one["index"]]), tuple(by_route[one["index"]]))
        for one in sorted(links, key=lambda one: int(one["index"]))
    )


def _is_default(message: Message) -> bool:
    """Tell a default route before it is decoded: a router's table may hold a million others."""
    if message.type != _RTM_NEWROUTE or len(message.body) < _RTMSG.size:
        return False
    _, destination_length, _, _, table, _, _, kind, _ = _RTMSG.unpack_from(message.body)
    return bool(destination_length == 0 and table == _MAIN_TABLE and kind == _UNICAST)


def _decoded(messages: Iterable[Message], kind: int, form: Any, most: int, what: str) -> list[Any]:
    wanted = [message for message in messages if message.type == kind]
    if len(wanted) > most:
        raise Exhausted(
            Reason.NETWORK_NAMESPACE_TOO_LARGE,
            f"The network namespace has {len(wanted)} {what}; the agent reads {most} at the most.",
            read="rtnetlink in the caller's network namespace",
        )
    found = []
    for message in wanted:
        one = form(message.data)
        one.decode()
        found.append(one)
    return found


def _link(
    found: Any,
    names: Mapping[int, str],
    addresses: tuple[Address, ...],
    routes: tuple[DefaultRoute, ...],
) -> Link:
    info = found.get_attr("IFLA_LINKINFO")
    kind = _text(info.get_attr("IFLA_INFO_KIND")) if info is not None else ""
    data = info.get_attr("IFLA_INFO_DATA") if kind == "vlan" else None
    elsewhere = found.get_attr("IFLA_LINK_NETNSID")
    below = found.get_attr("IFLA_LINK")
    if below == found["index"] and elsewhere is None:
        below = None  # tunnels and loopback name themselves
    stats = found.get_attr("IFLA_STATS64") or found.get_attr("IFLA_STATS") or {}
    return Link(
        index=found["index"],
        name=names[found["index"]],
        kind=kind,
        mac=_text(found.get_attr("IFLA_ADDRESS")),
        mtu=found.get_attr("IFLA_MTU") or 0,
        operational_state=_text(found.get_attr("IFLA_OPERSTATE")) or "UNKNOWN",
        up=bool(found["flags"] & _IFF_UP),
        addresses=addresses,
        default_routes=routes,
        counters=LinkCounters(*(stats.get(name, 0) for name in _COUNTERS)),
        vlan_id=data.get_attr("IFLA_VLAN_ID") if data is not None else None,
        parent_index=below or None,
        parent=names.get(below, "") if elsewhere is None else "",
        parent_namespace_id=elsewhere,
        master=names.get(found.get_attr("IFLA_MASTER"), ""),
        parent_device_bus=_text(found.get_attr("IFLA_PARENT_DEV_BUS_NAME")),
        parent_device=_text(found.get_attr("IFLA_PARENT_DEV_NAME")),
        num_vfs=found.get_attr("IFLA_NUM_VF"),
    )


def _address(found: Any) -> Address:
    far = _text(found.get_attr("IFA_ADDRESS"))
    own = _text(found.get_attr("IFA_LOCAL")) or far
    return Address(
        f"{own}/{found['prefixlen']}",
        _SCOPES.get(found["scope"], str(found["scope"])),
        far if far != own else "",
    )


def _default_routes(found: Any) -> Iterable[tuple[int, DefaultRoute]]:
    """Yield (link index, route); a multipath route is one for each of its next hops."""
    version = _VERSIONS[found["family"]]
    metric = found.get_attr("RTA_PRIORITY") or 0
    source = _text(found.get_attr("RTA_PREFSRC"))
    for hop in found.get_attr("RTA_MULTIPATH") or (found,):
        index = hop["oif"] if hop is not found else found.get_attr("RTA_OIF")
        via = hop.get_attr("RTA_VIA")
        gateway = _text(hop.get_attr("RTA_GATEWAY")) or _text(via["addr"] if via else None)
        if index:
            yield index, DefaultRoute(gateway, version, metric, source)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode("utf-8", errors="replace")
    return "" if value is None else str(value)


def _unreadable(why: str) -> Unavailable:
    return Unavailable(
        Reason.NETWORK_NAMESPACE_NOT_READABLE,
        f"The links of the caller's network namespace are not to be had: {why}.",
        read="/proc/<pid>/ns/net and rtnetlink",
        advice="The agent needs CAP_SYS_ADMIN to look into a network namespace; else try again.",
    )
