"""Waits for the sockets of many connections with one epoll, below the event loop's selector.

The loop's selector returns ready sockets in the kernel's order, and knows nothing of their ends. A
process that exits closes all of its connections at once, and to release one takes as long as a
call. So connections that have ended are released a few in each iteration of the loop, after those
that go on.

The kernel reports a peer that has closed its socket (EPOLLHUP of epoll_ctl(2)) without being asked
for it, also while nothing is read of the connection. A peer that has only ended its sending
(shutdown(2)) still reads, and is not reported.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT
ENDED = select.EPOLLHUP | select.EPOLLERR
"""The peer has closed its socket. Reported whatever the interest is."""

_MAX_EVENTS = 512
"""In one iteration. The kernel then reports those that it has not reported for longest."""
_MAX_ENDED = 3
"""Connections that are released in one iteration."""
_MAX_LOOKED_AT = 16
"""Events in one look between two iterations."""

OnEvents = Callable[[int], None]
"""Takes the events of epoll_ctl(2) that have come."""


class Poller:
    """Watches any number of connected sockets. Used on one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._callbacks: dict[int, OnEvents] = {}
        self._is_polling = False

    def add(self, descriptor: int, interest: int, on_events: OnEvents) -> None:
        """Call `on_events` while a socket is as `interest` says, or has ended. Raises OSError."""
        self._epoll.register(descriptor, interest)
        if not self._is_polling:
            self._loop.add_reader(self._epoll.fileno(), self._poll)
            self._is_polling = True
        self._callbacks[descriptor] = on_events

    def modify(self, descriptor: int, interest: int) -> None:
        """Watch an added socket for something else. Raises OSError."""
        self._epoll.modify(descriptor, interest)

    def remove(self, descriptor: int) -> None:
        """Stop watching a socket, which is still open. May be called again."""
        if self._callbacks.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Stop watching all sockets. May be called again."""
        if self._epoll.closed:
            return
        self._loop.remove_reader(self._epoll.fileno())
        self._is_polling = False
        self._callbacks.clear()
        self._epoll.close()

    def look(self) -> None:
        """Handle a few events that have come since the loop has looked.

        None of a socket whose peer has closed it: an iteration releases few of them. For work that
        takes the loop's time in many pieces. Nothing happens after `close`.
        """
        if self._is_polling:
            events = self._epoll.poll(0, _MAX_LOOKED_AT)
            self._handle([each for each in events if not each[1] & ENDED])

    def _poll(self) -> None:
        events = self._epoll.poll(0, _MAX_EVENTS)
        self._handle(_ordered(events) if len(events) > 1 else events)

    def _handle(self, events: list[tuple[int, int]]) -> None:
        callbacks = self._callbacks
        for descriptor, flags in events:
            on_events = callbacks.get(descriptor)  # the callback of another one may have removed it
            if on_events is None:
                continue
            try:
                on_events(flags)
            except Exception as error:  # noqa: BLE001 - a bug in one connection: the others go on
                self._loop.call_exception_handler(
                    {"message": "grpcserver: an event could not be handled", "exception": error}
                )


def _ordered(events: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the events of sockets that go on, and then those of a few that have ended."""
    ended = [each for each in events if each[1] & ENDED]
    return [each for each in events if not each[1] & ENDED] + ended[:_MAX_ENDED]


def peer_closed(descriptor: int) -> bool:
    """Return whether the peer has closed the connection, so that it would read no answer."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))
