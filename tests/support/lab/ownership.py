"""Names that say whose they are, so that a later run can clear up after a killed one."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

_NAME = re.compile(r"netutil-lab-(?P<view>\d+)-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{6}")


def new_name() -> str:
    """A name that no other run has: this process, its start time, and chance."""
    pid = os.getpid()
    return f"netutil-lab-{_pid_namespace()}-{pid}-{_start_time(pid)}-{secrets.token_hex(3)}"


def is_stale(name: str) -> bool:
    """Return whether the name is of a lab whose owner is dead.

    False if that is unknown: it was made in another PID namespace.
    """
    match = _NAME.fullmatch(name)
    if not match or int(match["view"]) != _pid_namespace():
        return False
    return _start_time(int(match["pid"])) != int(match["start"])


def is_left(path: Path) -> bool:
    """Return whether a dead lab of this user left it. Another lab may remove it meanwhile."""
    if not is_stale(path.name):
        return False
    try:
        return path.lstat().st_uid == os.geteuid()
    except FileNotFoundError:
        return False


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _start_time(pid: int) -> int | None:
    """Field 22 of /proc/<pid>/stat; None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(b")")[2].split()[19])
