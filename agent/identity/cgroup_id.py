"""The cgroup ID of a connection's peer, also of a process that has exited.

Linux 6.13 and later report the ID of the cgroup v2 cgroup that the process of a pidfd is in
(PIDFD_GET_INFO, include/uapi/linux/pidfd.h), 6.16 and later also of one that has exited and was
waited for, by a pidfd that a socket still gives. The ID names the cgroup, and identifies no
caller: it says whom work was done for.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from netutil.agent.identity.pidfd import SO_PEERPIDFD
from netutil.agent.identity.process import PinnedProcess

_INT = struct.Struct("i")
_INFO_BYTES = 64  # PIDFD_INFO_SIZE_VER0
_PIDFD_GET_INFO = 3 << 30 | _INFO_BYTES << 16 | 0xFF << 8 | 11  # _IOWR(0xFF, 11, …), ioctl(2)
_CGROUP_ID, _EXIT = 1 << 2, 1 << 3
_MASK_AND_ID = struct.Struct("QQ")


def peer_cgroup_id(connection: socket.socket) -> int | None:
    """Return the ID of the peer's cgroup, None where the kernel does not report it."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, _INT.size)
    except OSError:  # an older kernel, or a process that has exited there
        return None
    pidfd = _INT.unpack(raw)[0]
    try:
        return _cgroup_id(pidfd)
    finally:
        os.close(pidfd)


def process_cgroup_id(process: PinnedProcess) -> int | None:
    """Return the ID of a process's cgroup, None where the kernel does not report it.

    Raises `Unauthenticated` after `close`.
    """
    return _cgroup_id(process.pidfd())


def _cgroup_id(pidfd: int) -> int | None:
    info = bytearray(_INFO_BYTES)
    _MASK_AND_ID.pack_into(info, 0, _CGROUP_ID | _EXIT, 0)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info)
    except OSError:  # before Linux 6.13; ESRCH before 6.16
        return None
    mask, cgroup_id = _MASK_AND_ID.unpack_from(info)
    return cgroup_id if mask & _CGROUP_ID else None
