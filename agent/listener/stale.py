"""Removes what killed agents left: sockets, directories moved aside, private directories.

The kernel distinguishes a live agent from a dead one: a live agent listens on its sockets, and one
of the previous version holds a lock (flock(2)) on its private directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import socket
import stat
from itertools import islice

from netutil.agent.listener.empty_tree import remove_empty_tree
from netutil.agent.listener.passed_descriptors import refuse_descriptors
from netutil.agent.listener.unix_socket import is_temporary_name

_LOG = logging.getLogger(__name__)

PRIVATE_DIRECTORY_PREFIX = "netutil-agent-"
_MAX_ENTRIES = 4096
"""Entries of a directory that are read: pods may fill one that they can write to."""


def remove_stale_sockets(path: str) -> None:
    """Remove the files beside `path` that have temporary names of `listen` and no agent needs.

    These are sockets without a listener, of agents that were killed, and directories that were
    moved aside, if they contain only directories. What cannot be removed is left and logged.
    Raises OSError if the directory exists and cannot be read.
    """
    directory, socket_name = os.path.split(path)
    for entry in _entries(directory):
        if not is_temporary_name(entry.name, socket_name):
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                _remove_directory(entry.path)
            elif _is_stale(entry.path):
                os.unlink(entry.path)
                _LOG.info("listener: removed %s of an agent that was killed", entry.path)
        except OSError as error:
            _LOG.warning("listener: cannot remove %s: %s", entry.path, error.strerror)


def remove_private_directories(parent: str) -> None:
    """Remove the private directories of dead agents below `parent`, the temporary directory.

    Only agents of the version before this one made them, so the next version needs no such sweep.
    Removes only directories of the agent's own user and of mode 0700 that no process has locked.
    Raises OSError if `parent` exists and cannot be read.
    """
    for entry in _entries(parent):
        if not entry.name.startswith(PRIVATE_DIRECTORY_PREFIX):
            continue
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(entry.path, flags)
        except OSError:  # another owner's link or file, or it was removed meanwhile
            continue
        try:
            status = os.fstat(descriptor)
            if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == stat.S_IRWXU:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(entry.path, ignore_errors=True)
        except BlockingIOError:
            pass  # its agent is running
        finally:
            os.close(descriptor)


def _remove_directory(path: str) -> None:
    if remove_empty_tree(path):
        _LOG.info("listener: removed the directory %s, which was moved aside", path)
    else:
        _LOG.warning("listener: %s was moved aside; remove it by hand", path)


def _entries(directory: str) -> list[os.DirEntry[str]]:
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        return list(islice(entries, _MAX_ENTRIES))
    return []


def _is_stale(path: str) -> bool:
    """Return whether `path` is a socket without a listener. Raises OSError."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            refuse_descriptors(probe)
            probe.connect(f"/proc/self/fd/{descriptor}")
    except ConnectionRefusedError:
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return False
