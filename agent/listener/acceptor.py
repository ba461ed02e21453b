"""Accepts connections on a listener without starving those that are already open.

A new connection waits behind all others in the kernel's queue, of all pods. So to accept is
cheap, and what follows is left to the receiver. A flood of connections may never end: the event
loop accepts in one short burst in each of its iterations.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from dataclasses import dataclass
from typing import Protocol

from netutil.agent.listener.unix_socket import BACKLOG, Listener

_LOG = logging.getLogger(__name__)

BURST_SECONDS = 0.0001
"""How long the loop accepts in one iteration: about 15 connections."""
LOOK_SECONDS = 0.0002
"""The least time between two looks for a new connection within an iteration."""
FLOOD_CONNECTIONS_PER_SECOND = 2000.0
"""So many connections that are closed at once, by their peer or by the agent, are a flood."""
CALM_SECONDS = 10.0
"""A flood is over after so long without one: else one that pauses would keep resetting the
backlog."""
FLOOD_BACKLOG = 64
"""A new connection waits behind the whole queue: with 256 places that one pod kept full, it took 3
to 6 times the quiet time (make hostile)."""
_PAUSE_SECONDS = 0.5
_FULL_PAUSE_SECONDS = 0.005
_FLOOD_WINDOW_SECONDS = 0.02


@dataclass(slots=True)
class AcceptCounts:
    """What happened to new connections since the start.

    `aborted` and `closed_at_once` are counted by the owner of the descriptors: connections that
    the peer had closed before they were accepted, and those that the agent closed without an
    answer. A high rate of both is a flood. `pauses` counts how often the acceptor waited for a
    receiver that was full.
    """

    accepted: int = 0
    aborted: int = 0
    closed_at_once: int = 0
    accept_failures: int = 0
    pauses: int = 0
    floods: int = 0


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


class Receiver(Protocol):
    """Takes the connections that are accepted. No method may raise."""

    def take(self, descriptor: int) -> None:
        """Own an accepted connection.

        The descriptor is close-on-exec, and blocking: accept4(2) does not inherit O_NONBLOCK from
        the listener.
        """

    def is_full(self) -> bool:
        """Return whether nothing is to be accepted for a moment."""

    def burst_ended(self) -> None:
        """No more connections follow in this iteration of the loop."""

    def drained(self) -> None:
        """No more connections follow from this listener, which closes."""


class Acceptor:
    """Passes the descriptors of new connections on. Used on one event loop only."""

    def __init__(self, listener: Listener, receiver: Receiver, counts: AcceptCounts) -> None:
        self._listener = listener
        self._receiver = receiver
        self._counts = counts
        self._flood = FloodDetector()
        self._backlog = BACKLOG
        self._resume: asyncio.TimerHandle | None = None
        self._is_accepting = False
        self._next_look = 0.0

    @property
    def listener(self) -> Listener:
        """Return the listener in use."""
        return self._listener

    def open(self) -> None:
        """Start to accept."""
        self._is_accepting = True
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

    def look(self) -> None:
        """Accept a connection that has come since the loop has looked, outside of floods.

        For work that takes the loop's time in many pieces.
        """
        now = time.monotonic()
        if now < self._next_look or not self._is_accepting or self._backlog != BACKLOG:
            return
        self._next_look = now + LOOK_SECONDS
        if not self._receiver.is_full() and self._accept_one():
            self._receiver.burst_ended()

    def _drain(self) -> None:
        self._is_accepting = False
        asyncio.get_running_loop().remove_reader(self._listener.connection)
        for _ in range(BACKLOG):  # clients may keep filling the queue
            if not self._accept_one():
                break
        self._receiver.drained()
        if self._resume is not None:
            self._resume.cancel()
        self._listener.connection.close()

    def _accept(self) -> None:
        if self._receiver.is_full():
            self._counts.pauses += 1
            self._pause(_FULL_PAUSE_SECONDS)
            return
        end = time.monotonic() + BURST_SECONDS
        while self._accept_one():
            if time.monotonic() >= end:
                break
        self._adjust_backlog(time.monotonic())
        self._receiver.burst_ended()

    def _adjust_backlog(self, now: float) -> None:
        """Queue fewer connections in a flood: a new one waits behind all of them."""
        useless = self._counts.aborted + self._counts.closed_at_once
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
            self._pause(_PAUSE_SECONDS)
            return False
        self._counts.accepted += 1
        self._receiver.take(descriptor)
        return True

    def _pause(self, seconds: float) -> None:
        """Leave new connections to the kernel's queue for some time."""
        self._is_accepting = False
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener.connection)
        self._resume = loop.call_later(seconds, self.open)
