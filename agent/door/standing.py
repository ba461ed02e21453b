"""What stands at a socket's path: this agent's own socket, another agent's, or something else.

The rule by which two agents of a node share a path, and a workload that may write to the
directory gains nothing for long:

- A socket with this agent's inode and mode is its own.
- A socket at which a process listens that has the agent's uid and stands in the agent's own PID
  namespace (the host's) is another agent's: in a rolling update the newer one has taken the
  path over. It is left alone for as long as somebody listens there.
- Whatever else stands there is nobody's: a dead agent's socket, a file, a link, a directory, a
  socket of a pod's process. It is replaced.

A workload in the host's PID namespace with uid 0 passes for an agent; it owns the node anyway.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from enum import Enum

from netutil.agent.door.listener import Listener
from netutil.agent.door.place import Inode
from netutil.agent.errors import Unidentified
from netutil.agent.identity.pinning import Pin, peer_credentials


class Standing(Enum):
    """What stands at the path, as it is said in the log."""

    OURS = "ours"
    AGENT = "another agent's socket"
    BUSY = "a socket with a full queue"
    MISSING = "gone"
    SPOILT = "given another mode"
    DEAD = "a socket where nobody listens"
    STRANGER = "the socket of a process that is no agent"
    NO_SOCKET = "something else"


@contextlib.contextmanager
def standing(listener: Listener, pin: Pin) -> Iterator[tuple[Standing, Inode | None]]:
    """Within the block, hold what stands at a listener's path: what it is, and its inode.

    Nothing else gets that inode's number meanwhile. Follows no link and does not block. Raises
    OSError if it cannot be looked at, `OverLimit` if who listens cannot be for a shortage.
    """
    try:
        # O_PATH: neither a FIFO nor a device is opened by it, and a link is not followed.
        held = os.open(listener.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        yield Standing.MISSING, None
        return
    try:
        status = os.fstat(held)
        inode = status.st_dev, status.st_ino
        if inode == listener.inode:
            right = stat.S_IMODE(status.st_mode) == listener.mode
            found = Standing.OURS if right else Standing.SPOILT
        elif not stat.S_ISSOCK(status.st_mode):
            found = Standing.NO_SOCKET
        else:
            # By the descriptor: what was looked at is what is connected to.
            found = _behind(f"/proc/self/fd/{held}", pin)
        yield found, inode
    finally:
        os.close(held)


def _behind(path: str, pin: Pin) -> Standing:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except BlockingIOError:
            return Standing.BUSY
        except ConnectionRefusedError:
            return Standing.DEAD
        # Of a socket that called connect(2), SO_PEERCRED is of who called listen(2): unix(7).
        try:
            credentials = peer_credentials(probe)
            process = pin(probe, credentials.pid)
        except Unidentified:
            return Standing.STRANGER
        try:
            levels = len(process.status().namespace_pids)
            process.ensure_alive()
        except Unidentified:
            return Standing.DEAD
        finally:
            process.close()
    of_host = levels == 1 and credentials.uid == os.geteuid()
    return Standing.AGENT if of_host else Standing.STRANGER
