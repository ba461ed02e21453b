"""One process reads another's environment through the agent, if the kernel would let it.

The rule (ptrace(2), "Ptrace access mode checking", PTRACE_MODE_READ_FSCREDS)
takes ids, dumpability, capabilities and security modules into account. It is
not written again here: a thread takes on the caller's file system ids and
capabilities, which are per thread in Linux, and reads the file. The kernel
decides.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from netutil.agent.errors import Denied, Reason
from netutil.agent.identity.process import (
    Credentials,
    PinnedProcess,
    thread_has_ended,
    thread_status,
)
from netutil.agent.parsers.process import ProcessStatus

T = TypeVar("T")

_CAPABILITY_VERSION_3 = 0x20080522
_ANY_ID = 0xFFFFFFFF
_LIBC = ctypes.CDLL(None, use_errno=True)


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def ensure_same_ids(process: PinnedProcess, credentials: Credentials) -> None:
    """Raise `Denied` unless a process still bears the ids under which it connected.

    A process that has executed a setuid program since, or was given up to another user by one
    (sudo, su), has an environment that is not for those who share its connection.
    Raises `Unidentified` if it is gone.
    """
    _status_with_ids(process, credentials)


def _status_with_ids(process: PinnedProcess, credentials: Credentials) -> ProcessStatus:
    status = process.status()
    process.ensure_alive()
    if (status.uids[1], status.gids[1]) != (credentials.uid, credentials.gid):
        raise _other_ids()
    return status


def read_own(process: PinnedProcess, credentials: Credentials, read: Callable[[int], T]) -> T:
    """Return what `read` returns, run on the directory of a running thread of the caller itself.

    The thread that is read bears the ids under which the caller connected, before and after.
    `read` raises ProcessLookupError for a thread that has ended. Raises `Denied` for other ids,
    `Unidentified` if the process is gone, and what `read` raises.
    """

    def read_thread(thread: int) -> T:
        _ensure_thread_has_ids(thread, credentials)
        answer = read(thread)
        _ensure_thread_has_ids(thread, credentials)
        return answer

    answer = process.through_running_thread(read_thread)
    process.ensure_alive()
    return answer


def _ensure_thread_has_ids(thread: int, credentials: Credentials) -> None:
    """Raise `Denied` unless a thread bears the ids; ProcessLookupError, perhaps, if it has ended.

    A directory of a process or thread in /proc belongs to its effective ids, whether or not it is
    dumpable, and fstat(2) asks each time (`pid_getattr`, `task_dump_owner` in fs/proc/base.c). That
    is one system call, which takes no reference to the memory of the process.
    """
    found = os.fstat(thread)
    if (found.st_uid, found.st_gid) == (credentials.uid, credentials.gid):
        return
    if thread_has_ended(thread):  # the directory of one that was reaped is root's
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    raise _other_ids()


def read_as_caller(
    caller: PinnedProcess,
    credentials: Credentials,
    target: PinnedProcess,
    read: Callable[[int], T],
) -> T:
    """Return what `read` returns, run on the directory of `target` with the power of `caller`.

    `read` opens what it reads with the ids of `credentials`, under which the caller connected, and
    with the caller's capabilities: so there is no time between the kernel's consent and
    the read in which the target could become another program. The directory is that of a thread
    that runs. Raises `Denied` if the kernel
    refuses, and unless both bear the same real, effective and saved ids and are in the agent's
    own user namespace: of another one the agent, as its owner, could read more than the caller.
    Raises `Unidentified` if either is gone, and what `read` raises. Blocks: not for the loop.
    """
    asking = _status_with_ids(caller, credentials)

    def read_thread(thread: int) -> T:
        # Ids are a thread's own: they are those of the thread that is read.
        asked = thread_status(thread)
        if asking.uids[:3] != asked.uids[:3] or asking.gids[:3] != asked.gids[:3]:
            raise _refused("it runs under other user or group ids")
        _ensure_own_user_namespace(caller, target)
        try:
            return _run_as(credentials, asking.effective_capabilities, read, thread)
        except PermissionError:
            if thread_has_ended(thread):  # files of one that has ended are root's
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
            raise

    try:
        answer = target.through_running_thread(read_thread)
    except PermissionError:
        caller.ensure_alive()
        target.ensure_alive()
        raise _refused("the kernel does not let the caller read it (ptrace access mode)") from None
    # Nobody who left a user namespace comes back to it: here now, here all the time.
    _ensure_own_user_namespace(caller, target)
    ensure_same_ids(caller, credentials)
    target.ensure_alive()
    return answer


def _run_as(
    credentials: Credentials, capabilities: int, read: Callable[[int], T], directory: int
) -> T:
    """Return or raise what `read(directory)` does on a thread with other credentials."""
    outcome: Future[T] = Future()

    def work() -> None:
        # The thread ends after this: its credentials are never given back.
        try:
            _take_on(credentials, capabilities)
            outcome.set_result(read(directory))
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            outcome.set_exception(error)

    thread = threading.Thread(target=work, name="ask-as-caller", daemon=True)
    thread.start()
    thread.join()
    return outcome.result()


def _take_on(credentials: Credentials, capabilities: int) -> None:
    uid, gid = credentials.uid, credentials.gid
    _LIBC.setfsgid(gid)
    _LIBC.setfsuid(uid)
    # These calls do not say whether they succeeded; asking for an impossible id
    # returns the one in force.
    if (_LIBC.setfsgid(ctypes.c_uint32(_ANY_ID)), _LIBC.setfsuid(ctypes.c_uint32(_ANY_ID))) != (
        gid,
        uid,
    ):
        raise OSError(
            errno.ENOTSUP, "cannot take on the caller's ids; CAP_SETUID and CAP_SETGID needed"
        )
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    own = (_CapabilityData * 2)()
    if _LIBC.capget(ctypes.byref(header), own) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    wanted = (_CapabilityData * 2)()
    for index in range(2):
        bits = (capabilities >> (32 * index)) & 0xFFFFFFFF & own[index].permitted
        wanted[index] = _CapabilityData(bits, bits, 0)
    if _LIBC.capset(ctypes.byref(header), wanted) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def _ensure_own_user_namespace(*processes: PinnedProcess) -> None:
    own = os.stat("/proc/self/ns/user")
    for process in processes:
        its = process.through_running_thread(lambda thread: os.stat("ns/user", dir_fd=thread))
        if (own.st_dev, own.st_ino) != (its.st_dev, its.st_ino):
            raise _refused("one of the two is in a user namespace of its own")


def _other_ids() -> Denied:
    return _refused("the calling process has taken on other ids since it connected")


def _refused(why: str) -> Denied:
    return Denied(
        Reason.ENVIRONMENT_NOT_READABLE,
        f"The environment of that process is not for the caller: {why}.",
        read="/proc/<pid>/environ",
        advice="Ask for the calling process itself (an empty pid), or from a process that"
        " could read that file on its own.",
    )
