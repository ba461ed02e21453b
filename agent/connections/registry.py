"""Registry of open connections, each with its peer or the error that its calls get."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from netutil.agent.errors import AgentError
from netutil.agent.grpcserver import Call
from netutil.agent.identity.peer import Peer, Requester

_UNKNOWN = Requester()


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """One open connection: an identified peer, or the error that its calls get.

    With neither, the connection needs no identity, as those of the operator socket. `key` is the
    quota key of `Peer`.
    """

    key: str
    peer: Peer | None = None
    error: AgentError | None = None
    requester: Requester = _UNKNOWN


def connection_of(call: Call) -> Connection:
    """Return the connection that a call came over."""
    connection: Connection = call.connection.peer
    return connection


class ConnectionRegistry:
    """The open connections, with counts per pod. Used on one event loop."""

    def __init__(self) -> None:
        self._connections: set[Connection] = set()
        self._by_key: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._connections)

    def count(self, key: str) -> int:
        """Return how many connections are open under a pod's key."""
        return self._by_key[key]

    def keys(self) -> Collection[str]:
        """Return the keys under which connections are open."""
        return self._by_key.keys()

    def add(self, connection: Connection) -> None:
        """Enter a connection."""
        self._connections.add(connection)
        self._by_key[connection.key] += 1

    def remove(self, connection: Connection) -> None:
        """Remove a connection."""
        self._connections.remove(connection)
        self._by_key[connection.key] -= 1
        if not self._by_key[connection.key]:
            del self._by_key[connection.key]
