"""Files of cgroupfs and sysfs that are opened once and read again for each answer.

Both file systems are kernfs, which produces the content of a file on each read at offset 0
(kernfs_seq_start and seq_read_iter in the kernel's fs/kernfs/file.c and fs/seq_file.c), so
pread(2) on a held descriptor shows what a reader that opens the file at that moment sees. Such a
read costs a tenth of walking the path, opening, reading and closing, and takes no lock of the file
system: only a mutex of the open file itself and an active reference of its node.

A file that was removed answers ENODEV for ever (kernfs_get_active fails), on cgroup v1 and v2. A
cgroup that is removed and made again under its name has other files, which are not these. So a
held file is never mistaken for another one.

Each open file that was read keeps a page in the kernel (seq_file's buffer, charged to the
agent's memory cgroup), so only files that an answer needs are opened.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from netutil.agent.facts.sysfs import BY_PATH, Files

T = TypeVar("T")
FileId = tuple[int, int]
"""Device and inode. kernfs gives no number twice (64 bits, fs/kernfs/dir.c)."""

_READ_BYTES = 4096
_MIN_COMPARED_BYTES = 256
"""Most files hold less; a buffer of up to 512 bytes comes from Python's own pools."""
_ROOT_INODE = 1
"""Of the root of a kernfs file system (kernfs_create_root): of a whole cgroup hierarchy."""
_MAX_ATTEMPTS = 6
"""Each finds one directory that lost a file; there may be one for each cgroup of a path."""
# In a cgroup that is not a root: on v2 and on v1. Reading them takes no lock.
_ALWAYS_THERE = ("cgroup.controllers", "notify_on_release")
_FLAGS = os.O_RDONLY | os.O_CLOEXEC


class HeldFileRemoved(Exception):
    """A held file was removed: its cgroup was, or its controller was turned off."""


class HeldDirectory:
    """An open directory and its files that were read. `users` share it."""

    __slots__ = ("_files", "descriptor", "identity", "is_root", "path", "users")

    def __init__(self, path: str) -> None:
        """Open it. Raises OSError."""
        self.path = path
        self.users = 0
        self._files: dict[str, int] = {}
        self.descriptor = os.open(path, _FLAGS | os.O_DIRECTORY)
        found = os.fstat(self.descriptor)
        self.identity: FileId = found.st_dev, found.st_ino
        self.is_root = found.st_ino == _ROOT_INODE

    def __len__(self) -> int:
        """Return how many descriptors it has open."""
        return 1 + len(self._files)

    def any_file(self) -> int | None:
        """Return the descriptor of a file of it, None if none was opened."""
        return next(iter(self._files.values()), None)

    def descriptor_of(self, name: str) -> int | None:
        """Return the descriptor of a file, None if it was not opened."""
        return self._files.get(name)

    def open(self, name: str) -> int:
        """Return the descriptor of a file. Raises OSError."""
        known = self._files.get(name)
        if known is None:
            known = self._files[name] = os.open(name, _FLAGS, dir_fd=self.descriptor)
        return known

    def close(self) -> None:
        """Close all descriptors."""
        for descriptor in (*self._files.values(), self.descriptor):
            os.close(descriptor)
        self._files.clear()
        self.descriptor = -1


class HeldDirectories:
    """The held directories by path. Directories above several containers are shared by them.

    `descriptors` counts what is open. For one thread.
    """

    def __init__(self) -> None:
        self._by_path: dict[str, HeldDirectory] = {}
        self.descriptors = 0

    def acquire(self, path: str) -> HeldDirectory:
        """Return the directory that is at a path now. Raises OSError if there is none."""
        held = self._by_path.get(path)
        if held is None or held.identity != identity_of(path):
            held = self._by_path[path] = HeldDirectory(path)
            self.descriptors += 1
        held.users += 1
        return held

    def read_open(self, path: str, name: str) -> bytes | None:
        """Return a file's content by the descriptor that is open for it, None if none is.

        Nothing is opened. None also for a file that was removed. Raises OSError.
        """
        held = self._by_path.get(path)
        descriptor = held.descriptor_of(name) if held is not None else None
        if descriptor is None:
            return None
        try:
            return _read(descriptor)
        except HeldFileRemoved:
            return None

    def open(self, held: HeldDirectory, name: str) -> int:
        """Return the descriptor of a file of a held directory. Raises OSError."""
        before = len(held)
        descriptor = held.open(name)
        self.descriptors += len(held) - before
        return descriptor

    def discard(self, held: HeldDirectory) -> None:
        """Let the next `acquire` open the path again: a file of this one was removed."""
        if self._by_path.get(held.path) is held:
            del self._by_path[held.path]

    def release(self, held: HeldDirectory) -> None:
        """Undo `acquire`; the last user's closes it."""
        held.users -= 1
        if held.users:
            return
        self.descriptors -= len(held)
        held.close()
        self.discard(held)


@dataclass(slots=True)
class _Look:
    """What a value was made from: files and their bytes, and what else decided.

    `absent` are files that were not there, by an open directory or by path. `counted` are
    directories and how many subdirectories they had: kernfs shows it as st_nlink, and one that
    came instead of another takes the files of that other away. `closed` is `HeldFiles.closed`.
    """

    closed: int = 0
    descriptors: list[int] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    absent: list[tuple[int | None, str]] = field(default_factory=list)
    counted: list[tuple[int, int]] = field(default_factory=list)
    most_bytes: int = _MIN_COMPARED_BYTES

    def note(self, descriptor: int, text: bytes) -> bytes:
        """Note what was read; return it."""
        self.descriptors.append(descriptor)
        self.texts.append(text)
        # One byte more than the text: a longer one is then seen to be another.
        self.most_bytes = max(self.most_bytes, len(text) + 1)
        return text

    def is_current(self) -> bool:
        """Return whether the same files hold the same now. Raises `HeldFileRemoved`."""
        most_bytes = self.most_bytes
        pread = os.pread
        try:
            texts = [pread(descriptor, most_bytes, 0) for descriptor in self.descriptors]
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise HeldFileRemoved from None
            return False
        return (
            texts == self.texts
            and not (self.absent and any(map(_has_appeared, self.absent)))
            and not (self.counted and any(map(_has_others, self.counted)))
        )


class HeldFiles:
    """The held files that one value or more are made from. `Files`, for one thread.

    `closed` counts how often all were closed: what was noted of descriptors before is void.
    """

    def __init__(self, directories: HeldDirectories) -> None:
        self._table = directories
        self._held: dict[str, HeldDirectory] = {}
        self._look = _Look()
        self.closed = 0

    def look(self) -> _Look:
        """Begin to note what is read."""
        self._look = _Look(self.closed)
        return self._look

    def has_removed(self) -> bool:
        """Return whether one of the open files was removed."""
        try:
            for held in self._held.values():
                descriptor = held.any_file()
                if descriptor is not None:
                    self._read(held, descriptor)
        except HeldFileRemoved:
            return True
        return False

    def close(self) -> None:
        """Let all go. What is read afterwards is opened again."""
        self.closed += 1
        held, self._held = self._held, {}
        for directory in held.values():
            self._table.release(directory)

    def read(self, directory: str, name: str) -> bytes:
        """Return the whole of a file. Raises `HeldFileRemoved`, OSError as open(2) and read(2)."""
        try:
            held = self._directory(directory)
        except FileNotFoundError:
            self._look.absent.append((None, f"{directory}/{name}"))
            raise
        try:
            descriptor = self._open(held, name)
        except FileNotFoundError:
            # What a hierarchy's root lacks it never gets (CFTYPE_NOT_ON_ROOT).
            if not held.is_root:
                self._look.absent.append((held.descriptor, name))
            raise
        return self._look.note(descriptor, self._read(held, descriptor))

    def names(self, directory: str) -> list[str]:
        """Return the names in a directory, as they are now."""
        return os.listdir(self._directory(directory).descriptor)

    def subdirectories(self, directory: str) -> list[str]:
        """Return the names in a directory, and note how many subdirectories it has."""
        try:
            descriptor = self._directory(directory).descriptor
        except FileNotFoundError:
            self._look.absent.append((None, directory))
            raise
        self._look.counted.append((descriptor, os.fstat(descriptor).st_nlink))
        return os.listdir(descriptor)

    def is_there(self, directory: str) -> bool:
        """Return whether a directory exists. Raises `HeldFileRemoved` if it is another now."""
        try:
            held = self._directory(directory)
        except FileNotFoundError:
            return False
        known = held.any_file()
        if known is not None:
            self._read(held, known)
            return True
        for name in _ALWAYS_THERE:
            with suppress(FileNotFoundError):
                descriptor = self._open(held, name)
                self._look.note(descriptor, self._read(held, descriptor))
                return True
        found = identity_of(directory)
        if found not in (None, held.identity):
            self._table.discard(held)
            raise HeldFileRemoved
        return found is not None

    def _directory(self, path: str) -> HeldDirectory:
        held = self._held.get(path)
        if held is None:
            held = self._held[path] = self._table.acquire(path)
        return held

    def _open(self, held: HeldDirectory, name: str) -> int:
        try:
            return self._table.open(held, name)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            self._table.discard(held)
            raise HeldFileRemoved from None

    def _read(self, held: HeldDirectory, descriptor: int) -> bytes:
        try:
            return _read(descriptor)
        except HeldFileRemoved:
            self._table.discard(held)
            raise


class HeldValue(Generic[T]):
    """A value that is made from held files, and kept while each of them holds the same bytes.

    `make` is given the `Files` to read, and is a function of what it reads alone. Equal values
    are the same object, so that what was made of one can be kept beside it.
    """

    __slots__ = ("_files", "_look", "_make", "_value")

    def __init__(self, files: HeldFiles, make: Callable[[Files], T]) -> None:
        self._files = files
        self._make = make
        self._look: _Look | None = None
        self._value: T | None = None

    def get(self) -> T:
        """Return the value as of now. Raises what `make` raises.

        Where files are removed again and again meanwhile, it is read by path instead.
        """
        try:
            look = self._look
            if look is not None and look.closed == self._files.closed and look.is_current():
                return self._value  # type: ignore[return-value]  # it is set with `_look`
        except HeldFileRemoved:
            self._files.close()
        self._look = None
        for _ in range(_MAX_ATTEMPTS):
            try:
                return self._made_again()
            except HeldFileRemoved:
                self._files.close()
        return self.by_path()

    def by_path(self) -> T:
        """Return the value as of now, with nothing held for it. Raises what `make` raises."""
        return self._make(BY_PATH)

    def _made_again(self) -> T:
        noted = self._files.look()
        made = self._make(self._files)
        if made != self._value or self._value is None:
            self._value = made
        # A value that no file is behind is made again each time: nothing would show a change.
        self._look = noted if noted.descriptors else None
        return self._value


def identity_of(path: str) -> FileId | None:
    """Return what is at a path, None if nothing is. Raises OSError for every other failure."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _read(descriptor: int) -> bytes:
    try:
        found = os.pread(descriptor, _READ_BYTES, 0)
        chunk = found
        while len(chunk) == _READ_BYTES:
            chunk = os.pread(descriptor, _READ_BYTES, len(found))
            found += chunk
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise HeldFileRemoved from None
        raise
    return found


def _has_appeared(absent: tuple[int | None, str]) -> bool:
    directory, name = absent
    try:
        os.stat(name, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _has_others(counted: tuple[int, int]) -> bool:
    descriptor, before = counted
    return os.fstat(descriptor).st_nlink != before
