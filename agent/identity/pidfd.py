"""Pins the process of a connection or of a PID by a pidfd.

Linux 6.5 and later hand out a pidfd of the peer as it was at connect(2)
(SO_PEERPIDFD): no pid is looked up, so none can have been reused. Older kernels
give only the number. There the process behind the number is opened, and its
start time must not lie after the moment at which the connection was seen
(docs/threat-model.md says what that leaves open).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable

from netutil.agent.errors import AgentError, Reason, Unauthenticated, resource_exhausted
from netutil.agent.identity.process import Credentials, PinnedProcess, process_exited

# include/uapi/asm-generic/socket.h; Python's socket module does not name it yet.
SO_PEERPIDFD = 77
_UCRED = struct.Struct("iII")
_INT = struct.Struct("i")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

PinPeer = Callable[[socket.socket, int], PinnedProcess]


def peer_credentials(connection: socket.socket) -> Credentials:
    """Return the credentials of the peer (SO_PEERCRED). Raises `Unauthenticated` for a peer in no
    visible namespace.

    The kernel says pid 0 of a peer that has no number in the agent's PID namespace.
    """
    pid, uid, gid = _peer_credentials(connection)
    if pid <= 0:
        raise Unauthenticated(
            Reason.PEER_NOT_VISIBLE,
            "The kernel shows the agent no process id of the caller, because the agent"
            " does not run in the host's PID namespace.",
            read="SO_PEERCRED",
            advice="Set hostPID: true in the agent's DaemonSet.",
        )
    return Credentials(pid, uid, gid)


def peer_pid(connection: socket.socket) -> int:
    """Return the number of the process that connected; 0 or less if it has none here.

    The number identifies no process: the process may have exited, and the PID may be reused.
    """
    return _peer_credentials(connection)[0]


def _peer_credentials(connection: socket.socket) -> tuple[int, int, int]:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    return pid, uid, gid


def choose_pin() -> tuple[PinPeer, str]:
    """Return how this kernel lets peers be pinned, and its name for the log; found by trying."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with left, right:
        try:
            raw = left.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, _INT.size)
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT:
                raise
            return pin_by_start_time, "pidfd_open and start time"
    os.close(_INT.unpack(raw)[0])
    return pin_by_peer_pidfd, "SO_PEERPIDFD"


def pin_by_peer_pidfd(connection: socket.socket, pid: int) -> PinnedProcess:
    """Return the peer, pinned by the pidfd that the kernel kept since connect(2).

    Raises `Unauthenticated` if the peer has exited: EINVAL and ESRCH say so. These errors must
    never lead to the fallback, which would find the process that has the pid now.
    """
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, _INT.size)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ESRCH, errno.ENODATA):
            raise process_exited(pid) from None
        raise _not_pinned(pid, error) from error
    return _pin(pid, _INT.unpack(raw)[0])


def pin_by_start_time(connection: socket.socket, pid: int) -> PinnedProcess:
    """Return the process that has the peer's pid, if it is old enough to be the peer.

    Raises `Unauthenticated` if it has exited, or started after the connection was
    seen: then it is another process under a reused number.
    """
    del connection
    seen_ticks = time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS_PER_SECOND
    process = pin_pid(pid)
    try:
        started_ticks = process.stat().start_ticks
        process.ensure_alive()
    except BaseException:
        process.close()
        raise
    if started_ticks > seen_ticks:
        process.close()
        raise process_exited(pid)
    return process


def pin_pid(pid: int) -> PinnedProcess:
    """Return the process that has `pid` now. Raises `Unauthenticated` if there is none."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        raise process_exited(pid) from None
    except OSError as error:
        # EINVAL: the number names a thread, not a process.
        raise _not_pinned(pid, error) from error
    return _pin(pid, pidfd)


def _pin(pid: int, pidfd: int) -> PinnedProcess:
    try:
        directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        os.close(pidfd)
        raise process_exited(pid) from None
    except OSError as error:
        os.close(pidfd)
        raise _not_pinned(pid, error) from error
    process = PinnedProcess(pid, pidfd, directory)
    try:
        # The directory was opened by number: it is the peer's only if the peer
        # still holds that number now.
        process.ensure_alive()
    except Unauthenticated:
        process.close()
        raise
    return process


def _not_pinned(pid: int, error: OSError) -> AgentError:
    return resource_exhausted(error, f"pidfd and /proc/{pid}") or Unauthenticated(
        Reason.PEER_NOT_PINNED,
        f"The process (host pid {pid}) cannot be held on to: {error.strerror}.",
        read=f"pidfd and /proc/{pid}",
        advice="The agent's log and docs/troubleshooting.md say what it needs.",
    )
