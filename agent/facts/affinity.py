"""The CPU affinity of a thread.

Source: sched_getaffinity(2), which takes no lock that a workload can hold (sched_getaffinity in
the kernel's kernel/sched/syscalls.c: the thread's pi_lock, a spinlock). The kernel's answer is the
thread's mask without CPUs that are not active (cpu_active_mask): offline, or about to be.
`Cpus_allowed` in /proc/<pid>/status is the mask itself. The two differ only for a thread whose mask
no cpuset narrows: that names all CPUs that the node could ever have.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from functools import cache, lru_cache

from netutil.agent.parsers.cpulist import MAX_NUMBER, format_cpu_list

_LIBC = ctypes.CDLL(None, use_errno=True)
_WORD_BYTES = ctypes.sizeof(ctypes.c_ulong)
_MAX_MASKS = 256


def read_affinity(thread: int, number: int) -> str:
    """Return the CPUs of a thread as a kernel list.

    `thread` is its open directory in /proc, `number` its thread ID. Raises ProcessLookupError or
    FileNotFoundError if the thread has ended: what was read may then be another's, or the last
    mask of a first thread that has ended before others. PermissionError where the agent may not
    ask; OSError for every other failure.
    """
    cpus = affinity_of(number)
    # A thread has its namespaces until it ends (exit_task_namespaces in the kernel's
    # kernel/exit.c), and a directory in /proc is never another thread's. Unlike stat and status,
    # this does not take a reference of the process's memory, whose last one frees it all.
    os.readlink("ns/net", dir_fd=thread)
    return cpus


def affinity_of(number: int) -> str:
    """Return the CPUs of the thread that has a number now, as a kernel list.

    Its caller shows that the number is still that thread's. Raises OSError, ProcessLookupError for
    no thread of that number.
    """
    mask = _mask_type()()
    if _LIBC.sched_getaffinity(number, ctypes.sizeof(mask), mask) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return _as_list(mask.raw)


@cache
def _mask_type() -> type[ctypes.Array[ctypes.c_char]]:
    """Return a mask for as many CPUs as this kernel can have: a smaller one is EINVAL.

    Other failures are those of the call that is made with the mask.
    """
    size = _WORD_BYTES
    while size * 8 <= MAX_NUMBER:
        kind = ctypes.c_char * size
        if _LIBC.sched_getaffinity(0, size, kind()) >= 0 or ctypes.get_errno() != errno.EINVAL:
            break
        size *= 2
    return ctypes.c_char * size


@lru_cache(maxsize=_MAX_MASKS)
def _as_list(mask: bytes) -> str:
    """Return the list of a mask, whose words are unsigned longs of this machine."""
    words = (mask[at : at + _WORD_BYTES] for at in range(0, len(mask), _WORD_BYTES))
    return format_cpu_list(
        position * _WORD_BYTES * 8 + bit
        for position, word in enumerate(int.from_bytes(each, sys.byteorder) for each in words)
        for bit in range(word.bit_length())
        if word >> bit & 1
    )
