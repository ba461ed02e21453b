"""Reads and writes one non-blocking stream socket for its connection, on an event loop.

asyncio's own transport needs a task, a future and three iterations of the loop until it reads for
the first time. This one reads at once, and needs the loop for nothing but waiting.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Protocol

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

    def resume_writing(self) -> None:
        """The kernel has taken all that was written. What is raised ends the connection."""

    def connection_lost(self) -> None:
        """The connection has ended, and its socket is closed next.

        Called once, and from within no other method than `SocketTransport.read`, at its end.
        """


class SocketTransport:
    """A connected socket, which it closes in the end. Used on one event loop.

    Nothing is read before `read` or `resume_reading`. An error of the socket ends the connection.
    """

    __slots__ = (
        "_events",
        "_is_at_end",
        "_is_closing",
        "_is_in_read",
        "_is_lost",
        "_is_reading",
        "_loop",
        "_socket",
        "_unsent",
        "descriptor",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connection: socket.socket, events: TransportEvents
    ) -> None:
        self._loop = loop
        self._socket = connection
        self._events: TransportEvents | None = events
        self.descriptor = connection.fileno()
        self._unsent = bytearray()
        self._is_reading = self._is_at_end = False
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
        """Read nothing until `resume_reading`."""
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self.descriptor)

    def resume_reading(self) -> None:
        """Read what comes from now on. Nothing happens at the end of what the peer sends."""
        if self._is_reading or self._is_at_end or self._is_closing:
            return
        try:
            self._loop.add_reader(self.descriptor, self.read)
        except OSError as error:
            self._fail(error)
            return
        self._is_reading = True

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
            self._wait_until_writable()

    def _wait_until_writable(self) -> None:
        try:
            self._loop.add_writer(self.descriptor, self._write_unsent)
        except OSError as error:
            self._fail(error)
            return
        if self._events is not None:
            self._events.pause_writing()

    def _write_unsent(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        del self._unsent[:sent]
        if self._unsent:
            return
        self._loop.remove_writer(self.descriptor)
        if self._is_closing:
            self._lose()
        elif self._events is not None:
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
        self.pause_reading()
        if not self._unsent:
            self._lose()

    def abort(self) -> None:
        """Close the socket at once. What is not sent yet is lost."""
        if self._is_lost:
            return
        self._is_closing = True
        self.pause_reading()
        if self._unsent:
            self._unsent.clear()
            self._loop.remove_writer(self.descriptor)
        self._lose()

    def _fail(self, error: OSError) -> None:
        _LOG.error("grpcserver: a connection could not be served: %s", error)
        self.abort()

    def _lose(self) -> None:
        self._is_lost = True
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
