"""What stands at a path, put there or taken away without ever harming what came meanwhile.

Two agents look after one path while one updates the other. Between a look at it and what follows,
the other may have put its own socket there. No lock could keep them apart: whatever both can lock
in the shared directory a pod can lock too. So nothing is replaced that was not looked at:
renameat2(2) puts in place only where nothing stands (RENAME_NOREPLACE), and what is to go away is
first renamed, which takes whatever stands there at that moment, and looked at afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import stat

Inode = tuple[int, int]
"""Device and number. A bound socket, or whoever has the file open, keeps the number from others."""

_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
# EINVAL: that file system cannot do it. What is left between a look and a rename is microseconds.
_CANNOT = (errno.EINVAL, errno.ENOSYS)


def temporary_name(path: str) -> str:
    """Return a fresh name beside `path`."""
    return f"{path}.{secrets.token_hex(4)}"


def inode_of(path: str) -> Inode:
    """Return what tells a file from others; of a link its own. Raises OSError."""
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def put(temporary: str, path: str) -> None:
    """Give a file its name, if nothing stands there. Raises FileExistsError, other OSErrors."""
    names = os.fsencode(temporary), _AT_FDCWD, os.fsencode(path)
    if _LIBC.renameat2(_AT_FDCWD, *names, _RENAME_NOREPLACE) == 0:
        return
    number = ctypes.get_errno()
    if number in _CANNOT and not os.path.lexists(path):
        os.rename(temporary, path)
        return
    raise OSError(errno.EEXIST if number in _CANNOT else number, os.strerror(number), path)


def take_away(path: str, expected: Inode) -> bool:
    """Remove what stands at `path`, if it is what was expected there; return whether it was.

    Whoever calls this holds what is expected, or its number may be another's by now. Anything
    else is put back, unless something newer stands there by then. Raises OSError, of a directory
    that is not empty for one.
    """
    aside = temporary_name(path)
    try:
        if inode_of(path) != expected:  # so that what is put back is next to never taken
            return False
        os.rename(path, aside)
    except FileNotFoundError:
        return False
    try:
        found = inode_of(aside) == expected
        if found:
            _remove(aside)
    except OSError:
        _put_back(aside, path)
        raise
    if not found:
        _put_back(aside, path)
    return found


def _put_back(aside: str, path: str) -> None:
    try:
        put(aside, path)
    except OSError:
        with contextlib.suppress(OSError):
            _remove(aside)


def _remove(path: str) -> None:
    if stat.S_ISDIR(os.lstat(path).st_mode):
        os.rmdir(path)
    else:
        os.unlink(path)
