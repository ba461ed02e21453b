"""Reads and closes sockets whose peers may pass file descriptors, without closing those here.

The kernel closes descriptors that were passed (SCM_RIGHTS, unix(7)) and not asked for when the data
that they came with is read, or the socket closed, in the thread that does so; such a close may
block (SO_LINGER, socket(7)). So data is looked at first (MSG_PEEK), and without room for
descriptors: the kernel says that there are some (MSG_CTRUNC), and passes none. One that was passed
would have to be closed, and each close(2) of a file on FUSE or NFS waits for its file system
(`flush` of fs/open.c, filp_close), whoever else has the file open. A socket with descriptors in its
queue is closed by a thread of its own.

Not needed where the listener refuses descriptors (SO_PASSRIGHTS, Linux 6.16).
"""

from __future__ import annotations

import array
import contextlib
import os
import queue
import socket
import stat
import struct
import threading

_MAX_DESCRIPTORS = 253  # SCM_MAX_FD, include/net/scm.h: of one message
_ANCILLARY_BYTES = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT
_NO_LINGER = struct.pack("ii", 0, 0)


class PassedDescriptorsError(ConnectionAbortedError):
    """The peer has passed descriptors: the connection is ended."""


def readable(connection: socket.socket, buffer: memoryview) -> int:
    """Return how many bytes may be read: as many as stand before what brings descriptors.

    0 at the end of the stream. Raises BlockingIOError for none now, `PassedDescriptorsError`.
    """
    size, _, flags, _ = connection.recvmsg_into([buffer], 0, _PEEK)
    if flags & socket.MSG_CTRUNC:
        raise PassedDescriptorsError
    return size


class Closer:
    """Closes sockets with descriptors in their queues on one daemon thread."""

    def __init__(self) -> None:
        self._sockets: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def release(self, connection: socket.socket) -> None:
        """Let a socket that is closed next be released elsewhere, if its queue has descriptors.

        It is closed here already then. Nothing may use its descriptor after this.

        What else is in the queue is read and dropped. The peer can add nothing to it meanwhile, and
        still reads what was sent.
        """
        buffer = memoryview(bytearray(16_384))
        try:
            connection.shutdown(socket.SHUT_RD)
            while size := readable(connection, buffer):
                connection.recv_into(buffer[:size], size, socket.MSG_DONTWAIT)
        except PassedDescriptorsError:
            self._hand_over(connection)
        except OSError:  # nothing is left, or the connection was reset
            return

    def _hand_over(self, connection: socket.socket) -> None:
        # Not a copy: there may be no descriptor for one.
        family, kind = connection.family, connection.type
        self._sockets.put(socket.socket(family, kind, 0, connection.detach()))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="closer", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            with contextlib.suppress(OSError), self._sockets.get() as connection:
                _drain(connection)


def _drain(connection: socket.socket) -> None:
    """Take what was passed, and close it without lingering where that can be told."""
    while True:
        data, ancillary, _, _ = connection.recvmsg(
            16_384, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
        )
        for descriptor in _descriptors(ancillary):
            _close(descriptor)
        if not data and not ancillary:
            return


def _close(descriptor: int) -> None:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return
    with contextlib.suppress(OSError), socket.socket(fileno=descriptor) as passed:
        passed.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> array.array[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found
