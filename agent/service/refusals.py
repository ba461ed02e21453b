"""What a refused call leaves behind: a status for its caller, a line, and counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from netutil.agent.door.table import Connection
from netutil.agent.errors import AgentError
from netutil.agent.identity.peer import NO_POD, Asker, Peer, asker_of
from netutil.agent.ops.audit import Refusal
from netutil.agent.service.call_log import CallLog
from netutil.agent.service.context import Context
from netutil.agent.service.status import code_of, cut, trailing_metadata
from netutil.agent.service.tracing import Tracing

Observe = Callable[[str, str, str, float], None]
"""Called with method, code, reason and seconds of each call."""


class Refusals:
    """Tells callers that they are refused, and the node's operator."""

    def __init__(self, log: CallLog, observe: Observe, refused: Refusal, tracing: Tracing) -> None:
        self._log = log
        self._tracing = tracing
        self._observe = observe
        self._refused = refused

    def told(self, method: str, connection: Connection | None, error: AgentError) -> None:
        """Tell the operator of a refused call."""
        asker, key = (connection.asker, connection.key) if connection else (Asker(), NO_POD)
        self._refused("call", asker, key, method, error)

    def part(self, part: str, peer: Peer, error: AgentError) -> None:
        """Tell the operator of a part that was refused in an answer that was given."""
        self._refused("part", asker_of(peer), peer.pod_key, part, error)

    async def abort(
        self, method: str, context: Context, connection: Connection | None, error: AgentError
    ) -> NoReturn:
        """Refuse a call that was not admitted, and count it."""
        self.told(method, connection, error)
        code = code_of(error)
        self._log.record(connection.key if connection else NO_POD, error.reason, 0.0)
        self._observe(method, code.name, error.reason, 0.0)
        if self._tracing:
            self._tracing.tell(method, "answered", connection, code.name, error.reason, 0.0)
        await context.abort(code, cut(error.sentence), trailing_metadata(error))
