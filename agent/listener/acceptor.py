"""Accepts connections on a listener without starving those that are already open.

Each accept takes time from the open connections, and a flood of connections may never end. So the
event loop accepts in short bursts, and defers them while it has other work: a call takes some ten
iterations of the loop, and would wait behind a burst in each of them.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from netutil.agent.listener.unix_socket import BACKLOG, Listener

_LOG = logging.getLogger(__name__)

BURST_SECONDS = 0.00005
"""How long the loop accepts without a pause."""
MAX_DEFER_SECONDS = 0.0005
"""How long open connections go before new ones: a tenth of the loop's time is for accepting."""
FLOOD_CONNECTIONS_PER_SECOND = 2000.0
"""So many connections that are closed at once, by their peer or by the agent, are a flood."""
CALM_SECONDS = 10.0
"""A flood is over after so long without one: else one that pauses would keep resetting the
backlog."""
FLOOD_BACKLOG = 64
"""A new connection waits behind the whole queue: with 256 places that one pod kept full, it took 3
to 6 times the quiet time (make hostile)."""
_PAUSE_SECONDS = 0.5
_FLOOD_WINDOW_SECONDS = 0.02
_BUSY_RATIO, _IDLE_GROWTH = 2.0, 1.01


@dataclass(slots=True)
class AcceptCounts:
    """What happened to new connections since the start.

    `hung_up` and `closed_at_once` are counted by the owner of the descriptors: connections that
    the peer had closed before they were accepted, and those that the agent closed without an
    answer. A high rate of both is a flood.
    """

    accepted: int = 0
    hung_up: int = 0
    closed_at_once: int = 0
    accept_failures: int = 0
    floods: int = 0


class AcceptBudget:
    """Decides whether to accept in this iteration of the loop. Times are of time.monotonic()."""

    def __init__(self) -> None:
        self._more = False
        self._last_burst = self._last_iteration = 0.0
        self._idle_seconds = math.inf

    def may_accept(self, now: float) -> bool:
        """Return False while the loop has other work and accepted a moment ago.

        A long iteration shows that the loop had other work. How long an iteration without work
        takes depends on the machine, so it is measured: the shortest one, older ones counting less.
        """
        if not self._more:
            return True
        seconds, self._last_iteration = now - self._last_iteration, now
        self._idle_seconds = min(seconds, self._idle_seconds * _IDLE_GROWTH)
        if seconds < _BUSY_RATIO * self._idle_seconds:
            return True
        return now - self._last_burst > MAX_DEFER_SECONDS

    def burst_ended(self, now: float, *, more: bool) -> None:
        """Record the end of a burst, and whether the queue may hold more connections."""
        self._last_burst = self._last_iteration = now
        self._more = more


class FloodDetector:
    """Detects a flood of useless connections. Times are of time.monotonic()."""

    def __init__(self) -> None:
        self._useless = 0
        self._window_start = self._last_flood = -math.inf

    def in_flood(self, now: float, useless: int) -> bool:
        """Return whether there is a flood; `useless` is how many were closed at once so far."""
        seconds = now - self._window_start
        if seconds >= _FLOOD_WINDOW_SECONDS:
            if useless - self._useless > FLOOD_CONNECTIONS_PER_SECOND * seconds:
                self._last_flood = now
            self._window_start, self._useless = now, useless
        return now - self._last_flood < CALM_SECONDS


class Acceptor:
    """Passes the descriptors of new connections on. Used on one event loop only."""

    def __init__(
        self,
        listener: Listener,
        take: Callable[[int], None],
        counts: AcceptCounts,
    ) -> None:
        """`take` owns the descriptor that it is called with, and may not raise.

        The descriptor is close-on-exec, and blocking: accept4(2) does not inherit O_NONBLOCK from
        the listener.
        """
        self._listener = listener
        self._take = take
        self._counts = counts
        self._budget = AcceptBudget()
        self._flood = FloodDetector()
        self._backlog = BACKLOG
        self._resume: asyncio.TimerHandle | None = None

    @property
    def listener(self) -> Listener:
        """Return the listener in use."""
        return self._listener

    def open(self) -> None:
        """Start to accept."""
        asyncio.get_running_loop().add_reader(self._listener.connection, self._accept)

    def rebind(self, listener: Listener) -> None:
        """Accept from another listener from now on, after the queue of the old one is drained."""
        self._drain()
        self._listener, self._backlog = listener, BACKLOG
        self.open()

    def close(self) -> None:
        """Stop accepting, after the queue is drained. Removes the file if it is still ours."""
        if self._listener.connection.fileno() < 0:
            return
        self._listener.unlink_if_ours()
        self._drain()

    def _drain(self) -> None:
        asyncio.get_running_loop().remove_reader(self._listener.connection)
        for _ in range(BACKLOG):  # clients may keep filling the queue
            if not self._accept_one():
                break
        if self._resume is not None:
            self._resume.cancel()
        self._listener.connection.close()

    def _accept(self) -> None:
        now = time.monotonic()
        if not self._budget.may_accept(now):
            return
        end, more = now + BURST_SECONDS, True
        while more and now < end:
            more = self._accept_one()
            now = time.monotonic()
        self._adjust_backlog(now)
        self._budget.burst_ended(time.monotonic(), more=more)

    def _adjust_backlog(self, now: float) -> None:
        """Queue fewer connections in a flood: a new one waits behind all of them."""
        useless = self._counts.hung_up + self._counts.closed_at_once
        backlog = FLOOD_BACKLOG if self._flood.in_flood(now, useless) else BACKLOG
        if backlog == self._backlog:
            return
        self._backlog = backlog
        self._listener.set_backlog(backlog)
        if backlog == BACKLOG:
            _LOG.info("listener: the flood of connections at %s is over", self._listener.path)
            return
        self._counts.floods += 1
        _LOG.warning(
            "listener: a flood of useless connections at %s: backlog %d instead of %d",
            self._listener.path,
            FLOOD_BACKLOG,
            BACKLOG,
        )

    def _accept_one(self) -> bool:
        """Accept a connection; return False if the queue is empty or accept(2) fails."""
        try:
            # `accept` makes a socket object and reads the type of the listener: half as long again
            # as the kernel takes, for a connection that is mostly closed at once in a flood.
            descriptor, _ = self._listener.connection._accept()  # type: ignore[attr-defined]
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            # Out of descriptors or memory: the queue holds the connections until there are some.
            self._counts.accept_failures += 1
            _LOG.error("listener: accept failed, pausing %s s: %s", _PAUSE_SECONDS, error)
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._listener.connection)
            self._resume = loop.call_later(_PAUSE_SECONDS, self.open)
            return False
        self._counts.accepted += 1
        self._take(descriptor)
        return True
