"""Sends bytes over many connections at once, as fast as the agent takes them."""

from __future__ import annotations

import select
import selectors
import socket
from collections.abc import Callable, Iterator

from tests.support import http2

Blocks = Iterator[bytes]
"""What one connection sends, block by block. At its end the connection is made again."""


class _Flow:
    """One connection of a flood."""

    def __init__(self, blocks: Blocks) -> None:
        self.socket = http2.connect()
        self.socket.setblocking(False)
        self._blocks = blocks
        self._rest = b""

    def push(self) -> None:
        """Send what is due. Raises OSError, StopIteration."""
        if not self._rest:
            self._rest = next(self._blocks)
        try:
            self._rest = self._rest[self.socket.send(self._rest) :]
        except BlockingIOError:
            pass

    def drain(self) -> None:
        """Take what has come. Raises OSError if that is the end."""
        try:
            if not self.socket.recv(65536):
                raise ConnectionResetError
        except BlockingIOError:
            pass


def flood(blocks: Callable[[], Blocks], connections: int, *, reads: bool = True) -> None:
    """Send for ever; each connection that ends is made again.

    It reads what comes back, since a peer that does not is stopped by back-pressure alone;
    `reads` is False for an attack that is about just that.
    """
    events_wanted = selectors.EVENT_WRITE | (selectors.EVENT_READ if reads else 0)
    selector = selectors.DefaultSelector()
    missing = connections
    while True:
        while missing:
            try:
                flow = _Flow(blocks())
            except OSError:
                break
            selector.register(flow.socket, events_wanted, flow)
            missing -= 1
        for key, events in selector.select(timeout=0.1):
            flow = key.data
            try:
                if events & selectors.EVENT_READ:
                    flow.drain()
                if events & selectors.EVENT_WRITE:
                    flow.push()
            except (OSError, StopIteration):
                selector.unregister(flow.socket)
                flow.socket.close()
                missing += 1


def hold(first: bytes, connections: int, *, reads: bool = True, half_closed: bool = False) -> None:
    """Keep so many connections for ever, or what the agent lets open; send only `first` on each.

    What comes is thrown away; with `reads` False it is left in the socket. With `half_closed` the
    sending direction of each connection is shut down.
    """
    kept: dict[int, socket.socket] = {}
    events = select.epoll()
    while True:
        try:
            while len(kept) < connections:
                connection = http2.connect()
                kept[connection.fileno()] = connection
                events.register(connection, select.EPOLLIN if reads else 0)
                connection.send(first)
                if half_closed:
                    connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        for descriptor, event in events.poll(0.1):
            if event & (select.EPOLLHUP | select.EPOLLERR) or _at_end(kept[descriptor]):
                events.unregister(descriptor)
                kept.pop(descriptor).close()


def _at_end(connection: socket.socket) -> bool:
    """Take what has come; return whether that was the end."""
    try:
        return not connection.recv(65536, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
