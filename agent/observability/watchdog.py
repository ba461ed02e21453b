"""Detects stalls of the event loop, logs the stack trace, and fails liveness meanwhile.

A thread of its own asks the loop for a sign of life and looks for it. The thread runs while the
loop is in a system call or in Python code; C code that never gives up the interpreter's lock stops
it too. The two share no lock: a loop that stalls while it holds one would stop the thread as well.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import threading
import time
import traceback

_LOG = logging.getLogger(__name__)

_BEAT_SECONDS = 1.0
_LOOK_SECONDS = 0.05
_MAX_FRAMES = 30


class Watchdog:
    """Watches one event loop from `start` to `stop`, both called on that loop.

    Any thread may read its findings. `event_loop_stall_seconds` is how long an iteration of the
    loop may take before it counts as a stall. Times are of the monotonic clock.
    """

    def __init__(self, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._stopping = threading.Event()
        self._asked_at = 0.0
        self._turned_at = 0.0
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._lag_seconds = 0.0
        self._stalled = False
        self.stalls = 0

    def start(self) -> None:
        """Begin to watch the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopping.set()

    def lag_seconds(self) -> float:
        """Return how long the last sign of life took, or how long one is waited for now."""
        waiting = 0.0 if self._has_turned else time.monotonic() - self._asked_at
        return max(self._lag_seconds, waiting)

    def problem(self) -> str:
        """Return "", or one sentence while the loop is blocked."""
        if not self._stalled:
            return ""
        return f"the event loop has not turned for {time.monotonic() - self._asked_at:.0f} s"

    @property
    def _has_turned(self) -> bool:
        return self._turned_at >= self._asked_at

    def _watch(self) -> None:
        while not self._stopping.is_set():
            self._asked_at = time.monotonic()
            if not self._ask():
                return
            self._stopping.wait(min(_BEAT_SECONDS, self._stall_seconds))
            self._look(self._asked_at + self._stall_seconds)
            if not (self._has_turned or self._stopping.is_set()):
                self._wait_out_a_stall()
            self._lag_seconds = self._turned_at - self._asked_at

    def _ask(self) -> bool:
        """Ask the loop for a sign of life; return False if it is closed."""
        assert self._loop is not None  # noqa: S101 - `start` set it
        try:
            self._loop.call_soon_threadsafe(self._turn)
        except RuntimeError:
            return False
        return True

    def _turn(self) -> None:
        """Give the sign of life. On the loop."""
        self._turned_at = time.monotonic()

    def _look(self, until: float = math.inf) -> None:
        """Return once the sign of life is there, the time is over, or the watch ends."""
        while not (self._has_turned or self._stopping.is_set()) and time.monotonic() < until:
            self._stopping.wait(_LOOK_SECONDS)

    def _wait_out_a_stall(self) -> None:
        # Before the log line: the loop may wait for the reader of the log.
        self.stalls += 1
        self._stalled = True
        _LOG.error(
            "agent: the event loop has not iterated for %.1f s; it is at: %s",
            time.monotonic() - self._asked_at,
            self._where(),
        )
        self._look()
        self._stalled = False
        if not self._stopping.is_set():
            _LOG.warning(
                "agent: the event loop runs again, after %.1f s", self._turned_at - self._asked_at
            )

    def _where(self) -> str:
        """Return the stack of the loop's thread on one line, outermost first.

        Files, lines and functions only: never a value.
        """
        frame = sys._current_frames().get(self._loop_thread)
        frames = traceback.extract_stack(frame)[-_MAX_FRAMES:] if frame is not None else []
        return " > ".join(f"{one.filename}:{one.lineno} {one.name}" for one in frames)
