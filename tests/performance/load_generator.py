"""A well-behaved pod: it calls at a steady rate and writes down how long each call took.

`python -m tests.performance.load_generator kept|new|echo SECONDS` asks each SECONDS,
over one connection or a new one each time; or the echo server instead of the agent.
For each call it prints a line "KIND START SECONDS", START as CLOCK_MONOTONIC has it; SECONDS is
"failed" for a call that was refused or cut off. A call that was held up by the one before it counts
from when it should have begun. It runs until it is killed.
"""

from __future__ import annotations

import socket
import sys
import time

from tests.performance.echo import run_at_once
from tests.support import http2

METHOD = "GetPod"
ECHO = "/etc/netutil/echo.sock"
_TIMEOUT_SECONDS = 10.0


class Refused(Exception):
    """The stream ended without an answer."""


class Connection:
    """One connection, one call at a time."""

    def __init__(self) -> None:
        self._socket = http2.connect()
        self._socket.settimeout(_TIMEOUT_SECONDS)
        self._stream = -1
        self._socket.sendall(http2.opening())

    def call(self) -> None:
        """Ask and read the answer. Raises OSError, Refused."""
        headers = http2.REQUEST_AGAIN if self._stream > 0 else http2.request_headers(METHOD)
        self._stream += 2
        self._socket.sendall(http2.request(self._stream, headers))
        answered = 0
        while True:
            frame = http2.read_frame(self._socket)
            if frame.kind in (http2.SETTINGS, http2.PING) and not frame.flags & http2.ACK:
                echoed = frame.payload if frame.kind == http2.PING else b""
                self._socket.sendall(http2.frame(frame.kind, http2.ACK, 0, echoed))
            elif frame.kind in (http2.GOAWAY, http2.RST_STREAM):
                raise Refused
            elif frame.kind == http2.DATA and frame.stream == self._stream:
                answered += len(frame.payload)
            elif frame.kind == http2.HEADERS and frame.flags & http2.END_STREAM:
                if not answered:  # trailers alone: a status without a message
                    raise Refused
                return

    def close(self) -> None:
        self._socket.close()


def ask_over_a_new_connection() -> None:
    """Connect, ask, close. Raises OSError, Refused."""
    connection = Connection()
    try:
        connection.call()
    finally:
        connection.close()


class Kept:
    """A connection that is made again when it breaks."""

    def __init__(self) -> None:
        self._connection: Connection | None = None

    def ask(self) -> None:
        """Ask once. Raises OSError, Refused."""
        if self._connection is None:
            self._connection = Connection()
        try:
            self._connection.call()
        except BaseException:
            self._connection.close()
            self._connection = None
            raise


class Echo:
    """A connection to the echo server."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(ECHO)

    def ask(self) -> None:
        """Send a byte and wait for it."""
        self._socket.sendall(b"?")
        self._socket.recv(1)


def main() -> None:
    run_at_once()
    kind, interval = sys.argv[1], float(sys.argv[2])
    ask = {"kept": Kept().ask, "new": ask_over_a_new_connection}.get(kind) or Echo().ask
    due = time.monotonic()
    while True:
        due += interval
        began = time.monotonic()
        if began < due:
            time.sleep(due - began)
            began = time.monotonic()
        else:
            began = due
        try:
            ask()
        except (OSError, Refused):
            took = "failed"
        else:
            took = f"{time.monotonic() - began:.6f}"
        print(kind, f"{began:.6f}", took, flush=True)


if __name__ == "__main__":
    main()
