"""Who has hung up, also of those of whom nothing is read now.

A connection whose frames wait for their turn is not read, and so its end, which stands behind all
that its peer had sent, is not seen. The kernel reports a peer that has closed its socket without
being asked for it (epoll_ctl(2), EPOLLHUP), and before what is still to be read.

A process that ends hangs up all its connections at once, and to let go of one, here and in the
gRPC server, takes a tenth of a millisecond. So they are let go a few at a time.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass

_PORTION_SECONDS = 0.001
_PORTION, _LEAST = 16, 2
"""At once at least two, and a sixteenth of all: so thousands are gone in a tenth of a second."""


def _nothing() -> None:
    """Nothing is read of the peer yet."""


@dataclass(slots=True)
class _Watched:
    connection: socket.socket
    descriptor: int
    name: str
    tell: Callable[[], object]
    stop_reading: Callable[[], None] = _nothing


class Hangups:
    """Looks out for the hang-up of any number of peers. Used on one event loop only."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._by_name: dict[str, _Watched] = {}
        self._by_descriptor: dict[int, _Watched] = {}
        self._gone: dict[str, _Watched] = {}
        self._timer: asyncio.TimerHandle | None = None

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

    def stop_first(self, name: str, stop_reading: Callable[[], None]) -> None:
        """Call this at once when a peer has hung up, and `tell` in its turn.

        Else whoever reads finds out by itself, and lets go of all of a crowd at once.
        """
        one = self._by_name.get(name)
        if one is not None:
            one.stop_reading = stop_reading

    def forget(self, name: str) -> None:
        """Look after a connection no more; nothing happens if that is so already."""
        self._gone.pop(name, None)
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

    def is_gone(self, name: str) -> bool:
        """Return whether a peer has hung up; `tell` is, or was, called for it then."""
        one = self._by_name.get(name)
        if one is None or not is_hung_up(one.descriptor):
            return name in self._gone
        self._goes(one)
        return True

    def _look(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            self._goes(self._by_descriptor[descriptor])

    def _goes(self, one: _Watched) -> None:
        self.forget(one.name)
        one.stop_reading()
        self._gone[one.name] = one
        if self._timer is None:
            self._portion()

    def _portion(self) -> None:
        self._timer = None
        if not self._gone:
            return
        for name in list(self._gone)[: max(_LEAST, len(self._gone) // _PORTION)]:
            self._gone.pop(name).tell()
        # Also if nobody is left: whoever comes a moment later is of the same crowd.
        self._timer = asyncio.get_running_loop().call_later(_PORTION_SECONDS, self._portion)


def is_hung_up(descriptor: int) -> bool:
    """Return whether the peer has closed the connection: nobody would read what it asked.

    One that has ended its sending alone still reads, and the kernel does not report that unasked
    (poll(2), POLLHUP). To find out who it was would cost more than all that it did.
    """
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))
