"""What agents have left: sockets and directories under temporary names, and private directories.

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

from netutil.agent.door.empty_tree import remove_empty_tree

_LOG = logging.getLogger(__name__)

_PREFIX = "netutil-agent-"
_TEMPORARY = re.compile(r"\.[0-9a-f]{8}")
_MOST_ENTRIES = 4096
"""Entries of a directory that are looked at: pods may fill one that they can write to."""


def remove_leftovers(path: str) -> None:
    """Remove what lies beside `path` under names that `listen` gives and no agent needs.

    These are sockets where nobody listens, of agents that were killed, and directories that
    were moved aside, if they hold directories alone. What cannot be removed is left and logged.
    """
    directory, name = os.path.split(path)
    for entry in _entries(directory):
        if not is_temporary(entry.name, name):
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                if remove_empty_tree(entry.path):
                    _LOG.info("agent: removed the directory %s, which was moved aside", entry.path)
                else:
                    _LOG.warning("agent: %s was moved aside: remove it by hand", entry.path)
            elif _is_dead(entry.path):
                os.unlink(entry.path)
                _LOG.info("agent: removed %s of an agent that was killed", entry.path)
        except OSError as error:
            _LOG.warning("agent: %s cannot be removed: %s", entry.path, error.strerror)


def is_temporary(name: str, of: str) -> bool:
    """Return whether a name is one that `listen` gives beside the socket's own name `of`."""
    return name.startswith(of) and _TEMPORARY.fullmatch(name.removeprefix(of)) is not None


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
