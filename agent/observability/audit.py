"""Audit log of failed connections, calls and parts of answers: a log line and a counter for each.

`outcome` is "refused" for a denial or a limit, "not_found" for a name that does not exist in the
caller's view, and "failed" for what could not be answered. The counts of `node pods` are the same.

A line has names, numbers and the error's message, and no value that was read of a process or pod.
The rate of lines is limited for each pod and reason, so no pod can suppress the lines of another
pod, nor hide one reason behind another. Suppressed lines are counted, and the count is logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from netutil.agent.errors import (
    AgentError,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    ResourceExhausted,
    Unauthenticated,
)
from netutil.agent.identity.peer import Requester

_LOG = logging.getLogger(__name__)
_LINES = 5
_SECONDS = 1.0
_MAX_KINDS = 4096
_MAX_TEXT = 300
_OTHERS = ("", "")

Names = tuple[str, str, str]
"""Namespace and name of a pod, and the name of the container; "" for what is not known."""
NameOf = Callable[[str | None, str | None], Names]
"""Returns the names to a pod UID and a container ID, as the last pod list has them."""
Count = Callable[[str, str, str], None]
"""Counts an error by outcome, stage and reason."""
CountSuppressed = Callable[[], None]
"""Counts an error without a log line."""
Outcome = Literal["refused", "not_found", "failed"]
_VERBS: dict[Outcome, str] = {"refused": "refused", "not_found": "not found", "failed": "failed"}


def outcome_of(error: AgentError) -> Outcome:
    """Return how a call with this error ended."""
    match error:
        case PermissionDenied() | Unauthenticated() | ResourceExhausted():
            return "refused"
        case NotFound():
            return "not_found"
        case _:
            return "failed"


@dataclass(slots=True)
class _Window:
    """The errors of one pod for one reason within a second."""

    last: dict[str, object] = field(default_factory=dict)
    verb: str = ""
    lines: int = 0
    suppressed: int = 0


class Audit:
    """Writes the audit log. Used on one event loop."""

    def __init__(self, name_of: NameOf, count: Count, count_suppressed: CountSuppressed) -> None:
        self._name_of = name_of
        self._count = count
        self._count_suppressed = count_suppressed
        self._windows: dict[tuple[str, str], _Window] = {}

    def __len__(self) -> int:
        """Return the number of pairs of pod and reason within the last second."""
        return len(self._windows)

    def record_rejection(
        self, stage: str, requester: Requester, pod_key: str, method: str, error: AgentError
    ) -> None:
        """Log and count an error. `stage` is "connection", "call" or "part" (of an answer)."""
        outcome = outcome_of(error)
        self._count(outcome, stage, error.reason)
        kind = (pod_key, str(error.reason))
        if kind not in self._windows and len(self._windows) >= _MAX_KINDS:
            kind = _OTHERS
        window = self._windows.get(kind)
        if window is None:
            window = self._windows[kind] = _Window()
            asyncio.get_running_loop().call_later(_SECONDS, self._end, kind)
        if window.lines >= _LINES:
            window.suppressed += 1
            self._count_suppressed()
            return
        window.lines += 1
        window.last = self._entry(stage, requester, method, error) | {"outcome": outcome}
        window.verb = _VERBS[outcome]
        level = logging.WARNING if isinstance(error, QuotaExceeded) else logging.INFO
        _LOG.log(level, "%s", _line(window.last, window.verb), extra={"audit": window.last})

    def close(self) -> None:
        """Log the counts of suppressed lines."""
        for kind in tuple(self._windows):
            self._end(kind)

    def _end(self, kind: tuple[str, str]) -> None:
        window = self._windows.pop(kind, None)
        if window is None or not window.suppressed:
            return
        entry = window.last | {"event": "errors", "count": window.suppressed}
        _LOG.warning(
            "%s: %s %d times more for %s within a second",
            _subject(entry),
            window.verb,
            window.suppressed,
            entry["reason"],
            extra={"audit": entry},
        )

    def _entry(
        self, stage: str, requester: Requester, method: str, error: AgentError
    ) -> dict[str, object]:
        namespace, pod, container = self._name_of(requester.pod_uid, requester.container_id)
        who = requester.credentials
        return {
            "event": "error",
            "stage": stage,
            "namespace": namespace,
            "pod": pod,
            "pod_uid": requester.pod_uid or "",
            "container": container,
            "container_id": requester.container_id or "",
            "pid": who.pid if who else None,
            "uid": who.uid if who else None,
            "gid": who.gid if who else None,
            "method": method,
            "reason": str(error.reason),
            "why": error.message[:_MAX_TEXT],
            "read": error.read[:_MAX_TEXT],
        }


def _subject(entry: dict[str, object]) -> str:
    name = f"{entry['namespace']}/{entry['pod']}" if entry["pod"] else entry["pod_uid"] or "-"
    return f"pod {name} container {entry['container'] or str(entry['container_id'])[:12] or '-'}"


def _line(entry: dict[str, object], verb: str) -> str:
    who = f"pid {entry['pid']} uid {entry['uid']} gid {entry['gid']}" if entry["pid"] else "pid -"
    what = entry["method"] or "connection"
    read = f" (read {entry['read']})" if entry["read"] else ""
    return f"{_subject(entry)} {who}: {what} {verb}: {entry['reason']}: {entry['why']}{read}"
