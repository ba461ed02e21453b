"""The trace that a call belongs to, from the header `traceparent` (W3C Trace Context, level 1).

OpenTelemetry's instrumentations of gRPC send it. The agent makes no spans: its log names the
caller's.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass

# version "-" trace-id "-" parent-id "-" trace-flags. A later version may add fields after a
# dash; the first may not.
_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}"
    r"(?P<more>-.*)?",
    re.ASCII,
)
_LONGEST = 256
_INVALID_VERSION = "ff"
_FIRST_VERSION = "00"


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The caller's trace and the span that the call was made in, in lower-case hexadecimal."""

    trace_id: str
    span_id: str


CALLERS_TRACE: ContextVar[TraceContext | None] = ContextVar("callers_trace", default=None)
"""That of the call under way in this task and those that it starts."""


def enter_trace(traceparent: bytes | None) -> None:
    """Let what is logged in this context bear the trace that the caller says it belongs to."""
    if traceparent is not None:
        CALLERS_TRACE.set(parse_traceparent(traceparent.decode("ascii", errors="replace")))


def parse_traceparent(text: str) -> TraceContext | None:
    """Return the trace, or None for a header that is not well-formed: that one is to be ignored."""
    found = _TRACEPARENT.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None or found["version"] == _INVALID_VERSION:
        return None
    if found["version"] == _FIRST_VERSION and found["more"] is not None:
        return None
    if not found["trace"].strip("0") or not found["span"].strip("0"):
        return None
    return TraceContext(found["trace"], found["span"])
