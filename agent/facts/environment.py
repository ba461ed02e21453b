"""The environment that a process was started with, from /proc/<pid>/environ.

Reading it takes the memory lock of the process, which a hostile workload can
hold for long; so these functions run on threads that may be lost, never on the
event loop. Source: proc_pid_environ(5).
"""

from __future__ import annotations

import errno
import os
import time

from netutil.agent.errors import Reason, ResourceExhausted, Unavailable
from netutil.agent.parsers.process import Stat, parse_stat
from netutil.agent.yield_cpu import yield_cpu

MAX_BYTES = 8 * 1024 * 1024
"""More than the kernel's own limit for arguments and environment (6 MiB, execve(2))."""
_FIRST_BYTES = 16 * 1024
"""Enough for most environments. A buffer of 128 KiB has pages of its own, which are mapped and
unmapped for each read (`__main__._return_freed_memory`): that took longer than the read."""
_CHUNK_BYTES = 128 * 1024
_LOOKS = 3
_EXEC_SECONDS = 0.001
"""More than execve(2) takes to set up the stack of most programs: 50 µs where they have a megabyte
of environment."""


def read_block(thread: int) -> bytes:
    """Return the environment block of a process, read through one of its threads.

    `thread` is /proc/<pid> or /proc/<pid>/task/<tid>, open: the memory is the same for all threads
    of a process, but the kernel shows none of a thread that has ended.
    Raises ProcessLookupError if the thread has ended, `Unavailable` if its memory cannot
    be read now, `ResourceExhausted` if the block is larger than `MAX_BYTES`.
    """
    for look in range(_LOOKS):
        if look:
            time.sleep(_EXEC_SECONDS)
        try:
            block = _read_block(thread, "environ")
        except ProcessLookupError:
            # Recent kernels say so of a thread without memory of its own too; stat shows which.
            block = b""
        if block:
            return block
        # Recent kernels return nothing when the process's memory cannot be read.
        # Believe it only if the kernel says that the block itself is empty.
        stat = _read_stat(thread)
        if stat.has_exited:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        if not stat.has_program:
            continue
        if stat.environment_start is None:
            raise _unreadable("the kernel hides its memory")
        if stat.environment_start == stat.environment_end:
            return b""
    raise _unreadable("it is ending or begins another program, or is a thread of the kernel")


def _read_stat(thread: int) -> Stat:
    return parse_stat(_read_block(thread, "stat").decode("utf-8", errors="replace"))


def _read_block(directory: int, name: str) -> bytes:
    descriptor = _open(name, os.O_RDONLY, directory)
    try:
        first = os.read(descriptor, _FIRST_BYTES)
        if len(first) < _FIRST_BYTES:
            # All of it: the kernel ends a read before the end of the block with an error or with
            # nothing, never with a part (`environ_read` in fs/proc/base.c).
            return first
        said_bytes = _said_bytes(directory)
        _ensure_allowed(said_bytes, name)  # how much would be read for nothing?
        chunks, size = [first], len(first)
        while chunk := os.read(descriptor, _buffer_bytes(said_bytes - size)):
            yield_cpu()
            chunks.append(chunk)
            size += len(chunk)
            _ensure_allowed(size, name)
        return b"".join(chunks)
    finally:
        os.close(descriptor)


def _buffer_bytes(left: int) -> int:
    """Return how much to read at once where so much is left, as the kernel says.

    One byte more shows the end. Where more has come than the kernel says, or it says nothing,
    nothing is known.
    """
    return min(left + 1, _CHUNK_BYTES) if left >= 0 else _CHUNK_BYTES


def _said_bytes(thread: int) -> int:
    """Return how large the environment is as the kernel says, 0 where it hides that."""
    stat = _read_stat(thread)
    return (stat.environment_end or 0) - (stat.environment_start or 0)


def _ensure_allowed(size_bytes: int, name: str) -> None:
    if size_bytes > MAX_BYTES:
        raise ResourceExhausted(
            Reason.ENVIRONMENT_TOO_LARGE,
            f"The process's environment is larger than {MAX_BYTES} bytes.",
            read=f"/proc/<pid>/{name}",
        )


def _open(name: str, flags: int, directory: int) -> int:
    """Open below a directory of /proc, which is empty (ENOENT) once its process has exited."""
    try:
        return os.open(name, flags | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError as error:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error


def _unreadable(why: str) -> Unavailable:
    return Unavailable(
        Reason.READ_TIMED_OUT,
        f"The process's environment cannot be read now: {why}.",
        read="/proc/<pid>/environ",
        advice="Try again; if it stays so, look at what the process does with its memory.",
    )
