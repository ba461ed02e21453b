"""A Unix socket that another agent may take over, and that never follows a workload's path.

The directory is shared with pods. A new agent binds a temporary name and
renames it over the old socket, so there is never a moment without one; the old
agent removes the file only if it is still its own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

_BACKLOG = 4096
LONGEST_PATH = 107 - len(".12345678")
"""sun_path of unix(7) holds 108 bytes; the temporary name is longer than the final one."""

_NOT_FOR_OTHERS_TO_WRITE = 0o022


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket and the inode that it has at `path`."""

    connection: socket.socket
    path: str
    inode: tuple[int, int]

    def still_ours(self) -> bool:
        """Return whether `path` is still the socket that this listener bound."""
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self.inode

    def unlink_if_ours(self) -> None:
        """Remove the file, unless a newer agent has put its own socket there."""
        if self.still_ours():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)


def listen(path: str, *, mode: int, directory_mode: int) -> Listener:
    """Return a non-blocking listener at `path`, taking over whatever socket stands there.

    A missing directory is made with `directory_mode`, whatever the umask; neither it nor
    those above it can be written by others. The socket is born with
    `mode`: no chmod follows, so nobody can slip another file in between.
    Raises OSError.
    """
    directory = Path(path).parent
    previous = os.umask(_NOT_FOR_OTHERS_TO_WRITE)
    try:
        directory.mkdir(mode=directory_mode, parents=True, exist_ok=True)
    finally:
        os.umask(previous)
    temporary = f"{path}.{secrets.token_hex(4)}"
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        previous = os.umask(0o777 & ~mode)
        try:
            connection.bind(temporary)
        finally:
            os.umask(previous)
        status = os.lstat(temporary)
        connection.listen(_BACKLOG)
        os.rename(temporary, path)
    except BaseException:
        connection.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return Listener(connection, path, (status.st_dev, status.st_ino))
