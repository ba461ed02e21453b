"""The files of the driver's sockets.

gRPC binds a temporary name, which the kubelet ignores (it begins with a dot: kubernetes
pkg/kubelet/pluginmanager/pluginwatcher/plugin_watcher.go), and the driver renames it. So there is
no moment at which another instance's path is without a socket, and the kubelet sees a rename into
its registry as a new plugin.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import stat
from dataclasses import dataclass
from itertools import islice

_LOG = logging.getLogger(__name__)

MAX_ENTRIES = 4096
"""Entries of the kubelet's registry that are read; a node has some ten plugins."""
_SUFFIX = "-reg.sock"


@dataclass(frozen=True, slots=True)
class BoundSocket:
    """A socket's file and its inode, which nothing else has while the socket is bound."""

    path: str
    device: int
    inode: int

    def is_in_place(self) -> bool:
        """Return whether the path still has this socket. Raises OSError but for a missing file."""
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == (self.device, self.inode)


def temporary_path(directory: str, name: str) -> str:
    """Return a fresh path that the kubelet ignores.

    The name is random: two instances may have the same PID, each in a PID namespace of its own.
    """
    return f"{directory}/.{name}-{secrets.token_hex(4)}"


def move_into_place(temporary: str, path: str) -> BoundSocket:
    """Rename a socket over whatever is at the path. Raises OSError."""
    status = os.lstat(temporary)
    os.rename(temporary, path)
    return BoundSocket(path, status.st_dev, status.st_ino)


def unlink_if_ours(bound: BoundSocket) -> bool:
    """Remove a socket's file unless another instance has put its own there; return whether it was.

    Only unlink(2) lets the kubelet forget the plugin: its watch ignores a file that is renamed
    (plugin_watcher.go). An instance that comes between check and removal loses its file; its
    liveness probe finds that. Raises OSError.
    """
    if not bound.is_in_place():
        return False
    os.unlink(bound.path)
    return True


def registration_paths(registry: str, name: str) -> list[str]:
    """Return the paths in the kubelet's registry that instances of a driver use, sorted.

    Raises OSError if the directory cannot be read.
    """
    ours = re.compile(rf"{re.escape(name)}(-[0-9a-f]{{8}})?{_SUFFIX}")
    with os.scandir(registry) as entries:
        names = [entry.name for entry in islice(entries, MAX_ENTRIES)]
    return [f"{registry}/{one}" for one in sorted(names) if ours.fullmatch(one)]


def choose_registration_path(registry: str, name: str) -> str:
    """Return the path at which the driver registers, and remove those of dead instances.

    The kubelet refuses a second path for a registered name (kubernetes pkg/volume/csi/
    csi_plugin.go, validateVersions): the path of another instance that runs is the one to take
    over. After a dead instance the kubelet may be waiting up to two minutes until it tries its
    path again (exponential back-off), so the new path has a name that the kubelet never tried.
    Raises OSError.
    """
    living: list[str] = []
    dead: list[str] = []
    for path in registration_paths(registry, name):
        (living if is_listening(path) else dead).append(path)
    for path in dead:
        _LOG.info("csi: removed %s of an instance that does not run any more", path)
        _unlink(path)
    if living:
        return living[0]
    return (
        f"{registry}/{name}-{secrets.token_hex(4)}{_SUFFIX}"
        if dead
        else (f"{registry}/{name}{_SUFFIX}")
    )


def is_listening(path: str) -> bool:
    """Return whether a process listens on a socket. Raises OSError, not for a dead socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except BlockingIOError:
        return True  # its queue is full: unix(7)
    return True


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return  # another instance was faster
