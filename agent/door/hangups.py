"""Who has hung up, also of those of whom nothing is read now.

A connection whose frames wait for their turn is not read, and so its end, which stands behind all
that its peer had sent, is not seen. The kernel reports a peer that has closed its socket without
being asked for it (epoll_ctl(2), EPOLLHUP), and before what is still to be read.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Watched:
    connection: socket.socket
    descriptor: int
    name: str
    tell: Callable[[], object]


class Hangups:
    """Looks out for the hang-up of any number of peers. Used on one event loop only."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._by_name: dict[str, _Watched] = {}
        self._by_descriptor: dict[int, _Watched] = {}

    def watch(self, connection: socket.socket, name: str, tell: Callable[[], object]) -> None:
        """Call `tell` once when the peer has hung up, unless the name is forgotten before.

        A peer that has only ended its sending still reads, and has not hung up. The connection
        may be closed before it is forgotten. Raises OSError.
        """
        one = _Watched(connection, connection.fileno(), name, tell)
        self._epoll.register(one.descriptor, 0)
        if not self._by_name:
            asyncio.get_running_loop().add_reader(self._epoll, self._look)
        self._by_name[name] = self._by_descriptor[one.descriptor] = one

    def forget(self, name: str) -> None:
        """Look after a connection no more; nothing happens if that is so already."""
        one = self._by_name.pop(name, None)
        if one is None:
            return
        if self._by_descriptor.get(one.descriptor) is one:
            del self._by_descriptor[one.descriptor]
        # Closing a socket has let the kernel forget it, and its number may be another's.
        if one.connection.fileno() == one.descriptor:
            self._epoll.unregister(one.descriptor)
        if not self._by_name:
            asyncio.get_running_loop().remove_reader(self._epoll)

    def _look(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            one = self._by_descriptor[descriptor]
            self.forget(one.name)
            one.tell()
