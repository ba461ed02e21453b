"""Who is let in: each newcomer is identified, or refused, or closed at once."""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter
from collections.abc import Callable

from netutil.agent.door.counts import DoorCounts
from netutil.agent.door.limits import Limits
from netutil.agent.door.table import Connection, ConnectionTable
from netutil.agent.door.turns import CLOSED_FRAMES, IDENTIFIED_FRAMES, Turns
from netutil.agent.errors import AgentError, Unidentified, shortage
from netutil.agent.identity.peer import NO_POD, Asker, Peer, asker_of
from netutil.agent.identity.pinning import peer_credentials
from netutil.agent.identity.process import Credentials

_LOG = logging.getLogger(__name__)
_CROWDED_SECONDS = 1.0
TOLD = 8
"""Connections past a limit that are still let in, so that their calls are told so."""

Identify = Callable[[socket.socket], Peer | None]
"""Returns the peer, or None for one that needs no identity; raises the refusal of its calls."""

Refused = Callable[[Asker, str, AgentError], None]
"""Told who was refused, what that pod is counted under, and why."""


class Entrance:
    """Enters newcomers into the table. Used on one event loop only."""

    def __init__(
        self,
        table: ConnectionTable,
        identify: Identify,
        limits: Limits,
        counts: DoorCounts,
        refused: Refused,
        refuse_newcomers: Callable[[], AgentError | None],
        turns: Turns,
    ) -> None:
        self._table = table
        self._identify = identify
        self._limits = limits
        self._counts = counts
        self._refused = refused
        self._refuse_newcomers = refuse_newcomers
        self._turns = turns
        self._crowded: dict[int, str] = {}
        self._crowded_until = 0.0
        self._closed: Counter[str] = Counter()

    def entered(self, connection: socket.socket, pid: int) -> Connection | None:
        """Identify a peer and return its entry, None if it cannot even be told why not."""
        if len(self._table) >= self._limits.connections + TOLD:
            return None
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

    def is_crowded(self, pid: int) -> bool:
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
        most = self._limits.connections_per_pod + (0 if key == NO_POD else TOLD)
        if self._table.count(key) < most:
            return False
        self._closed[key] += 1
        return True

    def charge_closed(self) -> None:
        """Take from pods past every limit what it cost to close so many connections of theirs."""
        for key, count in self._closed.items():
            self._turns.of_pod(key).charge(count * CLOSED_FRAMES)
        self._closed.clear()

    def _enter(self, peer: Peer | None) -> Connection | None:
        if peer is None:
            return self._table.add(NO_POD, None, None)
        key, asker = peer.pod_key, asker_of(peer)
        held = self._table.count(key)
        refusal = self._limits.refusal(self._table, key)
        if refusal is None:
            return self._table.add(key, peer, None, asker)
        peer.process.close()
        self._counts.refused += 1
        self._refused(asker, key, refusal)
        if held >= self._limits.connections_per_pod + TOLD:
            return None
        return self._table.add(key, None, refusal, asker)

    def _enter_refused(self, connection: socket.socket, error: AgentError) -> Connection | None:
        """Let a peer in that is not looked at or not known, to be told so. They share one limit."""
        self._counts.refused += 1
        # It lives as long as the connection, and its frames would: a ring of garbage for each.
        error.__traceback__ = error.__context__ = None
        asker = Asker(_credentials(connection))
        self._refused(asker, NO_POD, error)
        if self._table.count(NO_POD) >= self._limits.connections_per_pod:
            return None
        return self._table.add(NO_POD, None, error, asker)


def _credentials(connection: socket.socket) -> Credentials | None:
    try:
        return peer_credentials(connection)
    except (Unidentified, OSError):  # no pid that the agent could see: it was refused for that
        return None
