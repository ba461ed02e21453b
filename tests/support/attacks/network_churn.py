"""A network namespace at its worst.

`python -m tests.support.attacks.network_churn NAME` runs until it is killed.
The process leaves its pod's network for one of its own, in which it may do as it likes, and asks
about it without end over eight connections.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

from tests.support import http2

_CONNECTIONS, _CALLS_OF_CONNECTION = 8, 200
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000  # linux/sched.h
_SET_MTU, _ADD_BRIDGE = 0x8922, 0x89A0  # linux/sockios.h
_LINKS = 1000
_LIBC = ctypes.CDLL(None, use_errno=True)


def _leave_network() -> None:
    """Enter a new network namespace, in a user namespace where that takes one."""
    if _LIBC.unshare(_NEW_NETWORK) and _LIBC.unshare(_NEW_USER | _NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "unshare")


def _ask(method: str, calls: int) -> None:
    """Call so often, one call after the other, on a connection of its own."""
    with http2.connect() as connection:
        connection.settimeout(20)
        connection.sendall(http2.opening())
        headers = http2.request_headers(method)
        for stream in range(1, 2 * calls, 2):
            connection.sendall(http2.request(stream, headers))
            headers = http2.REQUEST_AGAIN
            while True:
                frame = http2.read_frame(connection)
                if frame.stream == stream and frame.flags & http2.END_STREAM:
                    break


def _ask_without_end(method: str) -> None:
    while True:
        try:
            _ask(method, _CALLS_OF_CONNECTION)
        except OSError:
            time.sleep(0.01)


def _ask_over_all() -> None:
    for _ in range(_CONNECTIONS):
        threading.Thread(target=_ask_without_end, args=("GetInterfaces",), daemon=True).start()


def changes() -> None:
    """Change the network all the time, and ask."""
    _leave_network()
    _ask_over_all()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as request:
        while True:
            for mtu in range(1300, 1500):
                fcntl.ioctl(request, _SET_MTU, struct.pack("16si12x", b"lo", mtu))


def links() -> None:
    """A thousand links, and ask."""
    _leave_network()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as request:
        for number in range(_LINKS):
            fcntl.ioctl(request, _ADD_BRIDGE, f"link{number}".encode() + b"\0")
    _ask_over_all()
    while True:
        time.sleep(1)


def moves() -> None:
    """Ask from a new network each time."""
    while True:
        _leave_network()
        try:
            _ask("GetInterfaces", 1)
        except OSError:
            time.sleep(0.001)


def asks_and_dies() -> None:
    """Ask once from a new process in a new network, and end."""
    while True:
        pid = os.fork()
        if not pid:
            _leave_network()
            try:
                _ask("GetInterfaces", 1)
            except OSError:
                pass
            os._exit(0)
        os.waitpid(pid, 0)


NETWORK_CHURN: dict[str, Callable[[], None]] = {
    "network-changes": changes,
    "network-links": links,
    "network-moves": moves,
    "network-asks-and-dies": asks_and_dies,
}

if __name__ == "__main__":
    NETWORK_CHURN[sys.argv[1]]()
