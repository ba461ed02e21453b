"""A Unix socket that another agent may take over, and that never follows a workload's path.

The directory is shared with pods. A new agent binds a temporary name and
renames it over the old socket, so there is never a moment without one; the old
agent removes the file, or binds it anew, only if it is still what it saw there (`place`).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from netutil.agent.door.place import (
    NOTHING,
    Inode,
    Replaced,
    inode_of,
    put,
    put_over,
    take_away,
    temporary_name,
)

_LOG = logging.getLogger(__name__)

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
"""An agent that starts beside this one may take a name not listened at yet for a dead agent's, and
a fresh name may be in use already."""
_AGAIN = (errno.ENOENT, errno.EADDRINUSE)

_MEANS = {
    errno.EBUSY: "something is mounted at its path: unmount that on the host and delete the"
    " agent's pod",
    errno.EPERM: "the kernel allows no change there: look for immutable entries"
    " (lsattr -d, chattr -i) and security modules",
    errno.EROFS: "its directory is mounted read-only: mount it writable for the agent",
    errno.ENOSPC: "its file system has no space or no inodes left (df, df -i)",
    errno.ENOTDIR: "its directory's path leads to something that is no directory",
}
"""What an errno of bind(2) or rename(2) means there, and what to do."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, the inode that it has at `path`, and what it takes to make another."""

    connection: socket.socket
    path: str
    inode: Inode
    mode: int
    directory_mode: int
    replaced: Replaced = NOTHING
    """What stood at `path` before."""

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


def _put_instead(instead_of: Inode | None, temporary: str, path: str) -> Replaced:
    replaced = take_away(path, instead_of) if instead_of is not None else None
    put(temporary, path)
    return replaced or NOTHING


def listen(
    path: str,
    *,
    mode: int,
    directory_mode: int,
    place: Callable[[str, str], Replaced] = put_over,
) -> Listener:
    """Return a non-blocking listener at `path`, taking over whatever socket stands there.

    A missing directory is made with `directory_mode`, whatever the umask; neither it nor
    those above it can be written by others. The socket is born with
    `mode`: no chmod follows, so nobody can slip another file in between. A link in its place is
    replaced and never followed. A directory is moved aside, and removed if it holds
    directories alone: the kubelet makes one for a pod that mounts the socket itself, or a
    `subPath` below it, before there is a socket. `place` gives the socket its name.
    Raises OSError that names the path and says what it means.
    """
    for left in reversed(range(_TRIES)):
        try:
            _make_directory(Path(path).parent, directory_mode)
            connection, inode, replaced = _bound(path, mode, place)
        except OSError as error:
            if not (left and error.errno in _AGAIN):
                why = _MEANS.get(error.errno or 0, error.strerror)
                raise OSError(error.errno, f"the socket cannot be made: {why}", path) from None
        else:
            _log_directory(path, replaced)
            return Listener(connection, path, inode, mode, directory_mode, replaced)
    raise AssertionError  # the last try returns or raises


def _log_directory(path: str, replaced: Replaced) -> None:
    if replaced.left_at:
        text = (
            "door: a directory stood at %s: moved to %s, and left there: it holds more than"
            " empty directories, or too many; remove it by hand"
        )
        _LOG.warning(text, path, replaced.left_at)
    elif replaced.directory:
        text = "door: a directory stood at %s: removed; a pod's subPath makes one there"
        _LOG.warning(text, path)


def _make_directory(directory: Path, mode: int) -> None:
    previous = os.umask(_NOT_FOR_OTHERS_TO_WRITE)
    try:
        directory.mkdir(mode=mode, parents=True, exist_ok=True)
    except FileExistsError:  # a file or a dangling link; not to be taken for another agent's work
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), directory) from None
    finally:
        os.umask(previous)


def _bound(
    path: str, mode: int, place: Callable[[str, str], Replaced]
) -> tuple[socket.socket, Inode, Replaced]:
    temporary = temporary_name(path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        previous = os.umask(0o777 & ~mode)
        try:
            connection.bind(temporary)
        finally:
            os.umask(previous)
        try:
            inode = inode_of(temporary)
            connection.listen(BACKLOG)
            replaced = place(temporary, path)
        except BaseException:
            # Not before: what stands there when bind(2) fails is not the agent's.
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except BaseException:
        connection.close()
        raise
    return connection, inode, replaced
