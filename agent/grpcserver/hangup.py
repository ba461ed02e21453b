"""Detects closed peers, including those whose reads are paused.

The end of a connection is seen by reading it, and a connection that waits for the scheduler is
not read. The kernel reports a peer that has closed its socket without being asked for it
(epoll_ctl(2), EPOLLHUP), and before what is still to be read. A peer that has only ended its
sending (shutdown(2)) still reads, and is not reported.
"""

from __future__ import annotations

import asyncio
import math
import select
from collections.abc import Callable

_MAX_PER_ITERATION = 8
"""A process that exits closes all its connections at once: they are released over several
iterations of the loop."""
_RELEASE_SECONDS = 0.002
"""In so long as many are released at once whose end was read: a fifth of the loop's time."""


class HangupMonitor:
    """Watches any number of connected sockets. Used on one event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, now: Callable[[], float] | None = None
    ) -> None:
        """`now` returns monotonic seconds, those of the loop if it is not given."""
        self._loop = loop
        self._now = loop.time if now is None else now
        self._released = 0
        self._released_since = -math.inf
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._is_polling = False

    def watch(self, descriptor: int, on_hangup: Callable[[], None]) -> None:
        """Call `on_hangup` once when the peer has closed its socket. Raises OSError."""
        self._epoll.register(descriptor, 0)
        if not self._is_polling:
            self._loop.add_reader(self._epoll.fileno(), self._poll)
            self._is_polling = True
        self._callbacks[descriptor] = on_hangup

    def forget(self, descriptor: int) -> None:
        """Stop watching a socket, which is still open."""
        if self._callbacks.pop(descriptor, None) is None:
            return
        self._epoll.unregister(descriptor)

    def may_release(self) -> bool:
        """Return whether a connection whose peer has hung up may be released at once.

        If not, it is watched: `on_hangup` follows in an iteration of the loop that has time.
        """
        now = self._now()
        if now - self._released_since >= _RELEASE_SECONDS:
            self._released, self._released_since = 0, now
        self._released += 1
        return self._released <= _MAX_PER_ITERATION

    def close(self) -> None:
        """Stop watching all sockets. May be called again."""
        if self._epoll.closed:
            return
        self._loop.remove_reader(self._epoll.fileno())
        self._callbacks.clear()
        self._epoll.close()

    def _poll(self) -> None:
        for descriptor, _ in self._epoll.poll(0, _MAX_PER_ITERATION):
            on_hangup = self._callbacks[descriptor]
            self.forget(descriptor)
            on_hangup()


def is_hung_up(descriptor: int) -> bool:
    """Return whether the peer has closed the connection, so that it would read no answer."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))
