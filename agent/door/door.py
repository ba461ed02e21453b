"""Accepts on a public socket, lets each peer be identified, and relays it to the gRPC server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import Callable
from dataclasses import dataclass

from netutil.agent.door.listener import Listener
from netutil.agent.door.relay import Relay
from netutil.agent.door.table import Connection, ConnectionTable
from netutil.agent.errors import AgentError, Exhausted, Reason
from netutil.agent.identity.peer import Peer

_LOG = logging.getLogger(__name__)

_ACCEPTS_PER_WAKE = 64
_PAUSE_SECONDS = 0.5
_CONNECT_SECONDS = 5.0
_CONNECT_RETRY_SECONDS = 0.01
_TOLD = 8
"""Connections past a limit that are still let in, so that their calls are told so."""

Identify = Callable[[socket.socket], Peer | None]
"""Returns the peer, or None for one that needs no identity; raises the refusal of its calls."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections may be open: in all, and for one pod; and what one may send unanswered.

    gRPC answers each call and each window of data (64 KiB). But a header block that never
    ends it keeps, megabytes of it, without a word.
    """

    connections: int
    connections_per_pod: int
    unanswered_bytes: float = math.inf


@dataclass(slots=True)
class DoorCounts:
    """What the door did since the start."""

    accepted: int = 0
    refused: int = 0
    closed_at_once: int = 0
    accept_failures: int = 0


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
    ) -> None:
        self._listener = listener
        self._server_path = server_path
        self._table = table
        self._identify = identify
        self._limits = limits
        self._relay = Relay()
        self._tasks: set[asyncio.Task[None]] = set()
        self._resume: asyncio.TimerHandle | None = None
        self.counts = counts if counts is not None else DoorCounts()

    def open(self) -> None:
        """Begin to accept."""
        asyncio.get_running_loop().add_reader(self._listener.connection, self._accept)

    def close(self) -> None:
        """Stop accepting, after letting in who is in the queue. Removes the file if it is ours."""
        if self._listener.connection.fileno() < 0:
            return
        self._listener.unlink_if_ours()
        asyncio.get_running_loop().remove_reader(self._listener.connection)
        while self._accept_one():
            pass
        if self._resume is not None:
            self._resume.cancel()
        self._listener.connection.close()

    async def drop_all(self) -> None:
        """Close every connection that is still open, and wait until it is."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_WAKE):
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """Accept a connection; return False if none waits or none can be had now."""
        try:
            connection, _ = self._listener.connection.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            # Out of descriptors or memory: the queue holds the rest until there is room.
            self.counts.accept_failures += 1
            _LOG.error("door: accept failed, pausing %s s: %s", _PAUSE_SECONDS, error)
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._listener.connection)
            self._resume = loop.call_later(_PAUSE_SECONDS, self.open)
            return False
        connection.setblocking(False)
        self.counts.accepted += 1
        self._admit(connection)
        return True

    def _admit(self, connection: socket.socket) -> None:
        if len(self._table) >= self._limits.connections + _TOLD:
            self.counts.closed_at_once += 1
            connection.close()
            return
        try:
            peer = self._identify(connection)
            entry = self._enter(peer)
        except AgentError as error:
            entry = self._enter_refused(connection, error)
        except OSError as error:
            _LOG.error("door: a peer could not be identified: %s", error)
            entry = None
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
            connection.close()
            self._table.remove(entry)
            if entry.peer is not None:
                entry.peer.process.close()

        task.add_done_callback(ended)

    def _enter(self, peer: Peer | None) -> Connection | None:
        if peer is None:
            return self._table.add("", None, None)
        key = peer.pod_key
        held = self._table.count(key)
        refusal = self._over_limit(held)
        if refusal is None:
            return self._table.add(key, peer, None)
        peer.process.close()
        self.counts.refused += 1
        _LOG.warning("door: pid %d refused: %s", peer.credentials.pid, refusal)
        if held >= self._limits.connections_per_pod + _TOLD:
            return None
        return self._table.add(key, None, refusal)

    def _enter_refused(self, connection: socket.socket, error: AgentError) -> Connection | None:
        """Let a peer in that nobody knows, to be told so; all of them share one limit."""
        self.counts.refused += 1
        _LOG.info("door: a peer is refused: %s (%s, read %s)", error, error.reason, error.read)
        if self._table.count("") >= self._limits.connections_per_pod:
            return None
        return self._table.add("", None, error)

    def _over_limit(self, held: int) -> Exhausted | None:
        if held >= self._limits.connections_per_pod:
            return Exhausted(
                Reason.TOO_MANY_CONNECTIONS_OF_POD,
                f"The caller's pod holds {held} connections; one pod may hold"
                f" {self._limits.connections_per_pod}.",
                read="the agent's connection table",
                advice="Keep one connection per process and close it; --max-connections-per-pod"
                " sets the limit.",
            )
        if len(self._table) >= self._limits.connections:
            return Exhausted(
                Reason.TOO_MANY_CONNECTIONS,
                f"The agent holds {len(self._table)} connections; it may hold"
                f" {self._limits.connections}.",
                read="the agent's connection table",
                advice="--max-connections sets the limit; `netutil node pods` shows the holders.",
            )
        return None

    async def _serve(self, connection: socket.socket, entry: Connection) -> None:
        try:
            upstream = await self._connect(entry.name)
            await self._relay.run(
                connection,
                upstream,
                other_ends=True,
                most_unanswered_bytes=self._limits.unanswered_bytes,
            )
        except OSError as error:
            _LOG.error("door: no connection to the gRPC server: %s", error)

    async def _connect(self, name: str) -> socket.socket:
        """Return a socket under `name` that is connected to the gRPC server's private socket."""
        upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            upstream.setblocking(False)
            upstream.bind(f"\0{name}")
            async with asyncio.timeout(_CONNECT_SECONDS):
                while True:
                    with contextlib.suppress(BlockingIOError):
                        upstream.connect(self._server_path)
                        return upstream
                    # The server's queue is full, and Unix sockets offer nothing to
                    # wait on for that (connect(2), EAGAIN).
                    await asyncio.sleep(_CONNECT_RETRY_SECONDS)
        except BaseException:
            upstream.close()
            raise
