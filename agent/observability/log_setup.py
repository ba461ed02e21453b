"""Set-up of the log: formatters, the limit of repeated lines, and the caller's trace context."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import time
import traceback
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any

_LOG = logging.getLogger(__name__)


_MAX_KINDS = 512
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
# version "-" trace-id "-" parent-id "-" trace-flags. A later version may add fields after a
# dash; the first may not.
_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}"
    r"(?P<more>-.*)?",
    re.ASCII,
)
_MAX_LENGTH = 256
_INVALID_VERSION = "ff"
_FIRST_VERSION = "00"
CALLERS_TRACE: ContextVar[TraceContext | None] = ContextVar("callers_trace", default=None)
"""That of the call under way in this task and those that it starts."""


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__(
            "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S"
        )
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base's name
        # Names and values of workloads are in here: none may forge a line.
        record.message = record.message.encode("unicode_escape").decode("ascii")
        return super().formatMessage(record)

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802 - the base's name
        return stack_of(ei[1])


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= getattr(record, "audit", {})
        trace = CALLERS_TRACE.get()
        if trace is not None:
            entry |= {"trace_id": trace.trace_id, "span_id": trace.span_id}
        if record.exc_info:
            entry["exception"] = stack_of(record.exc_info[1])
        return json.dumps(entry)


class _RateLimitFilter(logging.Filter):
    """Lets through a few records of one kind per second: no workload can fill the log.

    The next record that passes says how many were left out. Records of the audit pass: it has
    limits of its own, for each pod. A library's records may each be a kind of their own: of
    `_MAX_KINDS` those of a second ago are forgotten, and how many of them were left out.
    """

    def __init__(self, per_second: int = 10) -> None:
        super().__init__()
        self._per_second = per_second
        self._seen: dict[str, tuple[int, int, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if hasattr(record, "audit"):
            return True
        now = int(record.created)
        if len(self._seen) >= _MAX_KINDS:
            self._seen = {kind: seen for kind, seen in self._seen.items() if seen[0] == now}
        second, passed, dropped = self._seen.get(str(record.msg), (now, 0, 0))
        if second != now:
            passed = 0
        if passed >= self._per_second:
            self._seen[str(record.msg)] = (now, passed, dropped + 1)
            return False
        if dropped:
            record.msg = f"{record.msg} [and {dropped} more like it before]"
        self._seen[str(record.msg).partition(" [and ")[0]] = (now, passed + 1, 0)
        return True


def set_up(level: str, kind: str) -> None:
    """Send the log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if kind == "json" else _Text())
    handler.addFilter(_RateLimitFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def stack_of(error: BaseException | None) -> str:
    """Return the kinds of an exception and of its causes, each with its frames, without a word."""
    lines: list[str] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        lines += [*traceback.format_tb(error.__traceback__), f"{type(error).__name__}\n"]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "".join(lines).rstrip("\n")


def report_failure(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log uncaught exceptions of the event loop: its exception handler."""
    error = context.get("exception")
    _LOG.error(
        "event loop: %s",
        context.get("message"),
        exc_info=(type(error), error, error.__traceback__) if error else None,
    )


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The caller's trace and the span that the call was made in, in lower-case hexadecimal."""

    trace_id: str
    span_id: str


def enter_trace(traceparent: bytes | None) -> None:
    """Let what is logged in this context have the trace that the caller says it belongs to."""
    if traceparent is not None:
        CALLERS_TRACE.set(parse_traceparent(traceparent.decode("ascii", errors="replace")))


def parse_traceparent(text: str) -> TraceContext | None:
    """Return the trace, or None for a header that is not well-formed: that one is to be ignored."""
    found = _TRACEPARENT.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if found is None or found["version"] == _INVALID_VERSION:
        return None
    if found["version"] == _FIRST_VERSION and found["more"] is not None:
        return None
    if not found["trace"].strip("0") or not found["span"].strip("0"):
        return None
    return TraceContext(found["trace"], found["span"])
