"""Readers of kernel files (sysfs, procfs, cgroups), and a throttle of repeated readings."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from typing import Protocol

_READ_BYTES = 4096
"""A page, the largest size of a sysfs attribute (filesystems/sysfs.rst)."""
_PAUSE_SECONDS = 0.02


class Files(Protocol):
    """How the files of cgroupfs and sysfs are read: by path, or through held descriptors.

    Directories are absolute paths. Everything raises OSError as the system calls do.
    """

    def read(self, directory: str, name: str) -> bytes:
        """Return the whole of a file."""
        ...

    def names(self, directory: str) -> list[str]:
        """Return the names in a directory."""
        ...

    def subdirectories(self, directory: str) -> list[str]:
        """Return the names in a directory whose subdirectories decide what is read."""
        ...

    def is_there(self, directory: str) -> bool:
        """Return whether a directory still exists. Call it after reading its files."""
        ...


class _PathFiles:
    """Opens each file by its path, reads and closes it. For any thread."""

    def read(self, directory: str, name: str) -> bytes:
        return read_kernel_file(directory, name)

    def names(self, directory: str) -> list[str]:
        return os.listdir(directory)

    def subdirectories(self, directory: str) -> list[str]:
        return os.listdir(directory)

    def is_there(self, directory: str) -> bool:
        return os.path.isdir(directory)


BY_PATH: Files = _PathFiles()


def read_kernel_file(directory: str, name: str) -> bytes:
    """Return the whole of a file. Raises OSError as open(2) and read(2) do.

    Three system calls, and not the layers of `open`, which cost five times as much as the
    kernel's own work.
    """
    descriptor = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.read(descriptor, _READ_BYTES)
        while more := os.read(descriptor, _READ_BYTES):
            found += more
        return found
    finally:
        os.close(descriptor)


def text_if_there(
    directory: str, name: str, absent: Collection[int], files: Files = BY_PATH
) -> str | None:
    """Return a file's text, stripped; None if it is not there. Raises OSError."""
    try:
        return files.read(directory, name).decode("ascii").strip()
    except OSError as error:
        if error.errno in absent:
            return None
        raise


def names_if_there(directory: str, absent: Collection[int], files: Files = BY_PATH) -> list[str]:
    """Return the names in a directory, none if there is no such directory. Raises OSError."""
    try:
        return files.names(directory)
    except OSError as error:
        if error.errno in absent:
            return []
        raise


class ThrottledReader:
    """Calls `read` on the running loop when the descriptor is readable, 50 times a second at most.

    The first call comes at once. Close it before the descriptor.
    """

    __slots__ = ("_descriptor", "_loop", "_read", "_resuming")

    def __init__(self, descriptor: int, read: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._read = read
        self._resuming: asyncio.TimerHandle | None = None
        self._resume()

    def close(self) -> None:
        """Call no more."""
        if self._resuming is not None:
            self._resuming.cancel()
        self._loop.remove_reader(self._descriptor)

    def _resume(self) -> None:
        self._resuming = None
        self._loop.add_reader(self._descriptor, self._ready)

    def _ready(self) -> None:
        self._loop.remove_reader(self._descriptor)
        self._resuming = self._loop.call_later(_PAUSE_SECONDS, self._resume)
        self._read()
