"""What stands at a path, put there or taken away without ever harming what came meanwhile.

Two agents look after one path while one updates the other. Between a look at it and what follows,
the other may have put its own socket there. No lock could keep them apart: whatever both can lock
in the shared directory a pod can lock too. So nothing is replaced that was not looked at:
renameat2(2) puts in place only where nothing stands (RENAME_NOREPLACE), and what is to go away is
first renamed, which takes whatever stands there at that moment, and looked at afterwards.

A directory is moved aside, to a fresh name beside the path, and removed there if it holds
directories alone (`empty_tree`). Otherwise it stays under that name: nothing but a rename touches
what may be somebody's data. The name has to be in the same directory, since rename(2) crosses
neither file systems nor mounts, and the socket's directory is a mount in the agent's container.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import stat
from dataclasses import dataclass

from netutil.agent.door.empty_tree import remove_empty_tree

Inode = tuple[int, int]
"""Device and number. A bound socket, or whoever has the file open, keeps the number from others."""

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
# EINVAL: that file system cannot do it. What is left between a look and a rename is microseconds.
_CANNOT = (errno.EINVAL, errno.ENOSYS)


@dataclass(frozen=True, slots=True)
class Replaced:
    """What stood at a path before. `left_at` is where it lies now, "" if it is gone."""

    directory: bool = False
    left_at: str = ""


NOTHING = Replaced()


def temporary_name(path: str) -> str:
    """Return a fresh name beside `path`."""
    return f"{path}.{secrets.token_hex(4)}"


def inode_of(path: str) -> Inode:
    """Return what tells a file from others; of a link its own. Raises OSError."""
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def put(temporary: str, path: str) -> None:
    """Give a file its name, if nothing stands there. Raises FileExistsError, other OSErrors."""
    number = _renameat2(temporary, path, _RENAME_NOREPLACE)
    if number == 0:
        return
    if number in _CANNOT and not os.path.lexists(path):
        os.rename(temporary, path)
        return
    raise OSError(errno.EEXIST if number in _CANNOT else number, os.strerror(number), path)


def put_over(temporary: str, path: str) -> Replaced:
    """Give a file its name, whatever stands there; return what did. Raises OSError.

    There is no moment at which nothing stands at `path`, unless the file system has no
    RENAME_EXCHANGE. OSError: a mount stands there (EBUSY), it is immutable (EPERM), and others.
    """
    try:
        os.rename(temporary, path)
    except IsADirectoryError:
        pass
    else:
        return NOTHING
    number = _renameat2(temporary, path, _RENAME_EXCHANGE)
    if number == 0:
        return _discarded(temporary)
    if number not in _CANNOT:
        raise OSError(number, os.strerror(number), path)
    aside = temporary_name(path)
    put(path, aside)
    try:
        put(temporary, path)
    except OSError:
        _put_back(aside, path)
        raise
    return _discarded(aside)


def take_away(path: str, expected: Inode) -> Replaced | None:
    """Move away what stands at `path`, if it is what was expected there; None if it is not.

    It is removed, but for a directory that holds more than directories: that lies beside `path`
    then. Whoever calls this holds what is expected, or its number may be another's by now.
    Anything else is put back, unless something newer stands there by then. Raises OSError.
    """
    aside = temporary_name(path)
    try:
        if inode_of(path) != expected:  # so that what is put back is next to never taken
            return None
        put(path, aside)
    except FileNotFoundError:
        return None
    try:
        if inode_of(aside) == expected:
            return _discarded(aside)
    except OSError:
        _put_back(aside, path)
        raise
    _put_back(aside, path)
    return None


def _put_back(aside: str, path: str) -> None:
    try:
        put(aside, path)
    except OSError:
        with contextlib.suppress(OSError):
            _discarded(aside)


def _discarded(aside: str) -> Replaced:
    """Remove what was moved aside, or leave it there. Raises OSError of what is no directory."""
    if not stat.S_ISDIR(os.lstat(aside).st_mode):
        os.unlink(aside)
        return NOTHING
    return Replaced(directory=True, left_at="" if remove_empty_tree(aside) else aside)


def _renameat2(one: str, other: str, flag: int) -> int:
    """Return 0, or the errno."""
    names = os.fsencode(one), _AT_FDCWD, os.fsencode(other)
    if _LIBC.renameat2(_AT_FDCWD, *names, flag) == 0:
        return 0
    return ctypes.get_errno()
