"""Layouts of pyroute2 for messages about links, addresses and routes.

`nla_map` of a message class names the attributes that it decodes (pyroute2.netlink), each when it
is asked for. Of the forty of a link a dozen are, so the others are left out before.
"""

from __future__ import annotations

import importlib.util
import logging
import struct
import sys
from functools import cache
from typing import Any

# The package's own __init__ imports all of it, sockets, databases and unittest too: 9 MiB and
# 0.2 s, of which these messages are 0.8 MiB and 0.02 s. So it is there without being run.
if "pyroute2" not in sys.modules:
    _package = importlib.util.find_spec("pyroute2")
    if _package is None:
        raise ModuleNotFoundError("No module named 'pyroute2'", name="pyroute2")
    sys.modules["pyroute2"] = importlib.util.module_from_spec(_package)

from pyroute2.netlink import (
    NLA_F_NESTED,
    NLA_F_NET_BYTEORDER,
    nla_base_string,
    nla_struct,
    nlmsg,
)
from pyroute2.netlink.exceptions import NetlinkDecodeError
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg, state_by_code
from pyroute2.netlink.rtnl.rtmsg import nh, rtmsg

Attributes = dict[str, Any]
"""By the names of linux/if_link.h, if_addr.h and rtnetlink.h, undecoded."""

OPERATIONAL_STATES: dict[int, str] = state_by_code
_NOT_DECODED = (NetlinkDecodeError, struct.error, LookupError, TypeError, AttributeError)
_HEADER_BYTES = sum(struct.calcsize(size) for _, size in nlmsg.header)
_LENGTH = struct.Struct("=I")
_ATTRIBUTE = struct.Struct("=HH")
_FLAGS = NLA_F_NESTED | NLA_F_NET_BYTEORDER
_RTNEXTHOP_BYTES = 8

# It logs what it cannot decode, with the stack; here that is raised.
logging.getLogger("pyroute2").setLevel(logging.CRITICAL)


def _only(message: Any, *names: str, **forms: str) -> tuple[tuple[int, str, str], ...]:
    """Return those attributes of a message class, some in another form than its own."""
    return tuple(
        (number, name, forms.get(name, form))
        for number, (name, form) in enumerate(message.nla_map)
        if name in names or name in forms
    )


class Link(ifinfmsg):  # type: ignore[misc]  # pyroute2 has no types
    """RTM_NEWLINK. The library's hardware addresses have six bytes, and its states no others."""

    nla_map = _only(
        ifinfmsg,
        "IFLA_IFNAME",
        "IFLA_MTU",
        "IFLA_LINK",
        "IFLA_MASTER",
        "IFLA_NUM_VF",
        "IFLA_LINK_NETNSID",
        "IFLA_PARENT_DEV_NAME",
        "IFLA_PARENT_DEV_BUS_NAME",
        IFLA_ADDRESS="cdata",
        IFLA_LINKINFO="Info",
        IFLA_OPERSTATE="uint8",
    )

    class Info(ifinfmsg.ifinfo):  # type: ignore[misc]
        """IFLA_LINKINFO."""

        nla_map = _only(ifinfmsg.ifinfo, "IFLA_INFO_KIND", "IFLA_INFO_DATA")


class LinkCounters(ifinfmsg):  # type: ignore[misc]
    """RTM_NEWLINK again, for what changes all the time."""

    nla_map = _only(ifinfmsg, IFLA_STATS64="Counters")

    class Counters(nla_struct):  # type: ignore[misc]
        """IFLA_STATS64: the first eight of struct rtnl_link_stats64, unpacked at once."""

        fields = ifinfmsg.ifstats64.fields[:8]


class Address(ifaddrmsg):  # type: ignore[misc]
    """RTM_NEWADDR."""

    nla_map = _only(ifaddrmsg, "IFA_ADDRESS", "IFA_LOCAL")


class NextHop(nh):  # type: ignore[misc]
    """One of RTA_MULTIPATH."""

    nla_map = _only(rtmsg, "RTA_VIA", RTA_GATEWAY="ipaddr")

    def ft_decode(self, offset: int) -> None:
        """Refuse a hop that does not fit; the library would read on behind its end."""
        left = self.parent.offset + self.parent.length - self.offset
        if not _RTNEXTHOP_BYTES <= self.length <= left:
            raise ValueError(f"a next hop of {self.length} bytes where {left} are left")
        super().ft_decode(offset)


class Route(rtmsg):  # type: ignore[misc]
    """RTM_NEWROUTE."""

    nla_map = _only(
        rtmsg,
        "RTA_OIF",
        "RTA_PRIORITY",
        "RTA_MULTIPATH",
        "RTA_TABLE",
        "RTA_VIA",
        RTA_GATEWAY="ipaddr",
        RTA_PREFSRC="ipaddr",
    )

    @staticmethod
    def get_nh(*_: Any, **__: Any) -> type[NextHop]:
        """Return the form of RTA_MULTIPATH."""
        return NextHop


def decoded(form: Any, message: bytes) -> Any:
    """Return a message that was reduced to such a form. Raises ValueError."""
    found = form(message)
    try:
        found.decode()
    except _NOT_DECODED as error:
        raise ValueError(f"{form.__name__} of {len(message)} bytes: {error}") from error
    return found


def attributes(found: Any) -> Attributes:
    """Return the attributes of what is decoded; the first of each counts. Raises ValueError."""
    named: Attributes = {}
    for one in found["attrs"]:
        name, attribute = one.cell
        size, _ = _ATTRIBUTE.unpack_from(attribute.data, attribute.offset)
        if not _ATTRIBUTE.size <= size <= attribute.length:
            raise _misfit(size, attribute.length)
        named.setdefault(name, attribute)
    return named


def value(found: Attributes, name: str) -> Any:
    """Return what an attribute says, None if it is not there. Raises ValueError."""
    attribute = found.get(name)
    if attribute is None:
        return None
    size = attribute.length - _ATTRIBUTE.size
    if size < _min_bytes(attribute.__class__):
        raise ValueError(f"{name} of {size} bytes")
    try:
        attribute.decode()
        return attribute.getvalue()
    except _NOT_DECODED as error:
        raise ValueError(f"{name}: {error}") from error


def reduced(form: Any, message: bytes) -> bytes:
    """Return a message, given with its header of netlink, as far as its form names attributes.

    What the header says of the dump is left out: two messages of the same content are the same
    bytes. Raises ValueError.

    The library makes an object of every attribute, which takes it twice the time, and cuts one
    that does not fit, so that what follows is taken for attributes: a list of hundreds of virtual
    functions is such a one.
    """
    start, numbers = _layout(form)
    left = len(message) - start
    if left < 0:
        raise ValueError(f"{len(message)} bytes where {start} are expected")
    kept = [bytes(_HEADER_BYTES - _LENGTH.size), message[_HEADER_BYTES:start]]
    while left >= _ATTRIBUTE.size:
        size, number = _ATTRIBUTE.unpack_from(message, start)
        if not _ATTRIBUTE.size <= size <= left:
            raise _misfit(size, left)
        whole = (size + 3) & ~3
        if number & ~_FLAGS in numbers:
            kept.append(message[start : start + whole])
        start += whole
        left -= whole
    rest = b"".join(kept)
    return _LENGTH.pack(_LENGTH.size + len(rest)) + rest


@cache
def _layout(form: Any) -> tuple[int, frozenset[int]]:
    """Return where attributes begin in such a message, and the numbers of those it names."""
    return _HEADER_BYTES + form.get_size(), frozenset(number for number, *_ in form.nla_map)


@cache
def _min_bytes(form: Any) -> int:
    """Return what an attribute has at the least; the library would read on behind its end."""
    return 0 if issubclass(form, nla_base_string) else int(form.get_size())


def _misfit(size: int, left: int) -> ValueError:
    return ValueError(f"an attribute of {size} bytes where {left} are left")
