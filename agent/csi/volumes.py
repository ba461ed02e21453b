"""Mounts the source at the target of a pod's volume, and unmounts it.

Both are idempotent, because the kubelet repeats a call: publish after each of its restarts,
unpublish until it succeeds. /proc/self/mountinfo decides what is mounted, never a record of the
driver's own, which a restart would lose.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from dataclasses import dataclass, field

from netutil.agent.csi import syscalls
from netutil.agent.csi.errors import InvalidRequest, SourceRemoved, VolumeFailed
from netutil.agent.csi.mountinfo import Mount, read_mounts_at
from netutil.agent.csi.startup import is_removed
from netutil.agent.csi.target import Target, shown

_LOG = logging.getLogger(__name__)

MAX_STACKED_MOUNTS = 64
_TARGET_MODE = 0o750
_LOCKS = 64


@dataclass(frozen=True, slots=True)
class Volumes:
    """Mounts one source. Calls for one target exclude each other."""

    source: str
    _locks: tuple[threading.Lock, ...] = field(
        init=False, default_factory=lambda: tuple(threading.Lock() for _ in range(_LOCKS))
    )

    def publish(self, target: Target) -> bool:
        """Mount the source at the target; return whether it was not mounted there before.

        The target has no link in its parent (`ensure_no_link`). Raises SourceRemoved, VolumeFailed.
        """
        with self._lock(target):
            self._check_source()
            try:
                return self._mount(target.path)
            except OSError as error:
                _remove_if_empty(target.path)
                raise VolumeFailed(
                    f"cannot mount {self.source} at {target.path}: {error.strerror}"
                ) from None

    def unpublish(self, target: Target) -> int:
        """Unmount all mounts at the target and remove it; return how many mounts there were.

        A target that does not exist is no error. The source does not matter: it may be removed.
        The target has no link in its parent (`ensure_no_link`). Raises VolumeFailed.
        """
        with self._lock(target):
            try:
                unmounted = _unmount_all(target.path)
                _remove(target.path)
            except OSError as error:
                raise VolumeFailed(f"cannot unmount {target.path}: {error.strerror}") from None
        return unmounted

    def _lock(self, target: Target) -> threading.Lock:
        return self._locks[hash(target.path) % _LOCKS]

    def _check_source(self) -> None:
        try:
            removed = is_removed(self.source)
        except OSError as error:
            raise VolumeFailed(f"cannot stat {self.source}: {error.strerror}") from None
        if removed:
            raise SourceRemoved(
                f"{self.source} was removed from the host; netutil-csi restarts, then the"
                " volume is mounted"
            )

    def _mount(self, path: str) -> bool:
        _make_directory(path)
        mounts = read_mounts_at(path)
        if mounts:
            self._check_mounted(path, mounts)
            return False
        syscalls.mount_bind(self.source, path)
        try:
            _check_flags(path, read_mounts_at(path))
        except VolumeFailed:
            syscalls.unmount(path)
            _remove_if_empty(path)
            raise
        return True

    def _check_mounted(self, path: str, mounts: tuple[Mount, ...]) -> None:
        sources = read_mounts_at(self.source)
        if not sources:
            raise VolumeFailed(
                f"{self.source} is no mount any more: restart the pod of netutil-csi"
            )
        if all(mount.is_same_directory(sources[-1]) for mount in mounts):
            _check_flags(path, mounts)
            return
        if mounts[-1].is_of_removed_directory:
            raise VolumeFailed(
                f"{path} has a mount of a directory that was removed from the host since: delete"
                " the pod, so that a new one gets the new directory"
            )
        raise VolumeFailed(f"{path} has another mount ({shown(mounts[-1].root)}): unmount it")


def ensure_no_link(target: Target) -> None:
    """Raise InvalidRequest if a component of the parent is a link; it need not exist."""
    if os.path.realpath(target.parent) != target.parent:
        raise InvalidRequest(
            f"{target.parent} has a symbolic link in it: set --kubelet-root of netutil-csi to the"
            " path without links"
        )


def _make_directory(path: str) -> None:
    try:
        os.mkdir(path, _TARGET_MODE)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise VolumeFailed(f"{path} is no directory: remove it") from None


def _check_flags(path: str, mounts: tuple[Mount, ...]) -> None:
    """Raise VolumeFailed unless the mounts are read-only and reach the host."""
    if not mounts:
        raise VolumeFailed(f"the mount at {path} is not in /proc/self/mountinfo")
    if not all(mount.is_read_only for mount in mounts):
        raise VolumeFailed(f"the mount at {path} is writable: unmount it on the node")
    if not all(mount.is_shared for mount in mounts):
        raise VolumeFailed(
            f"the mount at {path} does not reach the host: netutil-csi needs mountPropagation:"
            " Bidirectional"
        )


def _unmount_all(path: str) -> int:
    for unmounted in range(MAX_STACKED_MOUNTS + 1):
        if not read_mounts_at(path):
            return unmounted
        if unmounted < MAX_STACKED_MOUNTS:
            _unmount(path)
    raise VolumeFailed(
        f"{path} has more than {MAX_STACKED_MOUNTS} mounts: the next attempt unmounts the next ones"
    )


def _unmount(path: str) -> None:
    try:
        syscalls.unmount(path)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        syscalls.unmount(path, detach=True)


def _remove(path: str) -> None:
    """Remove the directory; never its content. Raises VolumeFailed, OSError."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise VolumeFailed(
            f"{path} is not mounted and not empty: look at its content, and remove it by hand"
        ) from None


def _remove_if_empty(path: str) -> None:
    """Remove what a failed attempt made. The next attempt works also if that fails."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        _LOG.warning("csi: cannot remove %s after a failed mount: %s", path, error.strerror)
