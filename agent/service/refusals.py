"""What each call leaves: counts and, if it was refused, a status and a line of the log."""

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
from netutil.agent.service.tracing import Event, Tracing
from netutil.agent.trace_context import enter_trace

Observe = Callable[[str, str, str, float], None]
"""Called with method, code, reason and seconds of each call."""


class CallRecorder:
    """Records each call once: for its pod, for the metrics, and for operators who look on."""

    def __init__(self, log: CallLog, observe: Observe, tracing: Tracing) -> None:
        self._log = log
        self._observe = observe
        self._tracing = tracing

    def answered(
        self,
        method: str,
        connection: Connection,
        code: str,
        reason: str,
        seconds: float,
        event: Event = "answered",
    ) -> None:
        """Record a call that has ended; `reason` is "" for one that was answered."""
        self._log.record(connection.key, code, reason, seconds)
        self._observe(method, code, reason, seconds)
        if self._tracing.onlookers:
            self._tracing.tell(method, event, connection, code, reason, seconds)

    def began(self, method: str, connection: Connection, seconds: float) -> None:
        """Show onlookers that a stream has sent its first message."""
        if self._tracing.onlookers:
            self._tracing.tell(method, "began", connection, "OK", "", seconds)


class Refusals:
    """Tells callers that they are refused, and the node's operator."""

    def __init__(self, recorder: CallRecorder, refused: Refusal) -> None:
        self._recorder = recorder
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
        self._recorder.answered(method, connection, code_of(error).name, error.reason, 0.0)
