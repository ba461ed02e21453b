"""Removes a tree of directories that holds nothing else, by descriptors alone.

The kubelet makes such trees: for a `subPath` it makes every missing directory of the path on the
host, as root (kubernetes pkg/volume/util/subpath, SafeMakeDir). Nothing but rmdir(2) is called, so
no file can be lost, whatever a workload does to the tree meanwhile. A tree that holds anything
else, is too deep or too large, or reaches into another mount stays.
"""

from __future__ import annotations

import contextlib
import os
import re
from itertools import islice
from pathlib import Path

MAX_DEPTH = 32
"""Levels below the tree's top. Each level that is open costs one descriptor."""
MAX_DIRECTORIES = 64
"""Directories of one tree. They are removed on the event loop: 64 take some 5 milliseconds."""

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOUNT = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)


def remove_empty_tree(path: str) -> bool:
    """Remove the directory at `path` and those below it; return whether all are gone.

    Removes only directories of the agent's own user, on the mount of the parent directory.
    Follows no link. Returns False for what is no directory and for whatever cannot be removed.
    """
    parent, name = os.path.split(path)
    try:
        above = os.open(parent or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _Removal(_mount_of(above)).remove(above, name, MAX_DEPTH)
    except OSError:
        return False
    finally:
        os.close(above)


class _Removal:
    """One removal: on one mount, of at most `MAX_DIRECTORIES`."""

    def __init__(self, mount: str) -> None:
        self._mount = mount
        self._left = MAX_DIRECTORIES

    def remove(self, above: int, name: str, levels: int) -> bool:
        """Remove one directory of an open one, with `levels` below it. Raises OSError."""
        if self._left == 0 or levels < 0:
            return False
        self._left -= 1
        try:
            directory = os.open(name, _OPEN, dir_fd=above)
        except FileNotFoundError:  # another agent removes the same tree
            return True
        try:
            # A directory on which the agent sees something else mounted is somebody else's tree. A
            # mount in another mount namespace is not seen: rmdir(2) detaches it there.
            if _mount_of(directory) != self._mount or os.fstat(directory).st_uid != os.geteuid():
                return False
            with os.scandir(directory) as found:
                names = [entry.name for entry in islice(found, self._left + 1)]
            if not all(self.remove(directory, below, levels - 1) for below in names):
                return False
        finally:
            os.close(directory)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(name, dir_fd=above)
        return True


def _mount_of(directory: int) -> str:
    """Return the id of the mount that a descriptor is on (proc(5), fdinfo). Raises OSError."""
    text = Path(f"/proc/self/fdinfo/{directory}").read_text(encoding="ascii")
    found = _MOUNT.search(text)
    return found[1] if found is not None else ""
