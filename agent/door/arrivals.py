"""Who has connected and waits to be looked at: a few of each process in a turn.

To find out who a peer is, and to connect it to the gRPC server, takes as long as some calls. So a
process that makes dozens of connections at once would keep the loop for as long as they all take.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter, deque
from collections.abc import Callable

from netutil.agent.door.turns import TURN_SECONDS

MOST_WAITING = 64
"""Past it newcomers are looked at where they stand. Each that waits holds a descriptor, of the 128
that `--max-connections` leaves over."""


class Arrivals:
    """Lets connections in by `admit`, at once or in a later turn. Used on one event loop only."""

    def __init__(self, admit: Callable[[socket.socket, int], None], in_a_turn: float) -> None:
        """`in_a_turn` are the connections of one process that are looked at in one turn."""
        self._admit = admit
        self._in_a_turn = in_a_turn
        self._looked_at: Counter[int] = Counter()
        self._waiting: dict[int, deque[socket.socket]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.waiting = 0

    def add(self, connection: socket.socket, pid: int) -> None:
        """Take over an accepted connection of a process."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TURN_SECONDS, self._turn)
        if self.waiting >= MOST_WAITING or self._looked_at[pid] < self._in_a_turn:
            self._looked_at[pid] += 1
            self._admit(connection, pid)
            return
        self._waiting.setdefault(pid, deque()).append(connection)
        self.waiting += 1

    def flush(self) -> None:
        """Let in all who wait, since there will be no other turn."""
        while self._waiting:
            self._next(next(iter(self._waiting)))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        self._looked_at.clear()
        # First, so that nobody is left waiting whatever befalls one that is let in.
        self._timer = None
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(TURN_SECONDS, self._turn)
        for pid in tuple(self._waiting):
            while pid in self._waiting and self._looked_at[pid] < self._in_a_turn:
                self._looked_at[pid] += 1
                self._next(pid)

    def _next(self, pid: int) -> None:
        queue = self._waiting[pid]
        connection = queue.popleft()
        self.waiting -= 1
        if not queue:
            del self._waiting[pid]
        self._admit(connection, pid)
