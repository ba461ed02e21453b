"""Binds a Unix socket that another agent may take over, in a directory that pods share.

A new agent binds a temporary name and renames it over the old socket, so the path is never without
a socket. The old agent removes or rebinds the path only if the path still holds the file that the
old agent found there.

Two agents use one path during an update. Between a check of the path and the action that follows,
the other agent may have put its own socket there. No lock can prevent that: a pod could take any
lock in the shared directory, too. So no file is replaced unchecked: renameat2(2) moves a file into
place only where nothing exists (RENAME_NOREPLACE), and a file that is to be removed is first
renamed, which takes whatever is at the path at that moment, and checked afterwards.

A directory is moved to a fresh name beside the path, and removed there if it contains only
directories (`empty_tree`). Otherwise it stays under that name: nothing but a rename touches what
may be another owner's data. The name has to be in the same directory: rename(2) crosses neither
file systems nor mounts, and the directory of the socket is a mount in the agent's container.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import re
import secrets
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from netutil.agent.listener.empty_tree import remove_empty_tree
from netutil.agent.listener.passed_descriptors import refuse_descriptors

_LOG = logging.getLogger(__name__)

BACKLOG = 1024
"""Connections that the kernel queues: four of each of 250 pods, which all connect at once after a
restart. A client with a non-blocking connect(2), as every gRPC client has, gets EAGAIN from a full
queue and retries a second later."""
MAX_PATH_BYTES = 107 - len(".12345678")
"""sun_path of unix(7) holds 108 bytes; the temporary name is longer than the final one."""

_NOT_WRITABLE_BY_OTHERS = 0o022
_ATTEMPTS = 3
"""Another agent that starts at the same time may take a temporary name without a listener for one
of a dead agent, and a fresh name may already be in use."""
_RETRYABLE = (errno.ENOENT, errno.EADDRINUSE)
_TEMPORARY_SUFFIX = re.compile(r"\.[0-9a-f]{8}")

_CAUSES = {
    errno.EBUSY: "something is mounted at its path: unmount that on the host and delete the"
    " agent's pod",
    errno.EPERM: "the kernel allows no change there: check for immutable entries"
    " (lsattr -d, chattr -i) and security modules",
    errno.EROFS: "its directory is mounted read-only: mount it writable for the agent",
    errno.ENOSPC: "its file system has no space or no inodes left (df, df -i)",
    errno.ENOTDIR: "a component of its directory's path is not a directory",
}
"""Cause and fix for an errno of bind(2), mkdir(2) or rename(2)."""

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
# EINVAL: the file system does not support the flag. The fallbacks check and rename in two steps,
# which leaves a window of microseconds.
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS)


class FileId(NamedTuple):
    """Identifies a file. While a socket is bound to it or it is open, its inode is not reused."""

    device: int
    inode: int


@dataclass(frozen=True, slots=True)
class Replaced:
    """What was at a path before. `moved_to` is where a directory is now, "" if it was removed."""

    directory: bool = False
    moved_to: str = ""


NOTHING_REPLACED = Replaced()


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, the file that it has at `path`, and the parameters to rebind it."""

    connection: socket.socket
    path: str
    file_id: FileId
    mode: int
    directory_mode: int
    replaced: Replaced = NOTHING_REPLACED
    """What was at `path` before."""

    def set_backlog(self, backlog: int) -> None:
        """Change how many connections the kernel queues; queued ones stay queued (listen(2))."""
        self.connection.listen(backlog)

    def still_ours(self) -> bool:
        """Return whether `path` is still the socket that this listener bound."""
        try:
            return file_id(self.path) == self.file_id
        except OSError:
            return False

    def unlink_if_ours(self) -> None:
        """Remove the file, unless a newer agent has put its own socket there.

        A file that cannot be removed is left: connect(2) to it fails from now on.
        """
        with contextlib.suppress(OSError):
            remove_if_unchanged(self.path, self.file_id)

    def rebind(self, *, replacing: FileId | None) -> Listener:
        """Return another listener at the same path, in place of the file that was found there.

        `replacing` is that file, None if there was none. Raises FileExistsError if something else
        is there by now, and other OSErrors.
        """
        return listen(
            self.path,
            mode=self.mode,
            directory_mode=self.directory_mode,
            rename=partial(_replace_if_unchanged, replacing),
        )


def _replace_if_unchanged(expected: FileId | None, temporary: str, path: str) -> Replaced:
    replaced = remove_if_unchanged(path, expected) if expected is not None else None
    rename_noreplace(temporary, path)
    return replaced or NOTHING_REPLACED


def listen(
    path: str,
    *,
    mode: int,
    directory_mode: int,
    rename: Callable[[str, str], Replaced] | None = None,
) -> Listener:
    """Return a non-blocking listener at `path` that replaces whatever is there.

    A missing directory is created with `directory_mode`, whatever the umask; neither it nor its
    missing parents are writable by others. The socket file is created with `mode`: there is no
    chmod afterwards, during which another file could be put in its place. A symbolic link at
    `path` is replaced and never followed. A directory at `path` is moved to another name, and
    removed if it contains only directories: the kubelet creates one for a pod that mounts the
    socket itself, or a `subPath` below it, before there is a socket. `rename` moves the socket
    from its temporary name to `path`, `rename_over` by default.
    Raises OSError with the path, the cause and the fix.
    """
    rename = rename or rename_over
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            _make_directory(Path(path).parent, directory_mode)
            connection, bound, replaced = _bind(path, mode, rename)
        except OSError as error:
            if not (attempts_left and error.errno in _RETRYABLE):
                cause = _CAUSES.get(error.errno or 0, error.strerror)
                text = f"cannot create the socket: {cause}"
                raise OSError(error.errno, text, path) from None
        else:
            _log_replaced_directory(path, replaced)
            return Listener(connection, path, bound, mode, directory_mode, replaced)
    raise AssertionError  # the last attempt returns or raises


def _log_replaced_directory(path: str, replaced: Replaced) -> None:
    if replaced.moved_to:
        text = (
            "listener: moved a directory at %s to %s and left it there: it contains more than"
            " empty directories, or too many; remove it by hand"
        )
        _LOG.warning(text, path, replaced.moved_to)
    elif replaced.directory:
        text = "listener: removed a directory at %s; a pod's subPath creates one there"
        _LOG.warning(text, path)


def _make_directory(directory: Path, mode: int) -> None:
    previous = os.umask(_NOT_WRITABLE_BY_OTHERS)
    try:
        directory.mkdir(mode=mode, parents=True, exist_ok=True)
    except FileExistsError:
        # A file or a dangling link. FileExistsError would mean that another agent was faster.
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), directory) from None
    finally:
        os.umask(previous)


def _bind(
    path: str, mode: int, rename: Callable[[str, str], Replaced]
) -> tuple[socket.socket, FileId, Replaced]:
    temporary = temporary_name(path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        refuse_descriptors(connection)
        previous = os.umask(0o777 & ~mode)
        try:
            connection.bind(temporary)
        finally:
            os.umask(previous)
        try:
            bound = file_id(temporary)
            connection.listen(BACKLOG)
            replaced = rename(temporary, path)
        except BaseException:
            # Only after bind(2): if bind(2) fails, the file at that name is not the agent's.
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except BaseException:
        connection.close()
        raise
    return connection, bound, replaced


def temporary_name(path: str) -> str:
    """Return a fresh name beside `path`."""
    return f"{path}.{secrets.token_hex(4)}"


def is_temporary_name(name: str, socket_name: str) -> bool:
    """Return whether a file name is one that `temporary_name` makes for `socket_name`."""
    if not name.startswith(socket_name):
        return False
    return _TEMPORARY_SUFFIX.fullmatch(name.removeprefix(socket_name)) is not None


def file_id(path: str) -> FileId:
    """Return the identity of a file; for a link that of the link itself. Raises OSError."""
    status = os.lstat(path)
    return FileId(status.st_dev, status.st_ino)


def rename_noreplace(temporary: str, path: str) -> None:
    """Rename a file, if nothing exists at `path`. Raises FileExistsError, other OSErrors."""
    number = _renameat2(temporary, path, _RENAME_NOREPLACE)
    if number == 0:
        return
    if number in _UNSUPPORTED and not os.path.lexists(path):
        os.rename(temporary, path)
        return
    raise OSError(errno.EEXIST if number in _UNSUPPORTED else number, os.strerror(number), path)


def rename_over(temporary: str, path: str) -> Replaced:
    """Rename a file over whatever exists at `path`, also a directory; return what was there.

    `path` exists at every moment, unless a directory is there and the file system has no
    RENAME_EXCHANGE. Raises OSError: EBUSY for a mount point, EPERM for an immutable entry, and
    others.
    """
    try:
        os.rename(temporary, path)
    except IsADirectoryError:
        pass
    else:
        return NOTHING_REPLACED
    number = _renameat2(temporary, path, _RENAME_EXCHANGE)
    if number == 0:
        return _discard(temporary)
    if number not in _UNSUPPORTED:
        raise OSError(number, os.strerror(number), path)
    aside = temporary_name(path)
    rename_noreplace(path, aside)
    try:
        rename_noreplace(temporary, path)
    except OSError:
        _restore(aside, path)
        raise
    return _discard(aside)


def remove_if_unchanged(path: str, expected: FileId) -> Replaced | None:
    """Remove the file at `path` if it is the expected one; return None if it is not.

    A directory that contains more than directories is not removed but moved to a name beside
    `path`. The caller must keep the expected file bound or open, since its inode could otherwise
    have been reused. Any other file is put back, unless something newer is at `path` by then.
    Raises OSError.
    """
    aside = temporary_name(path)
    try:
        if file_id(path) != expected:  # makes it very rare that a file has to be put back
            return None
        rename_noreplace(path, aside)
    except FileNotFoundError:
        return None
    try:
        if file_id(aside) == expected:
            return _discard(aside)
    except OSError:
        _restore(aside, path)
        raise
    _restore(aside, path)
    return None


def _restore(aside: str, path: str) -> None:
    try:
        rename_noreplace(aside, path)
    except OSError:
        with contextlib.suppress(OSError):
            _discard(aside)


def _discard(aside: str) -> Replaced:
    """Remove what was moved aside, or leave a directory that has content. Raises OSError."""
    if not stat.S_ISDIR(os.lstat(aside).st_mode):
        os.unlink(aside)
        return NOTHING_REPLACED
    return Replaced(directory=True, moved_to="" if remove_empty_tree(aside) else aside)


def _renameat2(source: str, target: str, flag: int) -> int:
    """Return 0, or the errno."""
    names = os.fsencode(source), _AT_FDCWD, os.fsencode(target)
    if _LIBC.renameat2(_AT_FDCWD, *names, flag) == 0:
        return 0
    return ctypes.get_errno()
