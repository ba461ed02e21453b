"""Starts one program as a container runtime would: its own mounts, then the program.

Runs as a script (`python -I -S enter.py JSON`), which the program then
replaces: same pid, same parent. The root file system is the machine's own,
read-only, without its /proc, /sys, /run, /tmp and /var; see `Container`.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any

# linux/sched.h
_NEW_MOUNT, _NEW_CGROUP = 0x00020000, 0x02000000
# linux/mount.h
_READ_ONLY, _REMOUNT, _BIND, _REC, _PRIVATE, _SLAVE = 1, 32, 4096, 1 << 14, 1 << 18, 1 << 19
_UNBINDABLE = 1 << 17
_DETACH = 2
_AT_RECURSIVE, _AT_FDCWD = 0x8000, -100
_MOUNT_SETATTR = 442  # one number on all architectures
_FRESH = {"proc", "sys", "run", "tmp", "var", "host"}
_libc = ctypes.CDLL(None, use_errno=True)


def enter(container: dict[str, Any]) -> None:
    """Make the container's mounts and execute its program."""
    root = container["root"]
    namespaces = _NEW_MOUNT | (_NEW_CGROUP if container["private_cgroup_namespace"] else 0)
    _check(_libc.unshare(namespaces), "unshare")
    _mount("none", "/", None, _REC | _SLAVE)
    _mount("tmpfs", root, "tmpfs", 0, "mode=755,size=1m")
    # Otherwise a mount of a parent directory would show it again within itself.
    _mount("none", root, None, _UNBINDABLE)
    _show_machine(root)
    for directory in (*_FRESH, "var/lib"):
        os.makedirs(f"{root}/{directory}", exist_ok=True)
    os.symlink("/run", f"{root}/var/run")
    _mount("proc", f"{root}/proc", "proc", 0)
    for mount in container["mounts"]:
        _make(mount, root)
    if container["read_only_root"]:
        _mount("none", root, None, _REMOUNT | _BIND | _READ_ONLY)
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _DETACH), "umount")
    os.chdir("/")
    os.execve(container["argv"][0], container["argv"], container["env"])  # noqa: S606 - no shell wanted


def _show_machine(root: str) -> None:
    for entry in os.scandir("/"):
        if entry.name in _FRESH:
            continue
        target = f"{root}/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), target)
        elif entry.is_dir():
            os.mkdir(target)
            _mount(entry.path, target, None, _BIND | _REC)
            if entry.name != "dev":
                _mount("none", target, None, _REMOUNT | _BIND | _READ_ONLY)


def _make(mount: dict[str, Any], root: str) -> None:
    target = f"{root}{mount['target']}".replace("/var/run/", "/run/")
    source = mount["source"]
    if source is not None and not os.path.isdir(source):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_RDONLY))
    else:
        os.makedirs(target, exist_ok=True)
    if source is None:
        _mount("tmpfs", target, "tmpfs", 0, mount["options"])
        return
    _mount(source, target, None, _BIND | _REC)
    _mount("none", target, None, _REC | (_SLAVE if mount["propagation"] else _PRIVATE))
    if mount["read_only"] == "recursive":
        attributes = (ctypes.c_uint64 * 4)(_READ_ONLY, 0, 0, 0)
        done = _libc.syscall(
            _MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), _AT_RECURSIVE, attributes, 32
        )
        _check(done, f"mount_setattr {target}")
    elif mount["read_only"]:
        _mount("none", target, None, _REMOUNT | _BIND | _READ_ONLY)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, data)]
    done = _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
    _check(done, f"mount {source} at {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    enter(json.loads(sys.argv[1]))
