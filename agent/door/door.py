"""Accepts on a public socket, lets each peer be identified, and relays it to the gRPC server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import select
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from netutil.agent.door.hangups import Hangups
from netutil.agent.door.limits import Limits
from netutil.agent.door.listener import BACKLOG, Listener
from netutil.agent.door.relay import Relay
from netutil.agent.door.table import Connection, ConnectionTable
from netutil.agent.door.turns import CLOSED_FRAMES, CONNECTION_FRAMES, IDENTIFIED_FRAMES, Turns
from netutil.agent.door.upstream import connect_as
from netutil.agent.errors import AgentError, OverLimit, Unidentified, shortage
from netutil.agent.identity.peer import NO_POD, Asker, Peer, asker_of
from netutil.agent.identity.pinning import peer_credentials, peer_pid
from netutil.agent.identity.process import Credentials

_LOG = logging.getLogger(__name__)

_ACCEPTING_SECONDS = 0.00005
"""How long the loop accepts before it looks after those who are in.

A call takes some ten rounds of the loop, and in a flood of connections each of them accepts for as
long as this: with a millisecond the others' p99 was 9 times the quiet one, with this 2 to 4
times (make hostile).
"""
_CROWDED_SECONDS = 1.0
_PAUSE_SECONDS = 0.5
_TOLD = 8
"""Connections past a limit that are still let in, so that their calls are told so."""

Identify = Callable[[socket.socket], Peer | None]
"""Returns the peer, or None for one that needs no identity; raises the refusal of its calls."""

Refused = Callable[[Asker, str, AgentError], None]
"""Told who was refused, what that pod is counted under, and why."""


@dataclass(slots=True)
class DoorCounts:
    """What the door did since the start."""

    accepted: int = 0
    refused: int = 0
    closed_at_once: int = 0
    hung_up: int = 0
    cut_off: int = 0
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
        refused: Refused = lambda *_: None,
        refuse_newcomers: Callable[[], AgentError | None] = lambda: None,
        turns: Turns | None = None,
    ) -> None:
        """`refuse_newcomers` returns what whoever connects now is told, None to look at them."""
        self._listener = listener
        self._server_path = server_path
        self._table = table
        self._identify = identify
        self._limits = limits
        self._refused = refused
        self._refuse_newcomers = refuse_newcomers
        self._relay = Relay()
        self._hangups = Hangups()
        self._turns = turns if turns is not None else Turns(math.inf)
        self._crowded: dict[int, str] = {}
        self._crowded_until = 0.0
        self._closed: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._resume: asyncio.TimerHandle | None = None
        self.counts = counts if counts is not None else DoorCounts()

    @property
    def listener(self) -> Listener:
        """Return where connections are accepted now."""
        return self._listener

    def rebind(self, listener: Listener) -> None:
        """Accept from another listener from now on, after letting in who is in the old queue."""
        asyncio.get_running_loop().remove_reader(self._listener.connection)
        self._accept_queue()
        self._listener.connection.close()
        self._listener = listener
        self.open()

    def open(self) -> None:
        """Begin to accept."""
        asyncio.get_running_loop().add_reader(self._listener.connection, self._accept)

    def close(self) -> None:
        """Stop accepting, after letting in who is in the queue. Removes the file if it is ours."""
        if self._listener.connection.fileno() < 0:
            return
        self._listener.unlink_if_ours()
        asyncio.get_running_loop().remove_reader(self._listener.connection)
        self._accept_queue()
        if self._resume is not None:
            self._resume.cancel()
        self._listener.connection.close()

    async def drop_all(self) -> None:
        """Close every connection that is still open, and wait until it is."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self) -> None:
        end = time.monotonic() + _ACCEPTING_SECONDS
        while self._accept_one() and time.monotonic() < end:
            pass
        self._charge_closed()

    def _accept_queue(self) -> None:
        """Let in who is in the queue, which somebody may go on filling."""
        for _ in range(BACKLOG):
            if not self._accept_one():
                break
        self._charge_closed()

    def _accept_one(self) -> bool:
        """Accept a connection; return False if none waits or none can be had now."""
        try:
            # `accept` makes a socket of it in Python, and looks at what kind the listener is: half
            # as long again as the kernel takes, for what is mostly closed at once in a flood.
            descriptor, _ = self._listener.connection._accept()  # type: ignore[attr-defined]
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
        self.counts.accepted += 1
        # The cheapest question first: a flood is answered at the rate at which it is turned away,
        # and whoever stands behind it in the kernel's one queue waits for all of that.
        if _is_hung_up(descriptor):
            self.counts.hung_up += 1
            os.close(descriptor)
            return True
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptor)
        pid = peer_pid(connection)
        if self._is_crowded(pid):
            self.counts.closed_at_once += 1
            connection.close()
        else:
            self._admit(connection, pid)
        return True

    def _charge_closed(self) -> None:
        """Take from pods past every limit what it cost to close so many connections of theirs."""
        for key, count in self._closed.items():
            self._turns.of_pod(key).charge(count * CLOSED_FRAMES)
        self._closed.clear()

    def _admit(self, connection: socket.socket, pid: int) -> None:
        full = len(self._table) >= self._limits.connections + _TOLD
        entry = None if full else self._entered(connection, pid)
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

    def _entered(self, connection: socket.socket, pid: int) -> Connection | None:
        """Identify a peer and return its entry, None if it cannot even be told why not."""
        connection.setblocking(False)
        key = NO_POD
        try:
            refusal = self._refuse_newcomers()
            if refusal is not None:
                raise refusal
            peer = self._identify(connection)
            key = peer.pod_key if peer is not None else NO_POD
            entry = self._enter(peer)
        except AgentError as error:
            entry = self._enter_refused(connection, error)
        except OSError as error:
            told = shortage(error, "/proc/<pid> of the caller")
            if told is None:
                _LOG.error("door: a peer could not be identified: %s", error)
                return None
            entry = self._enter_refused(connection, told)
        self._turns.of_pod(key).charge(IDENTIFIED_FRAMES)
        if entry is None:
            self._crowded[pid] = key
        return entry

    def _is_crowded(self, pid: int) -> bool:
        """Return whether a peer would surely be closed at once, without identifying it.

        A process that has just been found to be of a pod past every limit is taken for the same
        one for a moment. Were its number another's meanwhile, that one would have to connect again;
        nobody is let in by this.
        """
        now = time.monotonic()
        if now >= self._crowded_until:
            self._crowded.clear()
            self._crowded_until = now + _CROWDED_SECONDS
        key = self._crowded.get(pid)
        if key is None:
            return False
        most = self._limits.connections_per_pod + (0 if key == NO_POD else _TOLD)
        if self._table.count(key) < most:
            return False
        self._closed[key] += 1
        return True

    def _enter(self, peer: Peer | None) -> Connection | None:
        if peer is None:
            return self._table.add(NO_POD, None, None)
        key, asker = peer.pod_key, asker_of(peer)
        held = self._table.count(key)
        refusal = self._limits.refusal(self._table, key)
        if refusal is None:
            return self._table.add(key, peer, None, asker)
        peer.process.close()
        self.counts.refused += 1
        self._refused(asker, key, refusal)
        if held >= self._limits.connections_per_pod + _TOLD:
            return None
        return self._table.add(key, None, refusal, asker)

    def _enter_refused(self, connection: socket.socket, error: AgentError) -> Connection | None:
        """Let a peer in that is not looked at or not known, to be told so. They share one limit."""
        self.counts.refused += 1
        # It lives as long as the connection, and its frames would: a ring of garbage for each.
        error.__traceback__ = error.__context__ = None
        asker = Asker(_credentials(connection))
        self._refused(asker, NO_POD, error)
        if self._table.count(NO_POD) >= self._limits.connections_per_pod:
            return None
        return self._table.add(NO_POD, None, error, asker)

    async def _serve(self, connection: socket.socket, entry: Connection) -> None:
        # Who is told to come back after a time is not to be held to this refusal then.
        refusal = entry.refusal
        seconds = refusal.retry_after_seconds if isinstance(refusal, OverLimit) else None
        turns = self._turns.of_pod(entry.key)
        try:
            await turns.pass_work(CONNECTION_FRAMES)
            if _is_hung_up(connection.fileno()):
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
                    )
        except OSError as error:
            _LOG.error("door: no connection to the gRPC server: %s", error)

    def _cut_off(self, entry: Connection, sent_bytes: int, header_bytes: int) -> None:
        self.counts.cut_off += 1
        why = self._limits.cut_off(sent_bytes, entry.share.unanswered, header_bytes)
        self._refused(entry.asker, entry.key, why)


def _is_hung_up(descriptor: int) -> bool:
    """Return whether the peer has closed the connection: nobody would read what it asked.

    One that has ended its sending alone still reads, and the kernel does not report that unasked
    (poll(2), POLLHUP). To find out who it was would cost more than all that it did.
    """
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))


def _credentials(connection: socket.socket) -> Credentials | None:
    try:
        return peer_credentials(connection)
    except (Unidentified, OSError):  # no pid that the agent could see: it was refused for that
        return None
