"""Which connection is whose: from the name that gRPC reports to the identified caller."""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from netutil.agent.door.share import Share
from netutil.agent.errors import AgentError, Reason, Unidentified
from netutil.agent.identity.peer import Asker, Peer

_GRPC_PREFIX = "unix-abstract:"
_NOBODY = Asker()


@dataclass(frozen=True, slots=True)
class Connection:
    """One open connection: an identified peer, or the refusal that its calls get."""

    name: str
    key: str
    peer: Peer | None
    refusal: AgentError | None
    asker: Asker
    share: Share


class ConnectionTable:
    """The open connections by name, with counts per pod. Used on the event loop only.

    Every name is random: whoever shares the agent's network namespace sees the
    names in use (/proc/net/unix), and must not be able to take the next one.
    """

    def __init__(self, unanswered_bytes: float = math.inf) -> None:
        """`unanswered_bytes` is what all connections of one pod may have sent unanswered."""
        self._connections: dict[str, Connection] = {}
        self._by_key: Counter[str] = Counter()
        self._shares: dict[str, Share] = {}
        self._unanswered_bytes = unanswered_bytes

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._connections.values())

    def count(self, key: str) -> int:
        """Return how many connections are open under a pod's key."""
        return self._by_key[key]

    @property
    def unanswered_bytes(self) -> int:
        """Return how many bytes of all connections nobody has answered yet."""
        return sum(share.unanswered for share in self._shares.values())

    def add(
        self,
        key: str,
        peer: Peer | None,
        refusal: AgentError | None,
        asker: Asker = _NOBODY,
    ) -> Connection:
        """Enter a connection and return it with its fresh name."""
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = Share(self._unanswered_bytes, lambda: self._forget(key))
        name = f"netutil-{secrets.token_hex(16)}"
        connection = Connection(name, key, peer, refusal, asker, share)
        self._connections[connection.name] = connection
        self._by_key[key] += 1
        return connection

    def remove(self, connection: Connection) -> None:
        """Strike a connection off."""
        del self._connections[connection.name]
        self._by_key[connection.key] -= 1
        if not self._by_key[connection.key]:
            del self._by_key[connection.key]
            self._forget(connection.key)

    def _forget(self, key: str) -> None:
        """Let go of what a pod's connections have in common, unless it still counts."""
        share = self._shares.get(key)
        if share is not None and not self._by_key[key] and not share.stopped:
            del self._shares[key]

    def stop(self, connection: Connection, seconds: float) -> None:
        """Read nothing of a connection's pod for that time, also if it has closed it meanwhile."""
        self._shares.setdefault(connection.key, connection.share).stop(seconds)

    def of_grpc_peer(self, reported: str) -> Connection:
        """Return the connection that a call came over, from what `context.peer()` reports.

        Raises `Unidentified` for a name that the door did not give.
        """
        connection = self._connections.get(reported.removeprefix(_GRPC_PREFIX))
        if connection is None:
            raise Unidentified(
                Reason.CONNECTION_UNKNOWN,
                "The call did not come over a connection that the agent let in, or that"
                " connection is closed.",
                read=reported,
                advice="Connect anew through the socket in /etc/netutil.",
            )
        return connection
