"""Reads and writes one non-blocking stream socket for its connection, on an event loop.

asyncio's own transport needs a task, a future and three iterations of the loop until it reads for
the first time. This one reads at once, and waits with the poller of its server.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from time import perf_counter
from typing import Protocol

from netutil.agent.grpcserver.poller import ENDED, READABLE, WRITABLE, Poller

_LOG = logging.getLogger(__name__)


class TransportEvents(Protocol):
    """What a transport calls."""

    def get_buffer(self) -> memoryview:
        """Return where to read to. What is read is taken from it before the next read.

        An OSError ends the connection.
        """

    def buffer_updated(self, size: int) -> None:
        """So many bytes were read."""

    def eof_received(self) -> None:
        """The peer sends no more. Nothing is read after that."""

    def pause_writing(self) -> None:
        """The kernel did not take all that was written."""

    def wrote(self, seconds: float) -> None:
        """A write of what was left has taken so long."""

    def resume_writing(self) -> None:
        """The kernel has taken all that was written. What is raised ends the connection."""

    def connection_lost(self) -> None:
        """The connection has ended, and its socket is closed next.

        Called once, and from within no other method than `SocketTransport.read`, at its end.
        """


class SocketTransport:
    """A connected socket, which it closes in the end. Used on one event loop.

    Nothing is read before `read` or `resume_reading`. An error of the socket ends the connection,
    as does a peer that has closed its own: from `resume_reading` or `pause_reading` on, whatever
    is read.
    """

    __slots__ = (
        "_events",
        "_is_at_end",
        "_is_closing",
        "_is_in_read",
        "_is_lost",
        "_is_polled",
        "_is_reading",
        "_loop",
        "_poller",
        "_socket",
        "_unsent",
        "descriptor",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        connection: socket.socket,
        events: TransportEvents,
    ) -> None:
        self._loop = loop
        self._poller = poller
        self._socket = connection
        self._events: TransportEvents | None = events
        self.descriptor = connection.fileno()
        self._unsent = bytearray()
        self._is_polled = self._is_reading = self._is_at_end = False
        self._is_closing = self._is_lost = self._is_in_read = False

    # Reading

    def read(self) -> None:
        """Read once, if something has come, and pass it on.

        What the receiver raises beside OSError is raised, and ends the connection.
        """
        self._is_in_read = True
        try:
            self._read()
        finally:
            self._is_in_read = False
            if self._is_lost:
                self._end()

    def _read(self) -> None:
        events = self._events
        if events is None or self._is_closing:
            return
        try:
            size = self._socket.recv_into(events.get_buffer())
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        try:
            if size:
                events.buffer_updated(size)
            else:
                self._is_at_end = True
                self.pause_reading()
                events.eof_received()
        except Exception:
            self.abort()
            raise

    def is_reading(self) -> bool:
        """Return whether it reads what comes."""
        return self._is_reading

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`. The end of the peer still ends the connection."""
        if self._is_closing or (self._is_polled and not self._is_reading):
            return
        self._is_reading = False
        self._wait()

    def resume_reading(self) -> None:
        """Read what comes from now on. Nothing happens at the end of what the peer sends."""
        if self._is_reading or self._is_at_end or self._is_closing:
            return
        self._is_reading = True
        self._wait()

    # Waiting

    def _wait(self) -> None:
        """Wait for what is wanted now."""
        interest = READABLE if self._is_reading else 0
        if self._unsent:
            interest |= WRITABLE
        try:
            if self._is_polled:
                self._poller.modify(self.descriptor, interest)
            else:
                self._poller.add(self.descriptor, interest, self._handle)
                self._is_polled = True
        except OSError as error:
            _LOG.error("grpcserver: a connection could not be served: %s", error)
            self.abort()

    def _handle(self, events: int) -> None:
        if events & ENDED:
            self.abort()
            return
        if events & READABLE:
            self.read()
        if events & WRITABLE and not self._is_lost:
            self._write_unsent()

    # Writing

    def write(self, data: bytes) -> None:
        """Send data; what the kernel does not take at once is kept, and sent later."""
        if self._is_closing:
            return
        sent = 0
        if not self._unsent:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.abort()
                return
            if sent == len(data):
                return
        begins = not self._unsent
        self._unsent += memoryview(data)[sent:]
        if begins:
            self._wait()
            if self._events is not None and not self._is_lost:
                self._events.pause_writing()

    def _write_unsent(self) -> None:
        began = perf_counter()
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        del self._unsent[:sent]
        if self._events is not None:
            self._events.wrote(perf_counter() - began)
        if self._unsent:
            return
        if self._is_closing:
            self._lose()
            return
        self._wait()
        if self._events is not None and not self._is_lost:
            self._resume_writing(self._events)

    def _resume_writing(self, events: TransportEvents) -> None:
        try:
            events.resume_writing()
        except Exception:
            self.abort()
            raise

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the kernel has not taken yet."""
        return len(self._unsent)

    # The end

    def is_closing(self) -> bool:
        """Return whether nothing more is read or can be written."""
        return self._is_closing

    def close(self) -> None:
        """Read nothing more, and close the socket once all that was written is sent."""
        if self._is_closing:
            return
        self._is_closing = True
        if not self._unsent:
            self._lose()
        elif self._is_reading:
            self._is_reading = False
            self._wait()

    def abort(self) -> None:
        """Close the socket at once. What is not sent yet is lost."""
        if self._is_lost:
            return
        self._is_closing = True
        self._unsent.clear()
        self._lose()

    def _lose(self) -> None:
        self._is_lost = True
        self._is_reading = False
        if self._is_polled:
            self._is_polled = False
            self._poller.remove(self.descriptor)
        if not self._is_in_read:
            self._loop.call_soon(self._end)

    def _end(self) -> None:
        """Report the end, once, and close the socket. May be called again."""
        events, self._events = self._events, None
        try:
            if events is not None:
                events.connection_lost()
        finally:
            self._socket.close()
