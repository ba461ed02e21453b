"""Removes a directory tree that contains only directories, by file descriptors.

The kubelet creates such trees: for a `subPath` it creates every missing directory of the path on
the host, as root (kubernetes pkg/volume/util/subpath, SafeMakeDir). Only rmdir(2) is called, so no
file can be lost, whatever a workload does to the tree meanwhile. A tree that contains anything
else, is too deep or too large, or reaches into another mount is left.
"""

from __future__ import annotations

import contextlib
import os
import re
from itertools import islice
from pathlib import Path

MAX_DEPTH = 32
"""Levels below the top of the tree. Each open level costs one descriptor."""
MAX_DIRECTORIES = 64
"""Directories in one tree. Their removal blocks the event loop: 64 take some 5 milliseconds."""

_OPEN_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOUNT_ID = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)


def remove_empty_tree(path: str) -> bool:
    """Remove the directory at `path` and those below it; return whether all are removed.

    Removes only directories of the agent's own user, on the mount of the parent directory. Follows
    no link. Returns False for a file of another type and for a tree that cannot be removed, True
    if `path` does not exist.
    """
    parent, name = os.path.split(path)
    try:
        parent_fd = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _Removal(_mount_id(parent_fd)).remove(parent_fd, name, MAX_DEPTH)
    except OSError:
        return False
    finally:
        os.close(parent_fd)


class _Removal:
    """One removal: on one mount, of at most `MAX_DIRECTORIES`."""

    def __init__(self, mount_id: str) -> None:
        self._mount_id = mount_id
        self._remaining = MAX_DIRECTORIES

    def remove(self, parent_fd: int, name: str, max_depth: int) -> bool:
        """Remove a subdirectory and at most `max_depth` levels below it. Raises OSError."""
        if self._remaining == 0 or max_depth < 0:
            return False
        self._remaining -= 1
        try:
            directory = os.open(name, _OPEN_FLAGS, dir_fd=parent_fd)
        except FileNotFoundError:  # another agent removes the same tree
            return True
        try:
            # A directory that is a mount point for the agent shows another owner's tree. A mount
            # in another mount namespace does not show here: rmdir(2) detaches it there.
            same_mount = _mount_id(directory) == self._mount_id
            if not same_mount or os.fstat(directory).st_uid != os.geteuid():
                return False
            with os.scandir(directory) as entries:
                names = [entry.name for entry in islice(entries, self._remaining + 1)]
            if not all(self.remove(directory, child, max_depth - 1) for child in names):
                return False
        finally:
            os.close(directory)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(name, dir_fd=parent_fd)
        return True


def _mount_id(descriptor: int) -> str:
    """Return the id of the mount of an open directory (proc(5), fdinfo). Raises OSError."""
    text = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
    found = _MOUNT_ID.search(text)
    return found[1] if found is not None else ""
