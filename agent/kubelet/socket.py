"""Explains why a Unix socket of the kubelet cannot be used."""

from __future__ import annotations

import errno
import os
import socket
import stat
from dataclasses import dataclass

LOOK_AT_KUBELET = "Look at the kubelet and its log; the agent tries again."
Signature = tuple[int, int, int]
"""Device, inode and time of a socket's file. The inode alone may be used again."""


@dataclass(frozen=True, slots=True)
class KubeletSocket:
    """How to speak of a socket of the kubelet's: its name, the API in a sentence, its flag."""

    name: str
    api: str
    flag: str
    if_missing: str
    if_denied: str

    def explained(self, error: OSError) -> tuple[str, str]:
        """Return the sentence and the advice of a socket that cannot be connected to."""
        socket_name, look = f"The kubelet's {self.name} socket", f"Look at {self.flag}."
        match error.errno:
            case errno.ENOENT | errno.ENOTDIR:
                return f"{socket_name} does not exist.", self.if_missing
            case errno.EACCES | errno.EPERM:
                return f"The agent may not use the kubelet's {self.name} socket.", self.if_denied
            case errno.ECONNREFUSED:
                advice = "Look whether the kubelet runs; the agent tries again."
                return f"No process listens on the kubelet's {self.name} socket.", advice
            case errno.ENOTSOCK:
                return f"The path of the kubelet's {self.name} socket is no socket.", look
            case errno.EAGAIN:
                return f"The kubelet takes no connection to {self.api} now.", LOOK_AT_KUBELET
            case _:
                why = error.strerror or str(error)
                return f"{socket_name} cannot be connected to: {why}.", look


def socket_signature(path: str) -> Signature | None:
    """Return what changes when a socket is made again, None if there is none to be seen."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def connection_problem(path: str) -> OSError | None:
    """Return why connect(2) fails, None if it does not. Does not block: unix(7), EAGAIN."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            probe.connect(path)
    except OSError as error:
        return error.with_traceback(None)
    return None


def printable(said: str) -> str:
    """Return what a kubelet says of itself, on one line and cut short."""
    words = "".join(one if one.isprintable() else " " for one in said[:2000]).split()
    return " ".join(words)[:300].rstrip(".") or "it says no more"
