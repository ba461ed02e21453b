"""The slice of CPU time that the kernel's scheduler gives the event loop's thread.

A thread that wakes up waits until the one on its CPU has used up its slice, some milliseconds,
although it has slept (EEVDF, Linux 6.6 and later). So where the agent has one CPU, the loop waits
that long for a thread that reads a large environment or dumps a thousand links. A thread with a
shorter slice need not wait: its share of the CPU stays the same, in shorter pieces.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

SLICE_NANOSECONDS = 100_000
"""The least that the kernel takes; it takes none before Linux 6.12 (sched_setattr(2))."""
_SYSTEM_CALLS = {"x86_64": 314, "aarch64": 274}
"""The number of sched_setattr, for which glibc has no function before 2.41."""
_RESET_ON_FORK = 1
"""SCHED_FLAG_RESET_ON_FORK: threads and processes that this one starts have the usual slice."""
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
"""struct sched_attr: size, policy, flags, nice, priority; then runtime, deadline and period."""
_LIBC = ctypes.CDLL(None, use_errno=True)


def shorten_slice() -> str:
    """Give the calling thread the shortest slice; return why it has the usual one, "" if not.

    A thread with a policy of its own, as of real time, or a negative nice value is left alone: the
    threads that it starts would not have them.
    """
    number = _SYSTEM_CALLS.get(platform.machine())
    if number is None:
        return f"unknown machine {platform.machine()}"
    try:
        policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
        nice = os.getpriority(os.PRIO_PROCESS, 0)
    except OSError as error:  # a seccomp profile; musl has no sched_getscheduler
        return f"sched_getscheduler(2), getpriority(2): {error.strerror}"
    if policy != os.SCHED_OTHER or nice < 0:
        return "the thread has a scheduling policy or a negative nice value of its own"
    attributes = _ATTRIBUTES.pack(
        _ATTRIBUTES.size, os.SCHED_OTHER, _RESET_ON_FORK, nice, 0, SLICE_NANOSECONDS, 0, 0
    )
    if _LIBC.syscall(number, 0, attributes, 0) != 0:
        return f"sched_setattr(2): {os.strerror(ctypes.get_errno())}"
    return ""
