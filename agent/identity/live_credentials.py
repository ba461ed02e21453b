"""The credentials that a process has now, without its status file where the kernel allows that.

The kernel makes the whole of /proc/<pid>/status for each read, some 40 lines: that took longer than
the read of an environment. Since Linux 6.13 a pidfd reports the ids (PIDFD_GET_INFO, `pidfd_info`
in fs/pidfs.c), and capget(2) the capabilities; both are those of the first thread, as the file's
are. Older kernels, and security modules that refuse one of the two calls, leave the file.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from functools import cache

from netutil.agent.identity.process import PinnedProcess, thread_credentials, thread_has_ended
from netutil.agent.parsers.process import Ids, ThreadCredentials

CAPABILITY_HEADER = struct.Struct("Ii")
"""`struct __user_cap_header_struct`: the version, and the PID or 0 for the calling thread."""
CAPABILITY_VERSION = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3."""
CAPABILITIES = struct.Struct("6I")
"""Twice `struct __user_cap_data_struct`: effective, permitted, inheritable; the low bits first."""
_WORD_BITS = 32
_INFO = struct.Struct("QQ12I")
"""`struct pidfd_info` of its first version: mask, cgroup, PID, TGID, PPID; real, effective, saved
and file system ids, each the user's and the group's; exit code."""
_INFO_CREDS = 1 << 1
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11
"""PIDFD_GET_INFO: _IOWR(PIDFS_IOCTL_MAGIC, 11, struct pidfd_info)."""
_EMPTY = bytes(_INFO.size)
_ROOT = (0, 0, 0)
"""Real, effective and saved user id."""
_NOT_SUPPORTED = (errno.ENOTTY, errno.EINVAL, errno.EPERM, errno.EACCES, errno.ENOSYS)
"""EINVAL: Linux 6.11 and 6.12, which know other ioctls of a pidfd only."""
_LIBC = ctypes.PyDLL(None, use_errno=True)
_LIBC.capget.argtypes = (ctypes.c_char_p, ctypes.c_char_p)


def credentials_now(process: PinnedProcess) -> ThreadCredentials:
    """Return the credentials of a thread that runs: of the first, unless that has ended.

    Raises as `PinnedProcess.through_running_thread`.
    """
    ids = first_thread_ids(process)
    capabilities = _effective_capabilities(process.pid) if ids is not None else None
    # The same ids after it: no setuid program was executed between the two calls, whose
    # capabilities would then be taken for those of the ids before.
    if ids is None or capabilities is None or first_thread_ids(process) != ids:
        return process.through_running_thread(thread_credentials)
    # A setuid program that dropped its ids between the last two calls has the ids of before. The
    # file has both of one moment, or nearly; few processes of users have capabilities.
    if capabilities and ids[:3] != _ROOT:
        return process.through_running_thread(thread_credentials)
    # It runs after these calls. So its PID was not another's, and it was not a zombie, whose ids
    # are those that it had: other threads may have others.
    if thread_has_ended(process.directory()):
        return process.through_running_thread(thread_credentials)
    return ThreadCredentials(ids, capabilities, has_ended=False)


def first_thread_ids(process: PinnedProcess) -> Ids | None:
    """Return the ids of the first thread, even if it has ended. None where only a file has them.

    That is also so for a process that was waited for. Raises OSError for every other failure.
    """
    if not _has_pidfd_info():
        return None
    try:
        return _ids(process.pidfd())
    except ProcessLookupError:
        return None


def _ids(pidfd: int) -> Ids:
    info: tuple[int, ...] = _INFO.unpack(fcntl.ioctl(pidfd, _GET_INFO, _EMPTY))
    if not info[0] & _INFO_CREDS:
        raise OSError(errno.ENOTTY, "PIDFD_GET_INFO without credentials")
    _, _, _, _, _, real, real_group, user, group, saved, saved_group, *_ = info
    return real, user, saved, real_group, group, saved_group


@cache
def _has_pidfd_info() -> bool:
    pidfd = os.pidfd_open(os.getpid())
    try:
        _ids(pidfd)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        return False
    finally:
        os.close(pidfd)
    return True


def _effective_capabilities(pid: int) -> int | None:
    """Return what the first thread of the process with a PID may do.

    None if there is none, or a security module refuses (`selinux_capget` in security/selinux).
    """
    found = ctypes.create_string_buffer(CAPABILITIES.size)
    if _LIBC.capget(CAPABILITY_HEADER.pack(CAPABILITY_VERSION, pid), found) != 0:
        number = ctypes.get_errno()
        if number in (errno.ESRCH, errno.EPERM, errno.EACCES):
            return None
        raise OSError(number, "capget")
    low, _, _, high, _, _ = CAPABILITIES.unpack(found)
    return int(high) << _WORD_BITS | int(low)
