"""Hands jobs to threads, and their outcomes back to a loop that waits for a moment.

A write to a descriptor wakes the other side, and the writer does not hold the interpreter's lock
meanwhile. A writer that releases a lock does: the other side, awake, then sleeps again until it has
the interpreter's lock. Measured on one CPU of a virtual machine, for a read of 8 microseconds: two
context switches instead of five, and 15 microseconds instead of 35.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections import deque
from typing import Any, Generic, TypeVar

J = TypeVar("J")
_WAKE_UP = b"\0"
_ONE = (1).to_bytes(8, sys.byteorder)  # what eventfd(2) adds


class JobQueue(Generic[J]):
    """Jobs for threads, of which each takes one at a time. Its pipe is open for ever."""

    def __init__(self) -> None:
        # Not an eventfd: a write to one wakes all threads that read it.
        self._reader, self._writer = os.pipe()
        self._jobs: deque[J] = deque()

    def put(self, job: J) -> None:
        """Give a job to a thread that waits for one. Raises OSError, and then has no such job."""
        self._jobs.append(job)
        try:
            os.write(self._writer, _WAKE_UP)
        except BaseException:
            self._jobs.pop()
            raise

    def get(self) -> J:
        """Return the job that has waited longest, once there is one."""
        os.read(self._reader, len(_WAKE_UP))
        return self._jobs.popleft()

    def take_back(self, job: J) -> None:
        """Remove a job that was put, where no thread takes jobs."""
        self._jobs.remove(job)
        os.read(self._reader, len(_WAKE_UP))


class Signal:
    """Wakes the loop's thread when an outcome is there.

    Its descriptor is open for ever. To be made at the start: select(2), which alone has a timeout
    of microseconds here, takes no descriptor above 1023.
    """

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0)

    def give(self) -> None:
        """Wake the thread that waits, or is about to."""
        os.write(self._descriptor, _ONE)

    def take(self) -> None:
        """Return once it was given."""
        os.read(self._descriptor, len(_ONE))

    def is_given_within(self, seconds: float) -> bool:
        """Return whether it is given within a time, without taking it. Not, if that fails.

        No timer is set where it is given already, as it mostly is: on a virtual machine that costs
        as much as the read that is waited for.
        """
        try:
            return self._is_given(0) or self._is_given(seconds)
        except (OSError, ValueError, MemoryError):
            return False

    def _is_given(self, seconds: float) -> bool:
        return bool(select.select((self._descriptor,), (), (), seconds)[0])


class Handover:
    """Hands the outcome of one job to the loop while the loop waits for it.

    Either the thread hands it over or the loop stops waiting: whichever is first decides. The
    signal serves one handover after the other, since each that is given is taken. One that is left
    nevertheless ends no other's wait.
    """

    __slots__ = ("_decided", "_signal", "outcome", "thread")

    def __init__(self, signal: Signal) -> None:
        self._decided = threading.Lock()
        self._signal = signal
        self.outcome: tuple[Any, Exception | None] | None = None
        """What the job returned and raised; None before it has ended."""
        self.thread: int | None = None
        """The thread (gettid(2)) that does the job; None before it has begun."""

    def give(self, outcome: tuple[Any, Exception | None]) -> bool:
        """Hand the outcome over; return False if the loop has stopped waiting. On the thread."""
        self.outcome = outcome
        if not self._decided.acquire(blocking=False):
            return False
        self._signal.give()
        return True

    def wait(self, seconds: float) -> tuple[Any, Exception | None] | None:
        """Return the outcome if it is handed over within a time, else None. On the loop."""
        while self._signal.is_given_within(seconds):
            self._signal.take()
            if self.outcome is not None:
                return self.outcome
        if self._decided.acquire(blocking=False):
            return None
        self._signal.take()
        return self.outcome
