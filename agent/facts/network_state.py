"""A held network namespace: its links, and whether they have changed.

Held are a socket that hears of changes, one for dumps, and two files of /proc/net. All of them
belong to the namespace for as long as they are open, and keep it in being.

The kernel queues a notification before the system call that made the change returns, so a
reader that has emptied the queue and found nothing knows what is there now. Not all is notified:

- An IPv6 address is there before its notification: one of the kernel's own (link-local, SLAAC) and
one   with IFA_F_NODAD are notified by a work queue, after duplicate address detection
(inet6_addr_add   and addrconf_dad_start in net/ipv6/addrconf.c). /proc/net/if_inet6 lists them at
once. - Counters are never notified. /proc/net/dev has them without the RTNL lock, which a workload
can keep   others waiting for, and which every request of rtnetlink for counters takes.
- Routes that go because their link, their source address or their next hop goes are not notified
for   IPv4 (fib_flush in net/ipv4/fib_frontend.c); the link, address or next hop (RTNLGRP_NEXTHOP)
is. - Three changes have no notification: the other end of a veth that moves between two other
namespaces   (`parent_index`, `parent_namespace_id`), virtual functions that are added to a physical
  one (`num_vfs`), and a hardware address that a driver changes without a notifier.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from netutil.agent.facts.links import (
    Link,
    dump_links,
    entering,
    failures,
    is_default_route,
    links_in,
    open_namespace,
)
from netutil.agent.facts.rtnetlink import (
    event_socket,
    inside,
    is_of_kernel,
    messages_of,
    request_socket,
)
from netutil.agent.parsers.net_dev import parse_net_dev
from netutil.agent.parsers.rtnetlink import NO_COUNTERS, Counters

T = TypeVar("T")
Namespace = tuple[int, int]
"""Device and inode: what `network_namespace` of `facts.links` returns."""
MAX_INLINE_LINKS = 16
"""Links whose counters are read on the event loop: they fit into one page of /proc/net/dev."""

# RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE, _IPV6_IFADDR, _IPV6_ROUTE of
# linux/rtnetlink.h, RTNLGRP_IPV6_RULE (19) and RTNLGRP_NEXTHOP (32, since Linux 5.3; an older
# kernel ignores it).
_GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18 | 1 << 31
# RTM_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _NEWRULE, _DELRULE, _NEWNEXTHOP, _DELNEXTHOP
_CHANGES = frozenset((16, 17, 20, 21, 32, 33, 104, 105))
_RECEIVE_BYTES = 4096
"""The kernel sends one notification at a time. Of a longer one the beginning says what it is."""
_MAX_BLOCKS = 128
"""More than the buffer of the socket holds: each takes 768 bytes of its 64 KiB at least."""
_PAGE_BYTES = 4096
"""What is read of a file at once, and what seq_read of the kernel makes at once at most."""
_MAX_INET6_BYTES = 2048
_NO_FILE = -1
_LOOPBACK = 1
"""LOOPBACK_IFINDEX of the kernel: lo of every namespace."""
# Of these kinds no driver counts rx_missed_errors, which /proc/net/dev adds to rx_dropped: so its
# counters are those of IFLA_STATS64. Not of hardware, nor of what adds up the counters of hardware
# (bond, team).
_COUNTED_IN_PROC = frozenset(
    (
        *("bridge", "dummy", "geneve", "gre", "gretap", "ifb", "ip6gre", "ip6gretap", "ip6tnl"),
        *("ipip", "ipvlan", "ipvtap", "macvlan", "macvtap", "netkit", "sit", "tun", "veth"),
        *("vlan", "vrf", "vti", "vti6", "vxlan", "wireguard", "xfrm"),
    )
)


@dataclass(frozen=True, slots=True, eq=False)
class NetworkState:
    """The links of a namespace, without counters. The same object while nothing changed."""

    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class NetworkReading:
    """What one reading of a namespace found; `inet6` is /proc/net/if_inet6 from before it."""

    links: tuple[Link, ...]
    inet6: bytes | None

    def counters(self) -> Mapping[int, Counters]:
        """Return the counters of each link by its index."""
        return {link.index: link.counters for link in self.links}

    def without_counters(self) -> tuple[Link, ...]:
        """Return the links without counters."""
        return tuple(msgspec.structs.replace(link, counters=NO_COUNTERS) for link in self.links)

    @property
    def is_inline(self) -> bool:
        """Return whether the state is known to be unchanged without another reading.

        The whole of if_inet6 was read, and /proc/net/dev counts the links as rtnetlink does. It
        has them by name, and names that are not UTF-8 may be the same once they are decoded.
        """
        return (
            self.inet6 is not None
            and len(self.inet6) <= _MAX_INET6_BYTES
            and len(self.links) <= MAX_INLINE_LINKS
            and len({link.name for link in self.links}) == len(self.links)
            and all(link.kind in _COUNTED_IN_PROC or link.index == _LOOPBACK for link in self.links)
        )


class NamespaceChangedError(Exception):
    """The process has entered another network namespace, or this one was released: read again."""


@dataclass(frozen=True, slots=True)
class _Descriptors:
    events: socket.socket
    requests: socket.socket
    counters: int
    inet6: int


class HeldNamespace:
    """One network namespace, held until `close`.

    `has_changed`, `inet6` and `counters` are for the event loop and do not block; `read` is for
    another thread, one at a time. A namespace that was not closed is closed when it is
    garbage-collected.
    """

    def __init__(self, namespace: Namespace, opened: _Descriptors) -> None:
        self.namespace = namespace
        self._events = opened.events
        self._requests: socket.socket | None = opened.requests
        self._counters = opened.counters
        self._inet6 = opened.inet6
        self._counted: tuple[bytes, Mapping[str, Counters]] | None = None
        self.is_drained = False
        """Whether the last `has_changed` has emptied the queue."""
        self._reading = threading.Lock()
        self._closing = False
        self._is_closed = False

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is something to take."""
        return self._events.fileno()

    def has_changed(self) -> bool:
        """Take the notifications that are there; return whether one is of what is answered.

        True also after ENOBUFS, which says that some were dropped, and if there are more than are
        taken at once. Until the queue has been empty the kernel drops others without a word.
        """
        changed, self.is_drained = False, False
        for _ in range(_MAX_BLOCKS):
            try:
                block, sender = self._events.recvfrom(_RECEIVE_BYTES)
            except BlockingIOError:
                self.is_drained = True
                return changed
            except OSError:  # ENOBUFS
                changed = True
                continue
            changed = changed or (
                is_of_kernel(sender)
                and any(one.type in _CHANGES or is_default_route(one) for one in messages_of(block))
            )
        return True

    def inet6(self) -> bytes | None:
        """Return /proc/net/if_inet6, up to a page: nothing where the kernel has no IPv6.

        None if it cannot be read.
        """
        return b"" if self._inet6 == _NO_FILE else _first_page(self._inet6)

    def counters(self) -> Mapping[str, Counters] | None:
        """Return the counters of the links by name, None if they cannot be read so.

        What is returned is not to be changed: the same is returned while the file is the same.
        """
        text = _first_page(self._counters)
        if text is None:
            return None
        known = self._counted
        if known is None or known[0] != text:
            try:
                known = self._counted = text, parse_net_dev(text)
            except ValueError:
                return None
        return known[1]

    def read(self, thread: int) -> NetworkReading:
        """Return what is in the namespace now. Blocks: not for the event loop.

        `thread` is /proc/<pid> or /proc/<pid>/task/<tid>, open, of a process in it. Raises as
        `read_links`, and `NamespaceChangedError` if the process is in another one by now.
        """
        self._reading.acquire()
        try:
            if self._closing:
                raise NamespaceChangedError
            inet6 = self.inet6()
            return NetworkReading(self._dump(thread), inet6)
        finally:
            self._reading.release()
            if self._closing:
                self._close_unless_read()

    def close(self) -> None:
        """Let the namespace go, at the end of a reading if one is under way."""
        self._closing = True
        self._close_unless_read()

    def _close_unless_read(self) -> None:
        if not self._reading.acquire(blocking=False):
            return
        try:
            if self._is_closed:
                return
            self._is_closed = True
            self._events.close()
            self._forget_requests()
            for descriptor in (self._counters, self._inet6):
                if descriptor != _NO_FILE:
                    os.close(descriptor)
        finally:
            self._reading.release()

    def _dump(self, thread: int) -> tuple[Link, ...]:
        if self._requests is None:
            self._requests = _again(thread, self.namespace)
        try:
            with failures():
                try:
                    return dump_links(self._requests, with_functions=True)
                except ValueError:  # a list of virtual functions that is too long to be received
                    self._forget_requests()
                    self._requests = _again(thread, self.namespace)
                    return dump_links(self._requests, with_functions=False)
        except BaseException:
            self._forget_requests()  # the rest of its dump may still come
            raise

    def _forget_requests(self) -> None:
        requests, self._requests = self._requests, None
        if requests is not None:
            requests.close()

    __del__ = close


def open_held(thread: int, expected: Namespace) -> HeldNamespace:
    """Return a process's network namespace, held. Blocks: not for the event loop.

    `thread` is as in `HeldNamespace.read`, `expected` is what `network_namespace` returned before.
    Raises as `read_links`, and `NamespaceChangedError` if the process is in another one by now.
    """
    return HeldNamespace(expected, _in_namespace(thread, expected, _open_descriptors))


def read_expected(thread: int, expected: Namespace) -> tuple[Link, ...]:
    """Return the links of a process's network namespace. Parameters and errors as `open_held`."""
    namespace = _open_expected(thread, expected)
    try:
        with failures():
            return links_in(namespace)
    finally:
        os.close(namespace)


def _open_descriptors() -> _Descriptors:
    """Open what is held, in the network namespace of the calling thread."""
    with contextlib.ExitStack() as opened:
        events = opened.enter_context(event_socket(_GROUPS))
        requests = opened.enter_context(request_socket())
        counters, inet6 = _open_files(opened)
        opened.pop_all()
        return _Descriptors(events, requests, counters, inet6)


def _open_files(opened: contextlib.ExitStack) -> tuple[int, int]:
    """Open both files of /proc/net, `_NO_FILE` for one that is not there.

    Where this mount of /proc shows no counters, everything is read for each answer. A kernel
    without IPv6 has no list of addresses.
    """
    try:
        counters = _open_file("dev")
    except (FileNotFoundError, PermissionError):
        return _NO_FILE, _NO_FILE
    opened.callback(os.close, counters)
    try:
        return counters, _open_file("if_inet6")
    except FileNotFoundError:
        return counters, _NO_FILE


def _open_file(name: str) -> int:
    return os.open(f"/proc/thread-self/net/{name}", os.O_RDONLY | os.O_CLOEXEC)


def _first_page(file: int) -> bytes | None:
    """Return a file of /proc/net up to `_PAGE_BYTES`, None if it cannot be read."""
    if file == _NO_FILE:
        return None
    try:
        return os.pread(file, _PAGE_BYTES, 0)
    except OSError:
        return None


def _again(thread: int, expected: Namespace) -> socket.socket:
    return _in_namespace(thread, expected, request_socket)


def _in_namespace(thread: int, expected: Namespace, work: Callable[[], T]) -> T:
    namespace = _open_expected(thread, expected)
    try:
        with entering():
            return inside(namespace, work)
    finally:
        os.close(namespace)


def _open_expected(thread: int, expected: Namespace) -> int:
    """Return a descriptor of the network namespace that a process is in, if it is the expected."""
    namespace = open_namespace(thread)
    found = os.fstat(namespace)
    if (found.st_dev, found.st_ino) != expected:
        os.close(namespace)
        raise NamespaceChangedError
    return namespace
