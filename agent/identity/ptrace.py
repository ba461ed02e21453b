"""Reads another process's environment if the kernel would let the caller read it (ptrace access).

The rule (ptrace(2), "Ptrace access mode checking", PTRACE_MODE_READ_FSCREDS)
takes ids, dumpability, capabilities and security modules into account. The rule is
not written again here: a thread takes on the caller's file system ids and
effective capabilities, which are per thread in Linux, reads the file, and takes
its own back. The kernel decides.

No thread is started for it, and none is kept for a caller: setfsuid(2) was made for servers that
act for a caller for the time of one access. The kernel asks for these credentials and for no other
(PTRACE_MODE_FSCREDS in `__ptrace_may_access` and `cap_ptrace_access_check`), so the permitted
capabilities, which the thread needs to take its own credentials back, decide nothing.
The descriptor of an environment that was once opened is not kept either: the kernel decides at
open(2) only, so it would stay readable for a caller to whom it is refused since.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import TypeVar, cast

from netutil.agent.errors import AgentError, PermissionDenied, Reason
from netutil.agent.identity.live_credentials import (
    CAPABILITIES,
    CAPABILITY_HEADER,
    CAPABILITY_VERSION,
    credentials_now,
    first_thread_ids,
)
from netutil.agent.identity.process import (
    Credentials,
    PinnedProcess,
    thread_credentials,
    thread_has_ended,
)
from netutil.agent.parsers.process import ThreadCredentials

T = TypeVar("T")

_CAP_SYS_PTRACE = 1 << 19
_ANY_ID = _WORD = 0xFFFFFFFF
_LIBC = ctypes.PyDLL(None, use_errno=True)
"""Keeps the interpreter's lock: no call here waits, and to get the lock back may take longer."""


class CredentialsNotRestored(Exception):
    """A thread could not take its own credentials back, and has to end. Not expected.

    The kernel had no memory for them. No `AgentError`: the thread must not go on after it.
    """


_HEADER = CAPABILITY_HEADER.pack(CAPABILITY_VERSION, 0)
for _set_id in (_LIBC.setfsuid, _LIBC.setfsgid):
    _set_id.argtypes = (ctypes.c_uint32,)
    _set_id.restype = ctypes.c_uint32
_LIBC.capget.argtypes = _LIBC.capset.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
_Words = tuple[int, int, int, int, int, int]
_OWN = threading.local()


def _ensure_ids(found: ThreadCredentials, credentials: Credentials) -> None:
    """Raise `PermissionDenied` unless a process still has the ids under which it connected.

    A process that has executed a setuid program since, or was given up to another user by one
    (sudo, su), has an environment that is not for other users of its connection.
    """
    if found.effective_ids != (credentials.uid, credentials.gid):
        raise _other_ids()


def read_own(process: PinnedProcess, credentials: Credentials, read: Callable[[int], T]) -> T:
    """Return what `read` returns, run on the directory of a running thread of the caller itself.

    The thread that is read has the ids under which the caller connected, before and after.
    `read` raises ProcessLookupError for a thread that has ended. Raises `PermissionDenied` for
    other ids, `Unauthenticated` if the process has exited, and what `read` raises.
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
    """Raise `PermissionDenied` unless a thread has the ids; ProcessLookupError, perhaps, if it
    has ended.

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
    with the capabilities that the caller has now: so there is no time between the kernel's consent
    and the read in which the target could become another program. The directory is that of a thread
    that runs. Raises `PermissionDenied` if the kernel
    refuses, and unless both have the same real, effective and saved ids and are in the agent's
    own user namespace: of another one the agent, as its owner, could read more than the caller.
    Raises `Unauthenticated` if either has exited, `CredentialsNotRestored` if the calling thread
    must end, and what `read` raises. Blocks: not for the loop.
    """
    asking = credentials_now(caller)
    _ensure_ids(asking, credentials)
    _ensure_may_read_agent(target, asking)
    ids_are_compared = _kernel_compares_ids(asking, credentials)

    def read_and_check(thread: int) -> T:
        try:
            answer = read(thread)
        except AgentError:
            _ensure_own_user_namespace(thread)  # an error says something of the target too
            raise
        # No process that left a user namespace comes back to it, so a process that is in it now was
        # in it all the time. The kernel shows the name of a namespace only to a process that may
        # read it.
        _ensure_own_user_namespace(thread)
        return answer

    def read_thread(thread: int) -> T:
        # Ids are a thread's own: they are those of the thread that is read.
        if not ids_are_compared:
            _ensure_same_ids(target, thread, asking)
        try:
            return _read_with(credentials, asking.effective_capabilities, read_and_check, thread)
        except PermissionError:
            if thread_has_ended(thread):  # files of one that has ended are root's
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
            _ensure_same_ids(target, thread, asking)  # says it better
            raise

    def check_caller(thread: int) -> None:
        _ensure_own_user_namespace(thread)
        _ensure_thread_has_ids(thread, credentials)

    try:
        answer = target.through_running_thread(read_thread)
    except PermissionError:
        caller.ensure_alive()
        target.ensure_alive()
        raise _refused("the kernel does not let the caller read it (ptrace access mode)") from None
    except AgentError:
        caller.through_running_thread(check_caller)  # and for the caller
        raise
    caller.through_running_thread(check_caller)  # after the read, for the same reason
    caller.ensure_alive()
    target.ensure_alive()
    return answer


def _ensure_may_read_agent(target: PinnedProcess, asking: ThreadCredentials) -> None:
    """Raise `PermissionDenied` if the target is the agent, and the caller lacks CAP_SYS_PTRACE.

    The kernel lets every thread read its own process, whatever its ids and capabilities are.
    """
    if target.pid == os.getpid() and not asking.effective_capabilities & _CAP_SYS_PTRACE:
        raise _refused("it is the agent itself, and the caller does not have CAP_SYS_PTRACE")


def _kernel_compares_ids(asking: ThreadCredentials, credentials: Credentials) -> bool:
    """Return whether the kernel refuses to read a process that has not all ids of the caller.

    The kernel compares the file system ids of the reader with the real, effective and saved ids of
    the process that is read, and otherwise requires CAP_SYS_PTRACE in the user namespace of the
    latter (`__ptrace_may_access` in kernel/ptrace.c): so it does if the caller has the same three
    ids, and not that capability. The owner of a user namespace has all capabilities in that.
    """
    uid, gid = credentials.uid, credentials.gid
    has_one_id = asking.ids == (uid, uid, uid, gid, gid, gid)
    return has_one_id and not asking.effective_capabilities & _CAP_SYS_PTRACE


def _ensure_same_ids(target: PinnedProcess, thread: int, asking: ThreadCredentials) -> None:
    """Raise `PermissionDenied` unless a thread of the target has the ids of the caller.

    Raises ProcessLookupError if the thread has ended, perhaps not if it is the first.
    """
    ids = first_thread_ids(target) if thread == target.directory() else None
    if (ids or thread_credentials(thread).ids) != asking.ids:
        raise _refused("it runs under other user or group ids")


def _read_with(
    credentials: Credentials, capabilities: int, read: Callable[[int], T], thread: int
) -> T:
    """Return what `read` returns with the file system ids of a caller and its capabilities.

    The capabilities that the agent has too are this thread's effective ones meanwhile. Afterwards
    the thread has its own again. Raises `CredentialsNotRestored` if it has not, OSError if the
    agent may not take the caller's on.
    """
    uid, gid, own = _own_credentials()
    low, permitted, inheritable, high, high_permitted, high_inheritable = own
    low = capabilities & _WORD & permitted
    high = capabilities >> 32 & high_permitted
    lowered = low, permitted, inheritable, high, high_permitted, high_inheritable
    has_other_ids = (credentials.uid, credentials.gid) != (uid, gid)
    if lowered == own and not has_other_ids:  # of a privileged container
        return read(thread)
    try:
        if has_other_ids:
            _set_file_system_ids(credentials.uid, credentials.gid)
        _set_capabilities(lowered)
        return read(thread)
    finally:
        try:
            # Ids first: they change capabilities (capabilities(7), "Effect of user ID changes").
            if has_other_ids:
                _set_file_system_ids(uid, gid)
            _set_capabilities(own)
        except OSError as error:
            raise CredentialsNotRestored(str(error)) from error


def _own_credentials() -> tuple[int, int, _Words]:
    """Return the file system ids and the capabilities of this thread.

    Both are read once: a thread that does not take them back after a read makes no other one.
    """
    own: tuple[int, int, _Words] | None = getattr(_OWN, "credentials", None)
    if own is None:
        _OWN.credentials = own = (*_file_system_ids(), _capabilities())
    return own


def _file_system_ids() -> tuple[int, int]:
    """Return the user and group id: asking for an impossible one returns the one in force."""
    return _LIBC.setfsuid(_ANY_ID), _LIBC.setfsgid(_ANY_ID)


def _set_file_system_ids(uid: int, gid: int) -> None:
    """Take on ids. Raises OSError if they are not in force then: the calls do not say so."""
    _LIBC.setfsgid(gid)
    _LIBC.setfsuid(uid)
    if _file_system_ids() != (uid, gid):
        raise OSError(errno.ENOTSUP, "cannot take on ids; CAP_SETUID and CAP_SETGID needed")


def _capabilities() -> _Words:
    found = ctypes.create_string_buffer(CAPABILITIES.size)
    if _LIBC.capget(_HEADER, found) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    return cast(_Words, CAPABILITIES.unpack(found))


def _set_capabilities(wanted: _Words) -> None:
    if _LIBC.capset(_HEADER, CAPABILITIES.pack(*wanted)) != 0:
        raise OSError(ctypes.get_errno(), "capset")


@cache
def _own_user_namespace() -> str:
    """Return its name; no thread of the agent enters another user namespace."""
    return os.readlink("/proc/self/ns/user")


def _ensure_own_user_namespace(thread: int) -> None:
    """Raise `PermissionDenied` unless a thread is in the agent's user namespace.

    Two namespaces have the same name only if they are the same one: it has the type and the inode
    number (namespaces(7), "The /proc/pid/ns/ directory").
    """
    if os.readlink("ns/user", dir_fd=thread) != _own_user_namespace():
        raise _refused("one of the two is in a user namespace of its own")


def _other_ids() -> PermissionDenied:
    return _refused("the calling process has taken on other ids since it connected")


def _refused(why: str) -> PermissionDenied:
    return PermissionDenied(
        Reason.ENVIRONMENT_NOT_READABLE,
        f"The environment of that process is not for the caller: {why}.",
        read="/proc/<pid>/environ",
        advice="Ask for the calling process itself (an empty pid), or from a process that"
        " could read that file on its own.",
    )
