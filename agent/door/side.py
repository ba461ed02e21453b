"""One end of a relay: what it receives is written to the other end, with back-pressure."""

from __future__ import annotations

import asyncio

BUFFER_BYTES = 64 * 1024
LINGER_SECONDS = 5.0
"""How long bytes are held for a side that does not read, once the other side is gone."""


class Side(asyncio.BufferedProtocol):
    """One end of a relay. What it receives is written to the other end."""

    __slots__ = (
        "_blocked",
        "_buffer",
        "_ended",
        "_ends_relay",
        "_linger",
        "_lost",
        "closed",
        "other",
        "transport",
    )

    def __init__(self, buffer: memoryview, *, ends_relay: bool) -> None:
        self._buffer = buffer
        self._ends_relay = ends_relay
        self.transport: asyncio.Transport | None = None
        self.other: Side | None = None
        self._ended = False
        self._blocked = False
        self._lost = False
        self._linger: asyncio.TimerHandle | None = None
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport over (asyncio.BaseProtocol, as are those that follow)."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - tells the type only
        transport.set_write_buffer_limits(high=BUFFER_BYTES)
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go: one buffer for all."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what has come."""
        self.pass_on(bytes(self._buffer[:nbytes]))

    def pass_on(self, data: bytes) -> None:
        """Write to the other end."""
        if self.other is not None and self.other.transport is not None and not self.other._lost:
            self.other.answered()
            self.other.transport.write(data)

    def answered(self) -> None:
        """Take note that the other end has said something."""

    def eof_received(self) -> bool:
        """Tell the other end that nothing more comes, or end both."""
        # Of a client only once all that it sent is passed on: it is not read before.
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
        """Let the other end read no more: this one does not take it."""
        if self.other is not None:
            self.other.block(blocked=True)

    def resume_writing(self) -> None:
        """Let the other end read again."""
        if self.other is not None:
            self.other.block(blocked=False)

    def block(self, *, blocked: bool) -> None:
        """Read no more, or again: the other end does not take what this one sends, or does."""
        self._blocked = blocked
        self.read_or_not()

    def may_read(self) -> bool:
        """Return whether what this end sends can be passed on."""
        return not self._blocked

    def read_or_not(self) -> None:
        """Make the transport read as `may_read` says."""
        if self.transport is None or self.transport.is_closing():
            return
        if self.may_read():
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other end too, unless somebody else does."""
        del exc  # which side broke off, and how, is of no interest to the other one
        if self._linger is not None:
            self._linger.cancel()  # it would hold both ends, and who they are, until then
        if self.other is not None and self.other.transport is not None and not self.is_left():
            self.other.end()
        self._lost = True
        if self.transport is not None:
            # asyncio's transport refers to itself by the method that reads, and so each connection
            # would leave ten objects for the garbage collector, which keeps all waiting for it.
            vars(self.transport).pop("_read_ready_cb", None)
        if not self.closed.done():  # whoever waited for it may have been cancelled, and it with it
            self.closed.set_result(None)

    def is_left(self) -> bool:
        """Return whether somebody else lets go of both ends, since this one has hung up."""
        return False

    def end(self) -> None:
        """Close this side once it has taken what is held for it, or after a while."""
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.close()
            loop = asyncio.get_running_loop()
            self._linger = loop.call_later(LINGER_SECONDS, self.abort)

    def abort(self) -> None:
        """Close this side now. One that is closed is left alone: asyncio breaks at that."""
        if self.transport is not None and not self._lost:
            self.transport.abort()
