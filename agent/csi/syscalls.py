"""mount(2), umount2(2), prctl(2) and capset(2), which Python does not have.

Each function raises OSError with the path, or the name of the call.
"""

from __future__ import annotations

import ctypes
import os

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND = 32, 4096
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CAPABILITY_VERSION_3 = 0x20080522

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mount.argtypes = (
    *(ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p),
    *(ctypes.c_ulong, ctypes.c_void_p),
)
_LIBC.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_LIBC.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
_LIBC.capset.argtypes = (ctypes.c_void_p, ctypes.c_void_p)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


def mount_bind(source: str, target: str) -> None:
    """Mount a directory at another path, with the flags of the mount that it is on."""
    _check(_LIBC.mount(os.fsencode(source), os.fsencode(target), None, MS_BIND, None), target)


def remount_read_only(target: str) -> None:
    """Make a mount read-only, nosuid, nodev and noexec; not other mounts of its file system."""
    flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
    _check(_LIBC.mount(None, os.fsencode(target), None, flags, None), target)


def unmount(target: str, *, detach: bool = False) -> None:
    """Unmount the topmost mount at a path that is no link; `detach`: also one that is in use."""
    flags = UMOUNT_NOFOLLOW | (MNT_DETACH if detach else 0)
    _check(_LIBC.umount2(os.fsencode(target), flags), target)


def drop_from_bounding_set(capability: int) -> None:
    """Let no later program of this thread get a capability."""
    _check(_LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0), "PR_CAPBSET_DROP")


def set_no_new_privileges() -> None:
    """Let no later program of this thread get privileges from its file."""
    _check(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")


def set_capabilities(*capabilities: int) -> None:
    """Give this thread these effective and permitted capabilities, and no inheritable one."""
    header = _Header(_CAPABILITY_VERSION_3, 0)
    data = (_Data * 2)()
    for capability in capabilities:
        index, bit = divmod(capability, 32)
        data[index].effective |= 1 << bit
        data[index].permitted |= 1 << bit
    _check(_LIBC.capset(ctypes.byref(header), data), "capset")


def _check(result: int, subject: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)
