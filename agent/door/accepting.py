"""Accepts at a listener without keeping the loop from those who are in."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable

from netutil.agent.door.counts import DoorCounts
from netutil.agent.door.listener import BACKLOG, BACKLOG_IN_FLOOD, Listener
from netutil.agent.door.pace import BURST_SECONDS, Flood, Pace

_LOG = logging.getLogger(__name__)
_PAUSE_SECONDS = 0.5


class Acceptor:
    """Hands on the descriptors of those who connect. Used on one event loop only."""

    def __init__(
        self,
        listener: Listener,
        take: Callable[[int], None],
        burst_ended: Callable[[], None],
        counts: DoorCounts,
    ) -> None:
        """`take` owns the descriptor that it is given."""
        self.listener = listener
        self._take = take
        self._burst_ended = burst_ended
        self._counts = counts
        self._pace = Pace()
        self._flood = Flood()
        self._backlog = BACKLOG
        self._resume: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Begin to accept."""
        asyncio.get_running_loop().add_reader(self.listener.connection, self._accept)

    def rebind(self, listener: Listener) -> None:
        """Accept from another listener from now on, after letting in who is in the old queue."""
        self._end()
        self.listener, self._backlog = listener, BACKLOG
        self.open()

    def close(self) -> None:
        """Stop accepting, after letting in who is in the queue. Removes the file if it is ours."""
        if self.listener.connection.fileno() < 0:
            return
        self.listener.unlink_if_ours()
        self._end()

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self.listener.connection)
        for _ in range(BACKLOG):  # somebody may go on filling the queue
            if not self._accept_one():
                break
        self._burst_ended()
        if self._resume is not None:
            self._resume.cancel()
        self.listener.connection.close()

    def _accept(self) -> None:
        now = time.monotonic()
        if not self._pace.may_accept(now):
            return
        end, more = now + BURST_SECONDS, True
        while more and now < end:
            more = self._accept_one()
            now = time.monotonic()
        self._burst_ended()
        self._queue_as_long_as_need_be(now)
        if more:
            # The loop would not sleep before the flood ends, and gRPC's threads, woken for a call,
            # wait for the scheduler to take the CPU from it: for milliseconds, where there is but
            # one. It only goes behind them: what else runs on the node is in other cgroups.
            os.sched_yield()
        self._pace.accepted(time.monotonic(), more=more)

    def _queue_as_long_as_need_be(self, now: float) -> None:
        """Let the kernel queue fewer in a flood: whoever connects stands behind all of them."""
        useless = self._counts.hung_up + self._counts.closed_at_once
        backlog = BACKLOG_IN_FLOOD if self._flood.goes_on(now, useless) else BACKLOG
        if backlog == self._backlog:
            return
        self._backlog = backlog
        self.listener.queue(backlog)
        if backlog == BACKLOG:
            _LOG.info("door: the flood of connections at %s is over", self.listener.path)
            return
        self._counts.floods += 1
        _LOG.warning(
            "door: a flood of connections that come to nothing at %s: %d may wait instead of %d",
            self.listener.path,
            BACKLOG_IN_FLOOD,
            BACKLOG,
        )

    def _accept_one(self) -> bool:
        """Accept a connection; return False if none waits or none can be had now."""
        try:
            # `accept` makes a socket of it in Python, and looks at what kind the listener is: half
            # as long again as the kernel takes, for what is mostly closed at once in a flood.
            descriptor, _ = self.listener.connection._accept()  # type: ignore[attr-defined]
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            # Out of descriptors or memory: the queue holds the rest until there is room.
            self._counts.accept_failures += 1
            _LOG.error("door: accept failed, pausing %s s: %s", _PAUSE_SECONDS, error)
            loop = asyncio.get_running_loop()
            loop.remove_reader(self.listener.connection)
            self._resume = loop.call_later(_PAUSE_SECONDS, self.open)
            return False
        self._counts.accepted += 1
        self._take(descriptor)
        return True
