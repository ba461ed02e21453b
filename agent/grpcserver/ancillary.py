"""Reads and closes sockets whose peers may pass file descriptors, without closing those here.

The kernel closes descriptors that were passed (SCM_RIGHTS, unix(7)) and not asked for when the data
that they came with is read, or the socket closed, in the thread that does so; such a close may
block (SO_LINGER, socket(7)). So data is looked at first (MSG_PEEK), and without space for
descriptors: the kernel says that there are some (MSG_CTRUNC), and passes none. One that was passed
would have to be closed, and each close(2) of a file on FUSE or NFS waits for its file system
(`flush` of fs/open.c, filp_close) even where others have the file open. A socket with descriptors
in its queue is closed by a thread of its own.

Not needed where the listener refuses descriptors (SO_PASSRIGHTS, Linux 6.16).
"""

from __future__ import annotations

import contextlib
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT
_INTERRUPT = signal.SIGURG
_INTERRUPT_SECONDS = 0.001
"""How long a close may block: a thousand sockets are closed in a second at the least."""


class PassedDescriptorsError(ConnectionAbortedError):
    """The peer has passed descriptors: the connection is ended."""


def readable(connection: socket.socket, buffer: memoryview) -> int:
    """Return how many bytes may be read: all before the data that carries descriptors.

    0 at the end of the stream. Raises BlockingIOError for none now, `PassedDescriptorsError`.
    """
    size, _, flags, _ = connection.recvmsg_into([buffer], 0, _PEEK)
    if flags & socket.MSG_CTRUNC:
        raise PassedDescriptorsError
    return size


class Closer:
    """Closes sockets with descriptors in their queues on one daemon thread.

    A close that takes long there is interrupted by a signal, which ends the wait of SO_LINGER
    (sk_stream_wait_close, net/core/stream.c), however deep in the queue of a socket that was passed
    the lingering one is: a peer that passes many keeps no descriptors of this process open. The
    descriptors are not taken first: to close one may also wait for its file system.
    """

    def __init__(self) -> None:
        """Only on the main thread (signal(2) of Python)."""
        self._sockets: queue.SimpleQueue[tuple[socket.socket, Callable[[], None]]] = (
            queue.SimpleQueue()
        )
        self._handed_over = self._closed = 0
        self._thread: threading.Thread | None = None
        self._is_closing = threading.Event()
        # A signal that is ignored, as this one is at first, interrupts nothing.
        signal.signal(_INTERRUPT, _do_nothing)

    @property
    def waiting(self) -> int:
        """Return how many sockets were handed to the thread and are not closed yet."""
        return self._handed_over - self._closed

    def release(self, connection: socket.socket, when_closed: Callable[[], None]) -> bool:
        """Let a socket that is closed next be released elsewhere, if its queue has descriptors.

        Return whether it is: its descriptor is taken away here then, and the thread calls
        `when_closed` once it has closed it. Nothing may use the descriptor after this.
        What else is in the queue is read and dropped. The peer can add nothing to it meanwhile, and
        still reads what was sent.
        """
        buffer = memoryview(bytearray(16_384))
        try:
            connection.shutdown(socket.SHUT_RD)
            while size := readable(connection, buffer):
                connection.recv_into(buffer[:size], size, socket.MSG_DONTWAIT)
        except PassedDescriptorsError:
            self._hand_over(connection, when_closed)
            return True
        except OSError:  # nothing is left, or the connection was reset
            return False
        return False

    def _hand_over(self, connection: socket.socket, when_closed: Callable[[], None]) -> None:
        # Not a copy: there may be no descriptor for one.
        family, kind = connection.family, connection.type
        self._handed_over += 1
        self._sockets.put((socket.socket(family, kind, 0, connection.detach()), when_closed))
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="closer", daemon=True)
            thread.start()
            threading.Thread(
                target=self._interrupt, args=(thread,), name="closer interrupts", daemon=True
            ).start()
            self._thread = thread

    def _work(self) -> None:
        while True:
            connection, when_closed = self._sockets.get()
            self._is_closing.set()
            with contextlib.suppress(OSError):
                connection.close()
            self._closed += 1
            when_closed()
            if self._sockets.empty():
                self._is_closing.clear()

    def _interrupt(self, closer: threading.Thread) -> None:
        assert closer.ident is not None  # noqa: S101 - it was started
        while True:
            self._is_closing.wait()
            time.sleep(_INTERRUPT_SECONDS)
            if self._is_closing.is_set():
                signal.pthread_kill(closer.ident, _INTERRUPT)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """Handle a signal."""
