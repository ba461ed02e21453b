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
from netutil.agent.door.side import BUFFER_BYTES, Side
from netutil.agent.door.turns import STREAM_FRAMES, PodTurns

_CLIENTS_BYTES = 16 * 1024
"""What is read of a client at once, and held while it waits for its turn."""


class _Client(Side):
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
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

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
        right = Side(self._buffer, ends_relay=other_ends)
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
