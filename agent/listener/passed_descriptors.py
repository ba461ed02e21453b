"""Keeps peers from passing file descriptors to the agent (SCM_RIGHTS, unix(7)).

The agent asks for none. The kernel closes what was passed when the agent reads or closes the
socket, in the thread that does so, and a close may block: for as long as SO_LINGER says, for a
TCP socket with unsent data (socket(7)). From Linux 6.16 on a socket can refuse descriptors
(SO_PASSRIGHTS): the peer's sendmsg(2) fails with EPERM, and accepted sockets inherit that of their
listener. On older kernels each read looks first (`grpcserver.ancillary`).
"""

from __future__ import annotations

import errno
import socket

SO_PASSRIGHTS = 83
"""include/uapi/asm-generic/socket.h; Python's socket module does not name it yet."""


def refuse_descriptors(connection: socket.socket) -> bool:
    """Let a Unix socket take no descriptors; return whether the kernel can. Raises OSError."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
        return False
    return True


def can_refuse_descriptors() -> bool:
    """Return whether this kernel lets a Unix socket take no descriptors."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return refuse_descriptors(probe)
