"""Bytes from one socket to another and back, with back-pressure.

Neither side can make the relay hold more than one buffer per direction: while
one side does not read, nothing more is read from the other. A side that ends
its sending (shutdown(2)) still receives. When one side is gone, what it had
sent is delivered for a while, then the other is closed.
"""

from __future__ import annotations

import asyncio
import math
import socket

_BUFFER_BYTES = 64 * 1024
LINGER_SECONDS = 5.0
"""How long bytes are held for a side that does not read, once the other side is gone."""


class _Side(asyncio.BufferedProtocol):
    """One end of a relay. What it receives is written to the other end."""

    __slots__ = (
        "_buffer",
        "_ended",
        "_ends_relay",
        "_most",
        "closed",
        "other",
        "transport",
        "unanswered",
    )

    def __init__(self, buffer: memoryview, *, ends_relay: bool, most_bytes: float) -> None:
        self._buffer = buffer
        self._ends_relay = ends_relay
        self._most = most_bytes
        self.unanswered = 0
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self._ended = False
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - tells the type only
        transport.set_write_buffer_limits(high=_BUFFER_BYTES)
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.other is None or self.other.transport is None:
            return
        self.other.unanswered = 0
        self.unanswered += nbytes
        if self.unanswered > self._most:
            self.other.transport.abort()
            self.end()
            return
        self.other.transport.write(bytes(self._buffer[:nbytes]))

    def eof_received(self) -> bool:
        self._ended = True
        if self.other is not None and self.other.transport is not None:
            if self._ends_relay or self.other._ended:
                # Nothing more will be said, and nobody else would ever close these
                # two: asyncio keeps a transport open for which True is returned.
                self.other.end()
                self.end()
            else:
                self.other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # which side broke off, and how, is of no interest to the other one
        if self.other is not None and self.other.transport is not None:
            self.other.end()
        if not self.closed.done():
            self.closed.set_result(None)

    def end(self) -> None:
        """Close this side once it has taken what is held for it, or after a while."""
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.close()
            asyncio.get_running_loop().call_later(LINGER_SECONDS, transport.abort)


class Relay:
    """Relays between pairs of connected sockets, all on one event loop.

    One receive buffer serves all: the loop handles one read at a time, and
    what it reads is handed on before the next.
    """

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))

    async def run(
        self,
        one: socket.socket,
        other: socket.socket,
        *,
        other_ends: bool = False,
        most_unanswered_bytes: float = math.inf,
    ) -> None:
        """Relay until both sides are closed. Owns both sockets; cancelling drops them at once.

        With `other_ends` the end of what `other` sends is the end of all: a
        server that closed has no use for what its peer may still say. `one` is cut off when it
        has sent more than `most_unanswered_bytes` since `other` last said anything.
        """
        loop = asyncio.get_running_loop()
        left = _Side(self._buffer, ends_relay=False, most_bytes=most_unanswered_bytes)
        right = _Side(self._buffer, ends_relay=other_ends, most_bytes=math.inf)
        left.other, right.other = right, left
        try:
            # Together: both ends are set up in one turn of the loop, before it looks
            # for anything to read, so no byte arrives that has nowhere to go.
            await asyncio.gather(
                loop.connect_accepted_socket(lambda: left, one),
                loop.connect_accepted_socket(lambda: right, other),
            )
            await left.closed
            await right.closed
        finally:
            for side, connection in ((left, one), (right, other)):
                if side.transport is not None:
                    side.transport.abort()
                else:
                    connection.close()
