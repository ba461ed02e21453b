"""Binds a thread that the loop waits for to the CPU of the loop.

The loop sleeps while it waits, so its CPU is free. The scheduler rather wakes an idle CPU for the
thread, and the loop's CPU again afterwards, which takes longer than a short read: on a virtual
machine 50 microseconds instead of 10.

Where a call is refused, by a seccomp profile or for a CPU that the agent's cgroup has lost, a read
takes longer, and nothing else changes.
"""

from __future__ import annotations

import ctypes
import threading

from netutil.agent.parsers.cpulist import MAX_NUMBER

_WORD_BITS = 8 * ctypes.sizeof(ctypes.c_ulong)
_Mask = ctypes.c_ulong * ((MAX_NUMBER + 1) // _WORD_BITS)
"""For as many CPUs as any kernel can have, in words of this machine (sched_setaffinity(2))."""
_MASK_BYTES = ctypes.sizeof(_Mask)
_ANY = -1
# Not those of `os`, of which one holds the interpreter's lock meanwhile: to move a thread takes as
# long as its new CPU is busy.
_LIBC = ctypes.CDLL(None)
for _call in (_LIBC.sched_getaffinity, _LIBC.sched_setaffinity):
    _call.argtypes = (ctypes.c_int, ctypes.c_size_t, ctypes.POINTER(_Mask))
_sched_getcpu = ctypes.PyDLL(None).sched_getcpu


class LoopCpu:
    """The CPU on which the loop last waited. Made on the loop's thread."""

    def __init__(self) -> None:
        self._loop_thread = threading.get_native_id()
        self._cpu = _ANY
        self._own = threading.local()

    def note(self) -> None:
        """Note the CPU that the loop runs on (getcpu(2)). On the loop."""
        self._cpu = _sched_getcpu()

    def follow(self) -> None:
        """Bind this thread to the CPU of the loop. Not on the loop."""
        cpu = self._cpu
        if cpu == _ANY or getattr(self._own, "cpu", _ANY) == cpu:
            return
        self._own.cpu = cpu
        mask = _Mask()
        mask[cpu // _WORD_BITS] = 1 << cpu % _WORD_BITS
        _LIBC.sched_setaffinity(0, _MASK_BYTES, mask)

    def part(self) -> None:
        """Let this thread run on every CPU that the loop may run on. Not on the loop."""
        if getattr(self._own, "cpu", _ANY) != _ANY:
            self._own.cpu = _ANY
            self.release(0)

    def release(self, thread: int) -> None:
        """Let a thread (gettid(2)) run on every CPU that the loop may run on.

        The thread itself calls `part` afterwards.
        """
        mask = _Mask()
        if _LIBC.sched_getaffinity(self._loop_thread, _MASK_BYTES, mask) >= 0:
            _LIBC.sched_setaffinity(thread, _MASK_BYTES, mask)
