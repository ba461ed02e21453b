"""The private directory of the gRPC server behind the door."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from netutil.agent.listener.stale import PRIVATE_DIRECTORY_PREFIX, remove_private_directories


@contextlib.contextmanager
def private_directory() -> Iterator[Path]:
    """Hold a new directory of mode 0700 within the block; remove it, and those of the dead.

    Raises OSError.
    """
    remove_private_directories(tempfile.gettempdir())
    directory, lock = _locked_directory()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _locked_directory() -> tuple[Path, int]:
    while True:
        directory = Path(tempfile.mkdtemp(prefix=PRIVATE_DIRECTORY_PREFIX))
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:
                return directory, lock
        os.close(lock)  # another agent took it for a dead one's, and removes it
