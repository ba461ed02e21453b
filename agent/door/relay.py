"""Bytes from one socket to another and back, with back-pressure.

Neither side can make the relay hold more than one buffer per direction: while
one side does not read, nothing more is read from the other. What a client sends waits
for its pod's turn likewise. A side that ends
its sending (shutdown(2)) still receives. When one side is gone, what it had
sent is delivered for a while, then the other is closed; but what nobody can be answered any more
is dropped by the door, which cancels the relay of a client that has hung up.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable

from netutil.agent.door.frames import FrameWalk
from netutil.agent.door.share import Share
from netutil.agent.door.turns import STREAM_FRAMES, PodTurns

_BUFFER_BYTES = 64 * 1024
_CLIENTS_BYTES = 16 * 1024
"""What is read of a client at once, and held while it waits for its turn."""
LINGER_SECONDS = 5.0
"""How long bytes are held for a side that does not read, once the other side is gone."""


class _Side(asyncio.BufferedProtocol):
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
        self.other: _Side | None = None
        self._ended = False
        self._blocked = False
        self._lost = False
        self._linger: asyncio.TimerHandle | None = None
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - tells the type only
        transport.set_write_buffer_limits(high=_BUFFER_BYTES)
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.pass_on(bytes(self._buffer[:nbytes]))

    def pass_on(self, data: bytes) -> None:
        """Write to the other end."""
        if self.other is not None and self.other.transport is not None and not self.other._lost:
            self.other.answered()
            self.other.transport.write(data)

    def answered(self) -> None:
        """Take note that the other end has said something."""

    def eof_received(self) -> bool:
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
        if self.other is not None:
            self.other.block(blocked=True)

    def resume_writing(self) -> None:
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


class _Client(_Side):
    """The end that nobody trusts: its frames wait for their turn, and are bounded."""

    __slots__ = (
        "_held",
        "_is_gone",
        "_most",
        "_most_of_headers",
        "_on_cut",
        "_share",
        "_stopped",
        "_turns",
        "_unanswered",
        "_walk",
    )

    def __init__(
        self,
        buffer: memoryview,
        turns: PodTurns,
        share: Share,
        most_bytes: float,
        most_header_bytes: float,
        on_cut: Callable[[int, int], None],
        is_gone: Callable[[], bool],
    ) -> None:
        super().__init__(buffer, ends_relay=False)
        self._is_gone = is_gone
        self._turns = turns
        self._share = share
        self._walk = FrameWalk(STREAM_FRAMES)
        self._most = most_bytes
        self._most_of_headers = most_header_bytes
        self._on_cut = on_cut
        self._unanswered = 0
        self._held = b""
        self._stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._share.join(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._held = b""
        self.answered()
        self._share.leave(self)
        super().connection_lost(exc)

    def buffer_updated(self, nbytes: int) -> None:
        self._held = bytes(self._buffer[:nbytes])
        self._let_pass()

    def eof_received(self) -> bool:
        return self.is_left() or super().eof_received()

    def is_left(self) -> bool:
        return self._is_gone()

    def answered(self) -> None:
        self._count(-self._unanswered)

    def may_read(self) -> bool:
        return not self._held and not self._stopped and super().may_read()

    def read(self, *, stopped: bool) -> None:
        """Stop reading, since the whole pod is stopped; or go on where that left off."""
        self._stopped = stopped
        if self._held and not stopped:
            self._turns.wait(self._go_on)
        self.read_or_not()

    def stop_reading(self) -> None:
        """Read no more of a client that has hung up."""
        self.read(stopped=True)

    def _count(self, nbytes: int) -> None:
        self._unanswered += nbytes
        self._share.unanswered += nbytes

    def _let_pass(self) -> None:
        """Pass on what there is credit for; let the rest wait, and read no more meanwhile."""
        credit = self._turns.credit()
        if credit > 0:
            passed, frames = self._walk.walk(self._held, credit)
            self._turns.take(frames)
            data, self._held = self._held[:passed], self._held[passed:]
            self._count(passed)
            if (
                self._unanswered > self._most
                or self._walk.header_block_bytes > self._most_of_headers
                or self._share.is_over
            ):
                self._cut_off()
                return
            self.pass_on(data)
        if self._held:
            self._turns.wait(self._go_on)
        self.read_or_not()

    def _cut_off(self) -> None:
        self._held = b""
        self._on_cut(self._unanswered, self._walk.header_block_bytes)
        if self.other is not None:
            self.other.abort()
        self.end()

    def _go_on(self) -> None:
        if self._held and not self._stopped and not self._lost:
            self._let_pass()


class Relay:
    """Relays between pairs of connected sockets, all on one event loop.

    One receive buffer serves all: the loop handles one read at a time, and
    what it reads is handed on, or copied, before the next.
    """

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))

    async def run(
        self,
        client: socket.socket,
        server: socket.socket,
        turns: PodTurns,
        share: Share,
        *,
        other_ends: bool = False,
        most_unanswered_bytes: float = math.inf,
        most_header_bytes: float = math.inf,
        on_cut: Callable[[int, int], None] = lambda *_: None,
        is_gone: Callable[[], bool] = lambda: False,
        on_open: Callable[[Callable[[], None]], None] = lambda _: None,
    ) -> None:
        """Relay until both sides are closed. Owns both sockets; cancelling drops them at once.

        With `other_ends` the end of what the server sends is the end of all: a
        server that closed has no use for what its peer may still say. The client is cut off when
        it has sent more than `most_unanswered_bytes` since the server last said anything, or
        together with others more than its `share` allows, or a header block of more than
        `most_header_bytes`; `on_cut` is told how many it sent itself, and of its header block.
        A client that `is_gone` when it ends, or is lost, is left to whoever said so, and cancels;
        `on_open` is given what stops reading of it until then.
        """
        loop = asyncio.get_running_loop()
        left = _Client(
            self._buffer[:_CLIENTS_BYTES],
            turns,
            share,
            most_unanswered_bytes,
            most_header_bytes,
            on_cut,
            is_gone,
        )
        right = _Side(self._buffer, ends_relay=other_ends)
        left.other, right.other = right, left
        on_open(left.stop_reading)
        try:
            # Together: both ends are set up in one turn of the loop, before it looks
            # for anything to read, so no byte arrives that has nowhere to go.
            await asyncio.gather(
                loop.connect_accepted_socket(lambda: left, client),
                loop.connect_accepted_socket(lambda: right, server),
            )
            await left.closed
            await right.closed
        finally:
            for side, connection in ((left, client), (right, server)):
                side.abort()
                if side.transport is None:
                    connection.close()
            # Two that know each other stay, with their peer and its cgroups, until the
            # garbage is collected: some megabytes, after thousands of connections.
            left.other = right.other = None
