"""Accepts on a public socket, lets each peer be identified, and relays it to the gRPC server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import socket
from collections.abc import Callable

from netutil.agent.door.arrivals import Arrivals
from netutil.agent.door.counts import DoorCounts
from netutil.agent.door.entrance import Entrance, Identify, Refused
from netutil.agent.door.hangups import Hangups, is_hung_up
from netutil.agent.door.limits import Limits
from netutil.agent.door.relay import Relay
from netutil.agent.door.table import Connection, ConnectionTable
from netutil.agent.door.turns import CONNECTION_FRAMES, IDENTIFIED_FRAMES, Turns
from netutil.agent.door.upstream import connect_as
from netutil.agent.errors import AgentError, OverLimit
from netutil.agent.identity.pinning import peer_pid
from netutil.agent.listener.acceptor import Acceptor
from netutil.agent.listener.unix_socket import Listener

_LOG = logging.getLogger(__name__)


class Door:
    """One public socket. `identify` says who a peer is, or raises what its calls are told."""

    def __init__(
        self,
        listener: Listener,
        server_path: str,
        table: ConnectionTable,
        identify: Identify,
        limits: Limits,
        counts: DoorCounts | None = None,
        refused: Refused = lambda *_: None,
        refuse_newcomers: Callable[[], AgentError | None] = lambda: None,
        turns: Turns | None = None,
        *,
        may_wait: bool = True,
    ) -> None:
        """`refuse_newcomers` returns what whoever connects now is told, None to look at them.

        `may_wait`: the kernel holds on to who connected, so that peers can be looked at later.
        """
        self._server_path = server_path
        self._table = table
        self._limits = limits
        self._refused = refused
        self._relay = Relay()
        self._hangups = Hangups()
        self._turns = turns if turns is not None else Turns(math.inf)
        affordable = self._turns.frames_per_turn / (IDENTIFIED_FRAMES + CONNECTION_FRAMES)
        self._arrivals = Arrivals(self._admit, max(1, affordable) if may_wait else math.inf)
        self._tasks: set[asyncio.Task[None]] = set()
        self.counts = counts if counts is not None else DoorCounts()
        self._entrance = Entrance(
            table, identify, limits, self.counts, refused, refuse_newcomers, self._turns
        )
        self._acceptor = Acceptor(listener, self._take, self._entrance.charge_closed, self.counts)

    @property
    def listener(self) -> Listener:
        """Return where connections are accepted now."""
        return self._acceptor.listener

    def rebind(self, listener: Listener) -> None:
        """Accept from another listener from now on, after letting in who is in the old queue."""
        self._acceptor.rebind(listener)

    def open(self) -> None:
        """Begin to accept."""
        self._acceptor.open()

    def close(self) -> None:
        """Stop accepting, after letting in who is in the queue. Removes the file if it is ours."""
        self._acceptor.close()
        self._arrivals.flush()

    async def drop_all(self) -> None:
        """Close every connection that is still open, and wait until it is."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self, descriptor: int) -> None:
        # The cheapest question first: a flood is answered at the rate at which it is turned away,
        # and whoever stands behind it in the kernel's one queue waits for all of that.
        if is_hung_up(descriptor):
            self.counts.hung_up += 1
            os.close(descriptor)
            return
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptor)
        pid = peer_pid(connection)
        if self._entrance.is_crowded(pid):
            self.counts.closed_at_once += 1
            connection.close()
        else:
            self._arrivals.add(connection, pid)

    def _admit(self, connection: socket.socket, pid: int) -> None:
        if is_hung_up(connection.fileno()):  # while it waited
            self.counts.hung_up += 1
            connection.close()
            return
        entry = self._entrance.entered(connection, pid)
        if entry is None:
            self.counts.closed_at_once += 1
            connection.close()
            return
        task = asyncio.create_task(self._serve(connection, entry))
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            # Not in the task itself: one that is cancelled before its first turn runs
            # none of its own code, not even a `finally`.
            self._tasks.discard(task)
            self._hangups.forget(entry.name)
            connection.close()
            self._table.remove(entry)
            if entry.peer is not None:
                entry.peer.process.close()

        task.add_done_callback(ended)
        try:
            # Nobody would read the answers to what waits for its turn, for minutes perhaps.
            self._hangups.watch(connection, entry.name, task.cancel)
        except OSError as error:
            _LOG.error("door: a peer cannot be looked after: %s", error)
            task.cancel()

    async def _serve(self, connection: socket.socket, entry: Connection) -> None:
        # Who is told to come back after a time is not to be held to this refusal then.
        refusal = entry.refusal
        seconds = refusal.retry_after_seconds if isinstance(refusal, OverLimit) else None
        turns = self._turns.of_pod(entry.key)
        try:
            await turns.pass_work(CONNECTION_FRAMES)
            if is_hung_up(connection.fileno()):
                return
            upstream = await connect_as(entry.name, self._server_path)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._relay.run(
                        connection,
                        upstream,
                        turns,
                        entry.share,
                        other_ends=True,
                        most_unanswered_bytes=self._limits.unanswered_bytes,
                        most_header_bytes=self._limits.header_bytes,
                        on_cut=lambda *sent: self._cut_off(entry, *sent),
                        on_open=lambda stop: self._hangups.stop_first(entry.name, stop),
                        is_gone=lambda: self._hangups.is_gone(entry.name),
                    )
        except OSError as error:
            _LOG.error("door: no connection to the gRPC server: %s", error)

    def _cut_off(self, entry: Connection, sent_bytes: int, header_bytes: int) -> None:
        self.counts.cut_off += 1
        why = self._limits.cut_off(sent_bytes, entry.share.unanswered, header_bytes)
        self._refused(entry.asker, entry.key, why)
