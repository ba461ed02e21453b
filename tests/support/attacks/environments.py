"""Environments that are dear to read or to hold.

`python -m tests.support.attacks.environments NAME` is one of them.
Each asks for its own environment as fast as it is answered, until it is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count

from tests.support import http2
from tests.support.attacks.sender import flood
from tests.support.moved_environment import MOVE

_CONNECTIONS = 16
_PR_SET_PDEATHSIG = 1
_LARGE_BYTES = 100 * 1024 * 1024
_HELD_BYTES = 60 * 1024
"""As large as an environment may be that the agent holds, nearly."""
_EXECUTE = """V=$((V + 1)); export V; exec sh -c "$0" "$0\""""
"""A shell that executes itself without end, each time with another environment."""


def _asking() -> Iterator[bytes]:
    """Say what one connection sends: calls of GetEnv without end."""
    yield http2.opening() + http2.request(1, http2.request_headers("GetEnv"))
    for stream in count(3, 2):
        yield http2.request(stream, http2.REQUEST_AGAIN)


def execute_in_a_loop() -> None:
    """Connect, let a child ask over the connections, and execute one program after the other."""
    connections = [_connected() for _ in range(_CONNECTIONS)]
    if os.fork():
        large = {"PATH": "/usr/bin:/bin", "LARGE": "x" * (_HELD_BYTES // 2)}
        os.execvpe("sh", ["sh", "-c", _EXECUTE, _EXECUTE], large)  # noqa: S606 - no shell
    _end_with_parent()
    _ask_for_ever(connections)


def _end_with_parent() -> None:
    """Have the kernel kill this process when the one that forked it is killed (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _connected() -> socket.socket:
    while True:
        try:
            return http2.connect()
        except OSError:
            time.sleep(0.01)


def _ask_for_ever(connections: list[socket.socket]) -> None:
    """Ask over connections that another process has made, which can not be made again."""
    flows = [(connection, _asking()) for connection in connections]
    for connection in connections:
        connection.setblocking(False)
    while True:
        for connection, blocks in flows:
            try:
                connection.send(next(blocks))
            except OSError:
                pass
            try:
                connection.recv(1024 * 1024)
            except OSError:
                pass
        time.sleep(0.001)


def move_a_large_one() -> None:
    """Have an environment of a hundred megabytes, of which the agent reads what it would read."""
    names = {"ctypes": ctypes, "libc": ctypes.CDLL(None, use_errno=True), "SIZE": _LARGE_BYTES}
    exec(MOVE, names)  # noqa: S102 - the test's own
    flood(_asking, _CONNECTIONS)


def many_processes() -> None:
    """Ask from many processes, each with an environment that is as large as one may be held."""
    for number in range(_CONNECTIONS * 4 - 1):
        if not os.fork():
            large = {**os.environ, "LARGE": str(number) + "x" * (_HELD_BYTES // 2)}
            _end_with_parent()
            command = [sys.executable, "-S", "-m", __spec__.name, "ask"]
            os.execve(sys.executable, command, large)  # noqa: S606 - no shell
    flood(_asking, 1)


ENVIRONMENTS: dict[str, Callable[[], None]] = {
    "execute-in-a-loop": execute_in_a_loop,
    "move-a-large-environment": move_a_large_one,
    "many-environments": many_processes,
}

if __name__ == "__main__":
    if sys.argv[1] == "ask":
        flood(_asking, 1)
    ENVIRONMENTS[sys.argv[1]]()
