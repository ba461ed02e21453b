"""The view of a process on its own container, which decides whether EAL starts there.

The agent reports what the node gave to the container. Only a process in the container sees whether
it can use that (a mount, a device file, a limit), as EAL does. Everything is read below a
root directory, so that tests pass a tree of files.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from netutil.client.mounts import unescape

_SIZE = re.compile(r"([0-9]{1,15})([KMGkmg]?)")
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_DEFAULT_SIZE = re.compile(r"^Hugepagesize: +([0-9]+) kB$", re.MULTILINE)
_MOUNT_FIELDS = 4
_GET_MEMPOLICY = {"x86_64": 239, "aarch64": 236, "ppc64le": 260}
"""System call numbers (include/uapi/asm-generic/unistd.h and the tables of x86 and powerpc)."""


class Access(StrEnum):
    """Whether a process may read and write a file."""

    USABLE = "usable"
    MISSING = "missing"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class HugetlbMount:
    """A hugetlbfs mount. `limit_bytes` is its option size=, None for none."""

    path: str
    page_size_bytes: int
    limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class OwnView:
    """What this process sees. Limits are soft ones, None for unlimited.

    `capabilities` is CapEff of proc_pid_status(5). `may_place_memory` is False where the system
    calls of NUMA memory policy are forbidden (seccomp), None if that was not tried.
    """

    root: str
    mounts: tuple[HugetlbMount, ...]
    capabilities: int
    user: int
    runtime_directory: str
    locked_memory_bytes: int | None
    open_files: int | None
    may_place_memory: bool | None

    def has_capability(self, number: int) -> bool:
        """Whether the process has a capability, by its number in capabilities(7)."""
        return bool(self.capabilities >> number & 1)

    def access(self, path: str) -> Access:
        """Whether a file can be read and written."""
        below = self._below(path)
        if os.access(below, os.R_OK | os.W_OK):
            return Access.USABLE
        return Access.REFUSED if os.path.lexists(below) else Access.MISSING

    def may_read(self, path: str) -> bool:
        """Whether a file can be read."""
        return os.access(self._below(path), os.R_OK)

    def may_create(self, path: str) -> bool:
        """Whether a file can be created there, with the missing directories above it."""
        below = self._below(path)
        while not os.path.lexists(below):
            parent = os.path.dirname(below)
            if parent == below:
                return False
            below = parent
        return os.access(below, os.W_OK | os.X_OK)

    def names(self, directory: str) -> tuple[str, ...] | None:
        """The names in a directory, None if it is not there or cannot be read."""
        try:
            return tuple(sorted(os.listdir(self._below(directory))))
        except OSError:
            return None

    def target(self, link: str) -> str:
        """The last component of the target of a link, "" if there is no such link."""
        try:
            return os.path.basename(os.readlink(self._below(link)))
        except OSError:
            return ""

    def text(self, path: str) -> str:
        """The text of a small file, "" if it cannot be read."""
        try:
            return Path(self._below(path)).read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return ""

    def mount_of(self, page_size_bytes: int) -> HugetlbMount | None:
        """The mount that EAL takes for a page size: the first in /proc/mounts."""
        return next((one for one in self.mounts if one.page_size_bytes == page_size_bytes), None)

    def _below(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path.lstrip('/')}"


def read_own_view(root: str = "/") -> OwnView:
    """Return what this process sees now. Raises OSError if /proc cannot be read.

    Sources: proc_pid_mounts(5), proc_meminfo(5), proc_pid_status(5), getrlimit(2),
    get_mempolicy(2). The runtime directory is EAL's rule (`eal_create_runtime_dir`).
    """
    proc = Path(root, "proc")
    default = _DEFAULT_SIZE.search((proc / "meminfo").read_text(encoding="ascii"))
    status = (proc / "self/status").read_text(encoding="utf-8", errors="replace")
    capabilities = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    mounts = (proc / "self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    user = os.getuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR") or "/tmp"  # noqa: S108 - as EAL has it
    return OwnView(
        root,
        parse_hugetlb_mounts(mounts, int(default[1]) * 1024 if default else 0),
        int(capabilities[1], 16) if capabilities else 0,
        user,
        "/var/run" if user == 0 else runtime,
        _limit(resource.RLIMIT_MEMLOCK),
        _limit(resource.RLIMIT_NOFILE),
        _may_place_memory(),
    )


def parse_hugetlb_mounts(mounts: str, default_size_bytes: int) -> tuple[HugetlbMount, ...]:
    """Return the hugetlbfs mounts of /proc/mounts in its order, as EAL reads them.

    A mount without the option pagesize= has pages of the default size. Never raises: lines that
    are not as the kernel writes them are left out.
    """
    return tuple(_hugetlb_mounts(mounts, default_size_bytes))


def _hugetlb_mounts(mounts: str, default_size_bytes: int) -> Iterator[HugetlbMount]:
    for line in mounts.split("\n"):
        fields = line.split(" ")
        if len(fields) < _MOUNT_FIELDS or fields[2] != "hugetlbfs":
            continue
        options = dict(option.partition("=")[::2] for option in fields[3].split(","))
        size = default_size_bytes
        if "pagesize" in options:
            size = _bytes(options["pagesize"]) or 0
        if size:
            yield HugetlbMount(unescape(fields[1]), size, _bytes(options.get("size", "")))


def _bytes(text: str) -> int | None:
    match = _SIZE.fullmatch(text)
    return int(match[1]) * _UNITS[match[2].lower()] if match else None


def _limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


def _may_place_memory() -> bool | None:
    number = _GET_MEMPOLICY.get(platform.machine())
    if number is None:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, None, None, 0, None, 0) == 0:
        return True
    return False if ctypes.get_errno() == errno.EPERM else None
