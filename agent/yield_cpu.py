"""Lets the event loop go first, on a thread whose work takes long."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
# Not `os.sched_yield`, which holds the interpreter's lock before Python 3.12.
_LIBC = ctypes.CDLL(None)


def yield_cpu() -> None:
    """Let another thread run first that waits for this CPU, or for the interpreter's lock.

    For each piece of work that takes long. A thread that gives up the lock for a system call has it
    back before one that waits for the lock and for the same CPU: a thread that wakes up does not
    interrupt one that has run for less than its slice, which is some milliseconds (EEVDF). Source:
    sched_yield(2).
    """
    _LIBC.sched_yield()


def in_pieces(items: Iterable[T]) -> Iterator[T]:
    """Yield items, and the CPU after each: what is made of one takes long. Not on the loop."""
    for item in items:
        yield item
        yield_cpu()
