"""Many connections rather than many bytes.

`python -m tests.support.attacks.connection_floods NAME` runs until it is killed.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import time
from collections.abc import Callable

from tests.support import http2
from tests.support.attacks.sender import hold

_MANY = 5000
_MANY_UNIDENTIFIED = 200
"""More than the agent admits: a place that becomes free is taken at once."""
_CALL_HEADERS = http2.opening() + http2.frame(http2.HEADERS, 0, 1, http2.request_headers("GetPod"))


def _question(method: str) -> bytes:
    """Return all that a new connection sends to ask for a method."""
    return http2.opening() + http2.request(1, http2.request_headers(method))


def connect_and_die() -> None:
    """Connect and close, as fast as one process can."""
    while True:
        try:
            http2.connect().close()
        except OSError:
            time.sleep(0.001)


def connect_ask_and_die() -> None:
    """Connect, ask in full, and close without reading."""
    asked = _question("GetAll")
    while True:
        try:
            with http2.connect() as connection:
                connection.sendall(asked)
        except OSError:
            time.sleep(0.001)


def fork_connect_and_die() -> None:
    """A new process for each connection: no number to remember a caller by."""
    while True:
        pid = os.fork()
        if not pid:
            try:
                http2.connect().send(http2.PREFACE)
            except OSError:
                pass
            os._exit(0)
        os.waitpid(pid, 0)


def exit_and_keep() -> None:
    """Connections of processes that have exited, which another process keeps."""
    kept: dict[int, socket.socket] = {}
    closed = select.poll()
    while True:
        connection = socket.socket(socket.AF_UNIX)
        pid = os.fork()
        if not pid:
            os._exit(connection.connect_ex(http2.SOCKET))
        os.waitpid(pid, 0)
        kept[connection.fileno()] = connection
        closed.register(connection, select.POLLRDHUP)
        with contextlib.suppress(OSError):
            connection.send(http2.opening())
        for descriptor, _ in closed.poll(1 if len(kept) < _MANY_UNIDENTIFIED else None):
            closed.unregister(descriptor)
            kept.pop(descriptor).close()


def held(
    first: bytes, connections: int = _MANY, *, half_closed: bool = False
) -> Callable[[], None]:
    """Return an attack that says only `first` on each connection, and keeps them."""
    return lambda: hold(first, connections, half_closed=half_closed)


def trickle(data: bytes, pause_seconds: float) -> Callable[[], None]:
    """Return an attack: 64 connections, each sent the bytes of `data` one by one, with a pause."""

    def trickling() -> None:
        flows: list[tuple[socket.socket, int]] = []
        while True:
            try:
                while len(flows) < 64:
                    flows.append((http2.connect(), 0))
            except OSError:
                pass
            left = []
            for connection, at in flows:
                try:
                    connection.send(data[at % len(data) :][:1])
                    left.append((connection, at + 1))
                except OSError:
                    connection.close()
            flows = left
            time.sleep(pause_seconds)

    return trickling


def open_streams(of_stream: bytes) -> bytes:
    """Return an opening and the headers of 64 calls, none of which ends; then a frame on each."""
    parts = [http2.opening()]
    headers = http2.request_headers("GetPod")
    for stream in range(1, 128, 2):
        parts.append(http2.header_frames(stream, headers))
        if of_stream:
            parts.append(http2.frame(http2.DATA, 0, stream, of_stream))
        headers = http2.REQUEST_AGAIN
    return b"".join(parts)


def leave_together() -> None:
    """64 connections that have asked and been answered, all closed at once; again and again."""
    asked = _question("GetPod")
    while True:
        held: list[socket.socket] = []
        try:
            while len(held) < 64:
                held.append(http2.connect())
                held[-1].sendall(asked)
            for connection in held:
                connection.recv(4096)
        except OSError:
            pass
        time.sleep(0.05)  # for the last words of all
        for connection in held:
            connection.close()


def watch_and_never_read() -> None:
    """1000 and more streams of Watch over 64 connections, with no window to answer through."""
    kept = []
    for _ in range(64):
        try:
            connection = http2.connect()
            connection.setblocking(False)
            connection.send(http2.opening(window=0))
            headers = http2.request_headers("Watch")
            for stream in range(1, 128, 2):
                connection.send(http2.request(stream, headers))
                headers = http2.REQUEST_AGAIN
            kept.append(connection)
        except OSError:
            pass
    while True:
        time.sleep(1)


CONNECTION_FLOODS: dict[str, Callable[[], None]] = {
    "connect-and-die": connect_and_die,
    "connect-ask-and-die": connect_ask_and_die,
    "fork-connect-and-die": fork_connect_and_die,
    "exit-and-keep": exit_and_keep,
    "thousands-silent": held(http2.PREFACE),
    "half-a-preface": held(http2.PREFACE[:10]),
    "half-a-frame-header": held(http2.opening() + b"\0\0"),
    "half-a-message": held(open_streams(http2.message(bytes(1000))[:100]), 64),
    "streams-never-end": held(open_streams(b""), 64),
    "half-closed": held(open_streams(b""), 64, half_closed=True),
    "slow-preface": trickle(http2.opening(), 1.0),
    "trickle": trickle(_CALL_HEADERS, 0.01),
    "leave-together": leave_together,
    "watch-never-read": watch_and_never_read,
}

if __name__ == "__main__":
    CONNECTION_FLOODS[sys.argv[1]]()
