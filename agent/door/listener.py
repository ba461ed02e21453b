"""A Unix socket that another agent may take over, and that never follows a workload's path.

The directory is shared with pods. A new agent binds a temporary name and
renames it over the old socket, so there is never a moment without one; the old
agent removes the file, or binds it anew, only if it is still what it saw there (`place`).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from netutil.agent.door.place import Inode, inode_of, put, take_away, temporary_name

BACKLOG = 1024
"""Connections that the kernel queues: four of each of 250 pods, which all connect at once after a
restart. Who does not wait in connect(2), as no gRPC client does, gets EAGAIN of a full queue and
comes again a second later."""
BACKLOG_IN_FLOOD = 64
"""Whoever connects stands behind all: with 256 places that one pod kept full a new connection took
3 to 6 times the quiet time (make hostile)."""
LONGEST_PATH = 107 - len(".12345678")
"""sun_path of unix(7) holds 108 bytes; the temporary name is longer than the final one."""

_NOT_FOR_OTHERS_TO_WRITE = 0o022
_TRIES = 3
"""An agent that starts beside this one may take a name not listened at yet for a dead agent's."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, the inode that it has at `path`, and what it takes to make another."""

    connection: socket.socket
    path: str
    inode: Inode
    mode: int
    directory_mode: int

    def queue(self, backlog: int) -> None:
        """Let the kernel queue so many from now on; those who are queued stay (listen(2))."""
        self.connection.listen(backlog)

    def still_ours(self) -> bool:
        """Return whether `path` is still the socket that this listener bound."""
        try:
            return inode_of(self.path) == self.inode
        except OSError:
            return False

    def unlink_if_ours(self) -> None:
        """Remove the file, unless a newer agent has put its own socket there.

        A file that cannot be removed is left: nobody listens there any more.
        """
        if self.still_ours():
            with contextlib.suppress(OSError):
                take_away(self.path, self.inode)

    def anew(self, instead_of: Inode | None) -> Listener:
        """Return another listener at the same path, for what was seen there; None for nothing.

        Raises FileExistsError if something else stands there by now, other OSErrors.
        """
        return listen(
            self.path,
            mode=self.mode,
            directory_mode=self.directory_mode,
            place=partial(_put_instead, instead_of),
        )


def _take_over(temporary: str, path: str) -> None:
    try:
        os.rename(temporary, path)
    except IsADirectoryError:
        os.rmdir(path)
        os.rename(temporary, path)


def _put_instead(instead_of: Inode | None, temporary: str, path: str) -> None:
    if instead_of is not None:
        take_away(path, instead_of)
    put(temporary, path)


def listen(
    path: str,
    *,
    mode: int,
    directory_mode: int,
    place: Callable[[str, str], None] = _take_over,
) -> Listener:
    """Return a non-blocking listener at `path`, taking over whatever socket stands there.

    A missing directory is made with `directory_mode`, whatever the umask; neither it nor
    those above it can be written by others. The socket is born with
    `mode`: no chmod follows, so nobody can slip another file in between. A link in its place is
    replaced and never followed, an empty directory too: a runtime makes one for a pod that
    mounts the socket itself before there is one. `place` gives the socket its name.
    Raises OSError that names the path.
    """
    for left in reversed(range(_TRIES)):
        try:
            _make_directory(Path(path).parent, directory_mode)
            connection, inode = _bound(path, mode, place)
        except OSError as error:
            if not (left and isinstance(error, FileNotFoundError)):
                why = f"the socket cannot be made: {error.strerror}"
                raise OSError(error.errno, why, path) from None
        else:
            return Listener(connection, path, inode, mode, directory_mode)
    raise AssertionError  # the last try returns or raises


def _make_directory(directory: Path, mode: int) -> None:
    previous = os.umask(_NOT_FOR_OTHERS_TO_WRITE)
    try:
        directory.mkdir(mode=mode, parents=True, exist_ok=True)
    finally:
        os.umask(previous)


def _bound(path: str, mode: int, place: Callable[[str, str], None]) -> tuple[socket.socket, Inode]:
    temporary = temporary_name(path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        previous = os.umask(0o777 & ~mode)
        try:
            connection.bind(temporary)
        finally:
            os.umask(previous)
        inode = inode_of(temporary)
        connection.listen(BACKLOG)
        place(temporary, path)
    except BaseException:
        connection.close()
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return connection, inode
