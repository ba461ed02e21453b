"""Binds a thread that the loop waits for to the CPU of the loop.

The loop sleeps while it waits, so its CPU is free. The scheduler rather wakes an idle CPU for the
thread, and the loop's CPU again afterwards, which takes longer than a short read: on a virtual
machine 50 microseconds instead of 10.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading

_LIBC = ctypes.PyDLL(None)
_ANY = -1


class LoopCpu:
    """The CPU on which the loop last waited. Made on the loop's thread."""

    def __init__(self) -> None:
        self._loop_thread = threading.get_native_id()
        self._cpu = _ANY
        self._own = threading.local()

    def note(self) -> None:
        """Note the CPU that the loop runs on (getcpu(2)). On the loop."""
        self._cpu = _LIBC.sched_getcpu()

    def follow(self) -> None:
        """Bind this thread to the CPU of the loop. Not on the loop."""
        cpu = self._cpu
        if getattr(self._own, "cpu", _ANY) != cpu:
            self._own.cpu = cpu
            _set_affinity({cpu})

    def part(self) -> None:
        """Let this thread run on every CPU that the loop may run on. Not on the loop."""
        if getattr(self._own, "cpu", _ANY) != _ANY:
            self._own.cpu = _ANY
            _set_affinity(os.sched_getaffinity(self._loop_thread))


def _set_affinity(cpus: set[int]) -> None:
    """Bind this thread. Where that is refused, a read takes longer and nothing else changes.

    It is for a CPU that the agent's cgroup has lost meanwhile, and by a seccomp profile.
    """
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, cpus)
