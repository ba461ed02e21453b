"""Cgroup directories that were found made by root, held open so that this is seen again cheaply.

A walk of a path in cgroupfs takes `kernfs_rwsem` for each component (kernfs_dop_revalidate,
fs/kernfs/dir.c), which each mkdir and rmdir of a cgroup takes for writing, once for each of
its files: a pod that may make cgroups makes every walk wait. What is asked of a held directory
does not walk:

- It is still there, and so still at its path: a read of a file in it succeeds. One of a removed
  cgroup answers ENODEV for ever (kernfs_get_active fails). The files show bits of the cgroup
  without a lock (`cgroup_controllers_show`, `cgroup_read_notify_on_release`).
- It is still root's: fstat(2). That takes `kernfs_iattr_rwsem`, which is held for writing while
  two times are set (6.6; older kernels take `kernfs_rwsem` or `kernfs_mutex` once).

- On cgroup v1, it was not renamed: the link in /proc/self/fd says the same (d_path, which takes
  no lock of kernfs). Cgroup v2 has no rename(2) (kernfs_iop_rename, EPERM).

So it is what its path names, and all above it are the same as when they were checked: a cgroup is
never moved to another parent, and one with children cannot be removed.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

from netutil.agent.errors import is_shortage

Directory = tuple[int, int]
"""Device and inode. kernfs gives no number twice (64 bits, fs/kernfs/dir.c)."""

MAX_HELD = 2048
"""Directories: of 2048 pods on cgroup v2, of 200 where cgroup v1 has ten hierarchies. Each keeps
two descriptors and 4.5 KiB in the kernel (the buffer of its reads): 9 MiB."""
MAX_SWEPT = 64
"""Directories that one sweep looks at: a tenth of a millisecond. Sixty sweeps look at all."""
_ROOT_UID = 0
_OF_V2, _OF_V1 = "cgroup.controllers", "notify_on_release"
_FLAGS = os.O_RDONLY | os.O_CLOEXEC
_DIRECTORY_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class HeldCgroup:
    """One directory, and a file in it."""

    __slots__ = ("_descriptor", "_file", "_link", "_place", "number")

    def __init__(self, path: str) -> None:
        """Open what is at a path. Raises OSError, also for a directory that is no cgroup."""
        self._descriptor = os.open(path, _DIRECTORY_FLAGS)
        try:
            self._file, is_v1 = _open_any(self._descriptor)
        except OSError:
            os.close(self._descriptor)
            raise
        found = os.fstat(self._descriptor)
        self.number: Directory = found.st_dev, found.st_ino
        self._link = f"/proc/self/fd/{self._descriptor}" if is_v1 else None
        self._place = os.readlink(self._link) if self._link is not None else None

    def is_in_place(self) -> bool:
        """Return whether the cgroup was neither removed nor renamed. False if nothing tells."""
        try:
            os.pread(self._file, 1, 0)
            return self._link is None or os.readlink(self._link) == self._place
        except OSError:
            return False

    def is_roots(self) -> bool:
        """Return whether the directory belongs to root now."""
        return os.fstat(self._descriptor).st_uid == _ROOT_UID

    def close(self) -> None:
        """Close both descriptors."""
        os.close(self._file)
        os.close(self._descriptor)


class HeldCgroups:
    """The held directories by path, the least recently used first out. For all threads.

    A look of a sweep (`age`) counts as a use. `checked_by_path` counts the checks that had to walk.
    """

    def __init__(self, max_held: int = MAX_HELD) -> None:
        self.max_held = max_held
        self._held: OrderedDict[str, HeldCgroup] = OrderedDict()
        self._lock = threading.Lock()
        self.checked_by_path = 0

    def __len__(self) -> int:
        return len(self._held)

    def has(self, path: str) -> bool:
        """Return whether what is at a path was found made by root, and is root's now."""
        with self._lock:
            held = self._held.get(path)
            if held is None:
                return False
            # In this order: what is there afterwards was there when its owner was read.
            if held.is_roots() and held.is_in_place():
                self._held.move_to_end(path)
                return True
            del self._held[path]
            held.close()
            return False

    def check(self, path: str, check: Callable[[], Directory]) -> None:
        """Check a directory by path, and hold it if it is the same before and after.

        `check` returns what it found at the path, and raises where root did not make it. Its
        errors are raised.
        """
        held = self._open(path)
        try:
            number = check()
            with self._lock:
                self.checked_by_path += 1
                if held is not None and held.number == number and held.is_in_place():
                    held = self._hold(path, held)
        finally:
            if held is not None:
                held.close()

    def age(self) -> None:
        """Let those that were removed or renamed go, among the `MAX_SWEPT` least recently used.

        The others become the most recently used, so that the next sweep looks at other ones.
        """
        with self._lock:
            for path in tuple(islice(self._held, MAX_SWEPT)):
                held = self._held[path]
                if held.is_in_place():
                    self._held.move_to_end(path)
                    continue
                del self._held[path]
                held.close()

    def close(self) -> None:
        """Let all go."""
        with self._lock:
            while self._held:
                self._held.popitem()[1].close()

    def _open(self, path: str) -> HeldCgroup | None:
        """Return a directory to be held, None if it cannot be."""
        if self.max_held <= 0:
            return None
        try:
            return HeldCgroup(path)
        except OSError as error:
            if is_shortage(error):
                self.close()  # what is short may be what is held here
            return None

    def _hold(self, path: str, held: HeldCgroup) -> HeldCgroup | None:
        """Hold a directory; return the one that it replaces, or that there is no room for."""
        replaced = self._held.pop(path, None)
        self._held[path] = held
        if replaced is not None:
            return replaced
        if len(self._held) > self.max_held:
            return self._held.popitem(last=False)[1]
        return None


def _open_any(directory: int) -> tuple[int, bool]:
    """Return a descriptor of a file that each cgroup has, and whether that is cgroup v1's.

    Raises OSError if there is none.
    """
    with suppress(FileNotFoundError):
        return os.open(_OF_V2, _FLAGS, dir_fd=directory), False
    return os.open(_OF_V1, _FLAGS, dir_fd=directory), True
