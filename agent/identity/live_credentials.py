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

from netutil.agent.identity.process import (
    PinnedProcess,
    read_file,
    thread_credentials,
    thread_has_ended,
)
from netutil.agent.parsers.process import Ids, ThreadCredentials, parse_stat

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
_ROOT = 0
_NOT_SUPPORTED = (errno.ENOTTY, errno.EINVAL, errno.EPERM, errno.EACCES, errno.ENOSYS)
"""EINVAL: Linux 6.11 and 6.12, which know other ioctls of a pidfd only."""
_LIBC = ctypes.PyDLL(None, use_errno=True)
_LIBC.capget.argtypes = (ctypes.c_char_p, ctypes.c_char_p)


def credentials_now(process: PinnedProcess) -> ThreadCredentials:
    """Return the credentials of a thread that runs: of the first, unless that has ended.

    The capabilities of a process that is not root's are those of one program with these ids, and
    none where that is not certain. Raises as `PinnedProcess.through_running_thread`. Blocks.
    """
    found = _by_pidfd(process) or process.through_running_thread(thread_credentials)
    if found.effective_capabilities and found.effective_ids[0] != _ROOT:
        return process.through_running_thread(_of_one_program)
    return found


def _by_pidfd(process: PinnedProcess) -> ThreadCredentials | None:
    """Return the credentials of the first thread, None if only a file has those that count."""
    ids = first_thread_ids(process)
    if ids is None:
        return None
    capabilities = _effective_capabilities(process.pid)
    # The same ids after it: no setuid program was executed between the two calls, whose
    # capabilities would then be taken for those of the ids before.
    if capabilities is None or first_thread_ids(process) != ids:
        return None
    # It runs after these calls. So its PID was not another's, and it was not a zombie, whose ids
    # are those that it had: other threads may have others.
    if thread_has_ended(process.directory()):
        return None
    return ThreadCredentials(ids, capabilities, has_ended=False)


def _of_one_program(thread: int) -> ThreadCredentials:
    """Return the credentials of a thread, with capabilities only if its program had them.

    A setuid program that drops its ids at once has the ids of before and after it, and no source
    has ids and capabilities of one moment: the status file makes one line after the other. So the
    same program has to run before and after. Its environment is at a random address, which is 0
    until the new ids are in force (`begin_new_exec` in fs/exec.c, `create_elf_tables` in
    fs/binfmt_elf.c). A program that can become root again (saved ids) may do so in between.
    """
    before = _environment_start(thread)
    found = thread_credentials(thread)
    same_ids = thread_credentials(thread).ids == found.ids
    same_program = before is not None and before == _environment_start(thread)
    if same_ids and same_program and _ROOT not in found.ids[:3]:
        return found
    return ThreadCredentials(found.ids, 0, has_ended=False)


def _environment_start(thread: int) -> int | None:
    stat = parse_stat(read_file(thread, "stat").decode("utf-8", errors="replace"))
    return stat.environment_start or None


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
