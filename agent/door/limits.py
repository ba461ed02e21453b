"""How many connections there may be, and what who comes past that is told."""

from __future__ import annotations

import math
from dataclasses import dataclass

from netutil.agent.door.table import ConnectionTable
from netutil.agent.errors import OverLimit, Reason


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections may be open: in all, and for one pod; and what each may send unanswered.

    gRPC answers each call and each window of data (64 KiB). But a header block that never
    ends it keeps, megabytes of it, without a word. One that it calls too large (from 8 KiB on,
    `grpc.max_metadata_size`) it refuses after it has taken apart all of it, and has made objects
    of the half of one whose connection ends there.
    """

    connections: int
    connections_per_pod: int
    unanswered_bytes: float = math.inf
    header_bytes: float = math.inf

    def refusal(self, table: ConnectionTable, key: str) -> OverLimit | None:
        """Return why a pod may open no further connection now, None if it may."""
        held = table.count(key)
        if held >= self.connections_per_pod:
            return OverLimit(
                Reason.TOO_MANY_CONNECTIONS_OF_POD,
                f"The caller's pod holds {held} connections; one pod may hold"
                f" {self.connections_per_pod}.",
                read="the agent's connection table",
                advice="Keep one connection per process and close it; --max-connections-per-pod"
                " sets the limit.",
            )
        if len(table) >= self.connections:
            return OverLimit(
                Reason.TOO_MANY_CONNECTIONS,
                f"The agent holds {len(table)} connections; it may hold {self.connections}.",
                read="the agent's connection table",
                advice="--max-connections sets the limit; `netutil node pods` shows the holders.",
            )
        return None

    def cut_off(self, sent_bytes: int, pods_bytes: int, header_bytes: int) -> OverLimit:
        """Return why a connection is closed in the middle, for what it and its pod have sent."""
        if header_bytes > self.header_bytes:
            return OverLimit(
                Reason.TOO_MANY_HEADER_BYTES,
                f"The caller sent a header block of {header_bytes} bytes; one may have"
                f" {self.header_bytes}.",
                read="the bytes of the connection",
                advice="The connection is closed. Send less metadata with the call;"
                " --max-header-bytes sets the limit.",
            )
        return OverLimit(
            Reason.TOO_MANY_UNANSWERED_BYTES,
            f"The caller sent {sent_bytes} bytes, its pod {pods_bytes}, without a whole"
            " question among them.",
            read="the bytes of the connection",
            advice="The connection is closed; --max-unanswered-bytes-per-pod sets the pod's limit.",
        )
