"""The agent's log: one line per event, on standard error, as text or as JSON."""

from __future__ import annotations

import json
import logging
import sys
import time


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


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class _AtMost(logging.Filter):
    """Lets through a few records of one kind per second: no workload can fill the log.

    The next record that passes says how many were left out.
    """

    def __init__(self, per_second: int = 10) -> None:
        super().__init__()
        self._per_second = per_second
        self._seen: dict[str, tuple[int, int, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = int(record.created)
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
    handler.addFilter(_AtMost())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
