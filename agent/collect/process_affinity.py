"""The CPU affinity of a pinned process."""

from __future__ import annotations

import errno
import os

from netutil.agent.errors import Unauthenticated
from netutil.agent.facts.affinity import read_affinity
from netutil.agent.identity.process import PinnedProcess


def process_affinity(process: PinnedProcess) -> str | None:
    """Return the CPUs that a process may use as a kernel list, None if it has ended.

    Those of its first thread, or of another one that runs if the first has ended. Nothing of it
    blocks. Raises `QuotaExceeded` for a shortage.
    """
    try:
        try:
            return read_affinity(process.directory(), process.pid)
        except (ProcessLookupError, FileNotFoundError):
            return process.through_running_thread(_thread_affinity)
    except PermissionError:
        return _allowed(process)
    except Unauthenticated:
        return None


def _thread_affinity(thread: int) -> str:
    """Return the CPUs of the thread whose directory in /proc is open.

    Raises ProcessLookupError if it has ended: the link says " (deleted)" then (proc(5)).
    """
    number = os.readlink(f"/proc/self/fd/{thread}").rpartition("/")[2]
    if not number.isdecimal():
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return read_affinity(thread, int(number))


def _allowed(process: PinnedProcess) -> str | None:
    """Return what the process's status says: all that an agent without CAP_SYS_PTRACE may read.

    Those CPUs may be offline.
    """
    try:
        allowed = process.status().cpus_allowed
        process.ensure_alive()
    except Unauthenticated:
        return None
    return allowed
