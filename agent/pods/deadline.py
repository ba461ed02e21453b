"""Ends a blocking exchange over a socket from outside."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class Deadline:
    """Cuts the watched socket after a time, or at once when `cut` is called.

    A socket's own timeout starts anew with each byte, so a server that sends one
    byte now and then would hold the reader for ever. After a cut the blocked call
    fails or finds the end of the stream; `passed` says that this is why.
    """

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self.cut)
        self._timer.name = "pod-source-deadline"
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._socket = None

    def watch(self, connected: socket.socket) -> None:
        """Cut this socket when the time comes, now if it has passed."""
        self._socket = connected
        if self.passed:
            self.cut()

    def cut(self) -> None:
        """End the exchange. May be called from any thread; does not block."""
        self.passed = True
        watched = self._socket
        if watched is not None:
            with suppress(OSError):
                # Not SSLSocket.shutdown: it would change the object under its reader.
                socket.socket.shutdown(watched, socket.SHUT_RDWR)
