"""Prepares the process before its first thread: the mount tree, then the capabilities.

Capabilities belong to a thread. The threads of the gRPC server inherit those of the thread that
starts them, so nothing may start a thread before `drop_privileges`, not even an import of grpc.
"""

from __future__ import annotations

import os
from pathlib import Path

from netutil.agent.csi import syscalls
from netutil.agent.csi.errors import StartError, VolumeFailed
from netutil.agent.csi.mountinfo import read_mounts_at

CAP_SYS_ADMIN = 21
_LAST_CAPABILITY = "/proc/sys/kernel/cap_last_cap"
_TASKS = "/proc/self/task"


def prepare_mounts(source: str, pods: str) -> None:
    """Check the mount tree, and make the mount of the source read-only.

    A bind mount takes the flags of its source's mount. A remount of the bind mount would not
    propagate to the host (mount_namespaces(7)), so the source's mount gets the flags first.
    Raises StartError.
    """
    _check_source(source)
    _check_propagation(pods)
    try:
        syscalls.remount_read_only(source)
    except OSError as error:
        raise StartError(
            f"cannot make {source} read-only: {error.strerror}: it must be a volume mount of the"
            " container, and the container privileged"
        ) from None


def drop_privileges() -> None:
    """Keep CAP_SYS_ADMIN, which mount(2) needs, and no other capability, for good.

    Raises StartError, also if there is another thread, which would keep its capabilities.
    """
    threads = len(os.listdir(_TASKS))
    if threads != 1:
        raise StartError(f"the process has {threads} threads before it drops its capabilities")
    try:
        last = int(Path(_LAST_CAPABILITY).read_text(encoding="ascii"))
        for capability in range(last + 1):
            if capability != CAP_SYS_ADMIN:
                syscalls.drop_from_bounding_set(capability)
        syscalls.set_capabilities(CAP_SYS_ADMIN)
        syscalls.set_no_new_privileges()
    except OSError as error:
        raise StartError(
            f"cannot drop capabilities: {error.filename}: {error.strerror}: the container must be"
            " privileged and run as user 0"
        ) from None


def is_removed(directory: str) -> bool:
    """Return whether a directory that is mounted was removed from its file system.

    The mount keeps the directory, but no name has it any more (stat(2): st_nlink is 0).
    Raises OSError.
    """
    return os.stat(directory).st_nlink == 0


def _check_source(source: str) -> None:
    try:
        removed = is_removed(source)
    except OSError as error:
        raise StartError(f"cannot stat --source {source}: {error.strerror}") from None
    if removed:
        raise StartError(f"{source} was removed from the host: the container must be restarted")


def _check_propagation(pods: str) -> None:
    try:
        mounts = read_mounts_at(pods)
    except OSError as error:
        raise StartError(f"cannot read {error.filename}: {error.strerror}") from None
    except VolumeFailed as error:
        raise StartError(str(error)) from None
    if not mounts or not mounts[-1].is_shared:
        what = "is no shared mount" if mounts else "is no mount"
        raise StartError(
            f"{pods} {what}: pods would get an empty directory: give its volumeMount"
            " mountPropagation: Bidirectional"
        )
