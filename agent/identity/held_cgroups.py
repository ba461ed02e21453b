"""Cgroup directories whose owner is root, held open so that the check is cheap the next time.

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

The directories that hold pods' directories (a QoS class, mostly) are held as well. A new pod's is
opened relative to the one above it: that walks one component, and not once the whole path for each
directory that is checked.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

from netutil.agent.errors import is_resource_exhaustion

FileId = tuple[int, int]
"""Device and inode. kernfs gives no number twice (64 bits, fs/kernfs/dir.c)."""

MAX_HELD = 2048
"""Directories: of 2048 pods on cgroup v2, of 200 where cgroup v1 has ten hierarchies. Each keeps
two descriptors and 4.5 KiB in the kernel (the buffer of its reads): 9 MiB."""
MAX_PARENTS = 48
"""Directories above pods' own: three QoS classes in each of up to a dozen hierarchies. Each keeps
a descriptor more for each directory above it, mostly two."""
_PARENTS_SHARE = 8
_HELD_PER_PARENT = 2
"""A directory above pods' own takes the places of two: four descriptors."""
MAX_SWEPT = 64
"""Directories that one sweep looks at: a tenth of a millisecond. Sixty sweeps look at all."""
_ROOT_UID = 0
_OF_V2, _OF_V1 = "cgroup.controllers", "notify_on_release"
_FLAGS = os.O_RDONLY | os.O_CLOEXEC
_DIRECTORY_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class HeldCgroup:
    """One directory, and a file in it."""

    __slots__ = ("_above", "_descriptor", "_file", "_link", "_place", "number")

    def __init__(self, path: str, above: HeldCgroup | None = None) -> None:
        """Open what is at a path, or is named so in the directory `above`.

        Raises OSError, also for a directory that is no cgroup.
        """
        within: int | None = None if above is None else above._descriptor
        self._descriptor: int = os.open(path, _DIRECTORY_FLAGS, dir_fd=within)
        try:
            self._file, is_v1 = _open_any(self._descriptor)
        except OSError:
            os.close(self._descriptor)
            raise
        self._above: list[int] = []
        found = os.fstat(self._descriptor)
        self.number: FileId = found.st_dev, found.st_ino
        self._link = f"/proc/self/fd/{self._descriptor}" if is_v1 else None
        self._place = os.readlink(self._link) if self._link is not None else None

    def is_in_place(self) -> bool:
        """Return whether the cgroup was neither removed nor renamed. False if that is not known."""
        try:
            os.pread(self._file, 1, 0)
            return self._link is None or os.readlink(self._link) == self._place
        except OSError:
            return False

    def hold_above(self, levels: int) -> None:
        """Hold so many directories above it as well, for `is_roots`. Raises OSError.

        The directories above stay the same: a cgroup is never moved to another parent.
        """
        below = self._descriptor
        for _ in range(levels):
            below = os.open("..", _DIRECTORY_FLAGS, dir_fd=below)
            self._above.append(below)

    def is_roots(self) -> bool:
        """Return whether the directory belongs to root now, and those above that are held."""
        if os.fstat(self._descriptor).st_uid != _ROOT_UID:
            return False
        return not self._above or all(os.fstat(one).st_uid == _ROOT_UID for one in self._above)

    def was_in(self, above: HeldCgroup, name: str) -> bool:
        """Return whether the cgroup had that name in another when it was opened.

        On cgroup v2 nothing else can be: there is no rename(2).
        """
        return self._place is None or self._place == f"{above._place}/{name}"

    def close(self) -> None:
        """Close all descriptors."""
        for one in (self._file, self._descriptor, *self._above):
            os.close(one)


class HeldCgroups:
    """The held directories by path, the least recently used first out. For all threads.

    `len()` is without the directories above them. A look of a sweep (`age`) counts as a use.
    `checked_by_path` counts the checks that had to walk.
    """

    def __init__(self, max_held: int = MAX_HELD) -> None:
        self.max_held = max_held
        self._held: OrderedDict[str, HeldCgroup] = OrderedDict()
        self._parents: OrderedDict[str, HeldCgroup] = OrderedDict()
        self._lock = threading.Lock()
        self.checked_by_path = 0

    def __len__(self) -> int:
        return len(self._held)

    def has(self, path: str) -> bool:
        """Return whether what is at a path was found made by root, and is root's now."""
        with self._lock:
            return _valid(self._held, path) is not None

    def has_above(self, path: str) -> bool:
        """Return as `has` for the directory above the one at a path."""
        with self._lock:
            return _valid(self._parents, os.path.dirname(path)) is not None

    def hold_below(self, path: str) -> bool:
        """Hold what is at a path, if it is root's and the directory above it is held.

        Return whether it is held now. If not, `check` finds out what is wrong with it.
        """
        above, name = os.path.split(path)
        with self._lock:
            parent = _valid(self._parents, above)
            if parent is None or self.max_held <= 0:
                return False
            try:
                held = HeldCgroup(name, parent)
            except OSError:
                return False
            # In this order, as in `_valid`; then the directory above, as it was opened in that.
            if not (held.was_in(parent, name) and _is_valid(held) and _is_valid(parent)):
                held.close()
                return False
            self._hold(path, held)
        return True

    def hold_above(self, path: str, top: str, check: Callable[[], FileId]) -> None:
        """Hold the directory above the one at a path, with those above it up to `top`.

        `check` is as for `check`. Raises OSError.
        """
        above = os.path.dirname(path)
        held = self._open(above)
        try:
            if held is not None:
                held.hold_above(above.count("/") - top.count("/"))
            number = check()
            with self._lock:
                if held is not None and held.number == number and _is_valid(held):
                    most = min(MAX_PARENTS, self.max_held // _PARENTS_SHARE)
                    _put(self._parents, above, held, most)
                    held = None
        finally:
            if held is not None:
                held.close()

    def check(self, path: str, check: Callable[[], FileId]) -> None:
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
                    self._hold(path, held)
                    held = None
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
            for path, parent in tuple(self._parents.items()):
                if not parent.is_in_place():
                    del self._parents[path]
                    parent.close()

    def close(self) -> None:
        """Let all go."""
        with self._lock:
            for directories in (self._held, self._parents):
                while directories:
                    directories.popitem()[1].close()

    def _open(self, path: str) -> HeldCgroup | None:
        """Return a directory to be held, None if it cannot be."""
        if self.max_held <= 0:
            return None
        try:
            return HeldCgroup(path)
        except OSError as error:
            if is_resource_exhaustion(error):
                self.close()  # what is short may be what is held here
            return None

    def _hold(self, path: str, held: HeldCgroup) -> None:
        limit = self.max_held - _HELD_PER_PARENT * len(self._parents)
        _put(self._held, path, held, limit)


def _put(directories: OrderedDict[str, HeldCgroup], path: str, held: HeldCgroup, most: int) -> None:
    """Hold a directory; close the one that it replaces, and those past the limit."""
    replaced = directories.pop(path, None)
    if replaced is not None:
        replaced.close()
    directories[path] = held
    while len(directories) > most:
        directories.popitem(last=False)[1].close()


def _is_valid(held: HeldCgroup) -> bool:
    # In this order: what is there afterwards was there when its owner was read.
    return held.is_roots() and held.is_in_place()


def _valid(directories: OrderedDict[str, HeldCgroup], path: str) -> HeldCgroup | None:
    """Return the directory of a path if it is root's and there, and let it go if it is not."""
    held = directories.get(path)
    if held is None:
        return None
    if _is_valid(held):
        directories.move_to_end(path)
        return held
    del directories[path]
    held.close()
    return None


def _open_any(directory: int) -> tuple[int, bool]:
    """Return a descriptor of a file that each cgroup has, and whether that is cgroup v1's.

    Raises OSError if there is none.
    """
    with suppress(FileNotFoundError):
        return os.open(_OF_V2, _FLAGS, dir_fd=directory), False
    return os.open(_OF_V1, _FLAGS, dir_fd=directory), True
