"""When links, addresses, default routes or routing rules of a network namespace change.

The kernel tells it to the multicast groups of rtnetlink(7); counters are not told. There is
one socket for each namespace that somebody watches, however many do.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from netutil.agent.facts.links import is_default_route
from netutil.agent.facts.netlink import messages_of, open_rtnetlink
from netutil.agent.facts.paced import PacedReader

Namespace = tuple[int, int]
"""Device and inode: what `network_namespace` of `facts.links` returns."""
Tell = Callable[[], None]

# RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE, _IPV6_IFADDR, _IPV6_ROUTE of
# linux/rtnetlink.h, and RTNLGRP_IPV6_RULE (19), of which there is no RTMGRP.
_GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18
# RTM_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _NEWRULE, _DELRULE
_CHANGES = frozenset((16, 17, 20, 21, 32, 33))
# Little, so that a flood of changes is soon dropped: ENOBUFS says all that the rest would.
_BUFFER_BYTES = 32 * 1024
_RECEIVE_BYTES = 64 * 1024
_MOST_BLOCKS = 64


def open_changes(thread: int) -> tuple[Namespace, socket.socket]:
    """Return a process's network namespace, and a socket that hears of changes in it.

    `thread` is /proc/<pid> or /proc/<pid>/task/<tid>, open. Starts a thread of the agent and
    waits for it: not for the event loop. Raises OSError: ESRCH or ENOENT if the thread has
    ended, EPERM without CAP_SYS_ADMIN.
    """
    namespace = os.open("ns/net", os.O_RDONLY | os.O_CLOEXEC, dir_fd=thread)
    try:
        found = os.fstat(namespace)
        connection = open_rtnetlink(namespace, _GROUPS)
    finally:
        os.close(namespace)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    connection.setblocking(False)
    return (found.st_dev, found.st_ino), connection


@dataclass(slots=True)
class _Watched:
    connection: socket.socket
    reader: PacedReader
    told: set[Tell] = field(default_factory=set)


class NetworkChanges:
    """The watched namespaces. Used on one event loop."""

    def __init__(self) -> None:
        self._watched: dict[Namespace, _Watched] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def __contains__(self, namespace: Namespace) -> bool:
        return namespace in self._watched

    def join(self, namespace: Namespace, tell: Tell, connection: socket.socket | None) -> None:
        """Let `tell` be called on each change from now on.

        `connection` is an `open_changes` of that namespace; needed for the first who
        joins, closed if it is not needed.
        """
        watched = self._watched.get(namespace)
        if watched is None:
            if connection is None:
                raise ValueError("the first who watches a namespace brings the socket")
            watched = self._watched[namespace] = self._opened(connection)
        elif connection is not None:
            connection.close()
        watched.told.add(tell)

    def leave(self, namespace: Namespace, tell: Tell) -> None:
        """Undo `join`. Nothing happens if it was undone before."""
        watched = self._watched.get(namespace)
        if watched is None:
            return
        watched.told.discard(tell)
        if not watched.told:
            del self._watched[namespace]
            watched.reader.close()
            watched.connection.close()  # it held the namespace

    def _opened(self, connection: socket.socket) -> _Watched:
        told: set[Tell] = set()

        def read() -> None:
            if _has_news(connection):
                for tell in tuple(told):
                    tell()

        return _Watched(connection, PacedReader(connection.fileno(), read), told)


def _has_news(connection: socket.socket) -> bool:
    """Read what is there; tell whether it is of links, addresses, default routes or rules."""
    news = False
    for _ in range(_MOST_BLOCKS):
        try:
            block = connection.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            break
        except OSError:  # ENOBUFS: some were dropped, so all has to be read anew
            news = True
            continue
        news = news or any(
            one.type in _CHANGES or is_default_route(one) for one in messages_of(block)
        )
    return news
