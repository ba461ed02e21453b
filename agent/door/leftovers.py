"""What agents that were killed have left: sockets under temporary names, and private directories.

A live agent's are told from a dead one's by the kernel: it listens at its sockets, and holds a
lock (flock(2)) on its private directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

_LOG = logging.getLogger(__name__)

_PREFIX = "netutil-agent-"
_TEMPORARY = re.compile(r"\.[0-9a-f]{8}")
_MOST_ENTRIES = 4096
"""Entries of a directory that are looked at: pods may fill one that they can write to."""


def remove_dead_sockets(path: str) -> None:
    """Remove the sockets beside `path` under names that `listen` gives, where nobody listens.

    What cannot be looked at or removed is left and logged.
    """
    directory, name = os.path.split(path)
    for entry in _entries(directory):
        suffix = entry.name.removeprefix(name)
        if entry.name.startswith(name) and _TEMPORARY.fullmatch(suffix):
            try:
                if _is_dead(entry.path):
                    os.unlink(entry.path)
                    _LOG.info("agent: removed %s of an agent that was killed", entry.path)
            except OSError as error:
                _LOG.warning("agent: %s cannot be removed: %s", entry.path, error.strerror)


@contextlib.contextmanager
def private_directory() -> Iterator[Path]:
    """Hold a new directory of mode 0700 within the block; remove it, and those of the dead.

    Raises OSError.
    """
    _remove_dead_directories(tempfile.gettempdir())
    directory, lock = _locked_directory()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _locked_directory() -> tuple[Path, int]:
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:
                return directory, lock
        os.close(lock)  # another agent took it for a dead one's, and removes it


def _remove_dead_directories(parent: str) -> None:
    for entry in _entries(parent):
        if not entry.name.startswith(_PREFIX):
            continue
        try:
            held = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # a link or file of somebody's, or it is gone
            continue
        try:
            status = os.fstat(held)
            if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == stat.S_IRWXU:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(entry.path, ignore_errors=True)
        except BlockingIOError:
            pass  # its agent lives
        finally:
            os.close(held)


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            return list(islice(found, _MOST_ENTRIES))
    except FileNotFoundError:
        return []


def _is_dead(path: str) -> bool:
    held = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(held).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            probe.connect(f"/proc/self/fd/{held}")
    except ConnectionRefusedError:
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(held)
    return False
