"""What a refused call leaves: a status for its caller, a line of the log, and counts."""

from __future__ import annotations

import contextvars
from collections.abc import Callable

from netutil.agent.connections.registry import Connection
from netutil.agent.errors import AgentError
from netutil.agent.grpcserver import Call, Status
from netutil.agent.identity.peer import Peer, asker_of
from netutil.agent.ops.audit import Refusal
from netutil.agent.service.call_log import CallLog
from netutil.agent.service.status import code_of, cut, trailing_metadata
from netutil.agent.service.tracing import Tracing
from netutil.agent.trace_context import enter_trace

Observe = Callable[[str, str, str, float], None]
"""Called with method, code, reason and seconds of each call."""


class Refusals:
    """Tells callers that they are refused, and the node's operator."""

    def __init__(self, log: CallLog, observe: Observe, refused: Refusal, tracing: Tracing) -> None:
        self._log = log
        self._tracing = tracing
        self._observe = observe
        self._refused = refused

    def told(self, method: str, connection: Connection, error: AgentError) -> None:
        """Tell the operator of a refused call."""
        self._refused("call", connection.requester, connection.key, method, error)

    def part(self, part: str, peer: Peer, error: AgentError) -> None:
        """Tell the operator of a part that was refused in an answer that was given."""
        self._refused("part", asker_of(peer), peer.pod_key, part, error)

    def refuse(self, connection: Connection, method: str, call: Call, error: AgentError) -> Status:
        """Count a call that is refused before its handler runs; return how the call ends."""
        contextvars.copy_context().run(self._refuse, connection, method, call, error)
        return Status(code_of(error), cut(error.sentence), trailing_metadata(error))

    def _refuse(self, connection: Connection, method: str, call: Call, error: AgentError) -> None:
        enter_trace(call.header(b"traceparent"))
        self.told(method, connection, error)
        code = code_of(error).name
        self._log.record(connection.key, error.reason, 0.0)
        self._observe(method, code, error.reason, 0.0)
        if self._tracing:
            self._tracing.tell(method, "answered", connection, code, error.reason, 0.0)
