"""Notifies of changed CPU sets, bandwidths and huge page limits of cgroups, by inotify.

inotify(7) reports writes to the files of a cgroup's directory, on cgroup v1 and v2. The effective
CPU set also changes without a write there: with an ancestor's set, or when a CPU goes offline. So a
sweep reads the effective sets of all watched containers again. A file that is held open for the
container's answers is read by its descriptor: a walk of its path may wait for a process that
creates or removes cgroups.

Limits of the cgroups above a container apply to the container too. The directories above are
watched as well, each once for all containers below. The kubelet and systemd often write the present
value there again, and one such write would wake all streams of the node. So a write there notifies
only if the file of a limit then has another content.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from netutil.agent.facts.sysfs import ThrottledReader

_LOG = logging.getLogger(__name__)
OnChange = Callable[[], None]
ReadOpen = Callable[[str, str], bytes | None]
"""Returns a file of a directory by a descriptor that is open for it, None if there is none."""

_IN_MODIFY, _IN_Q_OVERFLOW, _IN_ONLYDIR = 0x2, 0x4000, 0x01000000
_EVENT = struct.Struct("=iIII")
_READ_BYTES = 64 * 1024
_MAX_BLOCKS = 4
# Not memory.events and the like, which the kernel itself writes.
_CONTROLLERS = (b"cpuset.", b"cpu.", b"hugetlb.")
# What of a cgroup holds for those below it, cgroup v1 and v2. CPU sets do too, but show in
# the effective set of those below; weights do not.
_LIMIT = re.compile(
    rb"cpu\.(?:max|cfs_quota_us|cfs_period_us)"
    rb"|hugetlb\.[0-9]{1,6}[KMG]B\.(?:max|limit_in_bytes)"
    rb"|cpuset\.cpus\.(?:partition|exclusive\.effective)"
)
# cgroup v2, cgroup v1, cgroup v1 before Linux 3.17: the first that is there.
_EFFECTIVE = ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus")
_MAX_CPU_LIST_BYTES = 4096
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class _Directory:
    """A watched directory and its subscribers.

    `subscribers` are notified of each write and of a changed effective set, `limit_subscribers` of
    changed limits. `effective` (the name of the file and its text) and `limits` are the last
    reading, if there are subscribers for it.
    """

    path: str
    number: int
    effective: tuple[str, bytes] | None = None
    limits: dict[bytes, bytes] = field(default_factory=dict)
    subscribers: set[OnChange] = field(default_factory=set)
    limit_subscribers: set[OnChange] = field(default_factory=set)


class CgroupChanges:
    """The watched cgroup directories. Used on one event loop.

    `read_open` reads what is held open for other reasons.
    """

    def __init__(self, read_open: ReadOpen) -> None:
        self._read_open = read_open
        self._directories: dict[str, _Directory] = {}
        self._by_number: dict[int, _Directory] = {}
        self._inotify = -1
        self._reader: ThrottledReader | None = None

    def __len__(self) -> int:
        return len(self._directories)

    def subscribe(self, directories: Iterable[str], on_change: OnChange) -> None:
        """Call `on_change` for each change in these directories from now on."""
        for path in directories:
            found = self._directory(path)
            if not found.subscribers:
                found.effective = self._effective(path)
            found.subscribers.add(on_change)

    def subscribe_above(self, directories: Iterable[str], on_change: OnChange) -> None:
        """Call `on_change` for each changed limit in these directories from now on."""
        for path in directories:
            found = self._directory(path)
            if not found.limit_subscribers:
                found.limits = _limits(path)
            found.limit_subscribers.add(on_change)

    def unsubscribe(self, directories: Iterable[str], on_change: OnChange) -> None:
        """Undo `subscribe` and `subscribe_above`. May be called again."""
        for path in directories:
            found = self._directories.get(path)
            if found is None:
                continue
            found.subscribers.discard(on_change)
            found.limit_subscribers.discard(on_change)
            if not found.subscribers and not found.limit_subscribers:
                del self._directories[path]
                self._by_number.pop(found.number, None)
                # Fails for a removed directory: its watch was removed with it.
                _LIBC.inotify_rm_watch(self._inotify, found.number)
        if not self._directories:
            self._close()

    def sweep(self) -> None:
        """Read the effective CPU sets again, and notify of those that differ.

        The limits of the cgroups above too, where inotify has no watch.
        """
        for found in tuple(self._directories.values()):
            if found.number < 0:
                _check_limits(found)
            if found.effective is None or not found.subscribers:
                continue
            name, before = found.effective
            now = self._read_file(found.path, name)
            if now != before:
                found.effective = (name, now)
                _notify(found.subscribers)

    def _effective(self, directory: str) -> tuple[str, bytes] | None:
        """Return the file of the effective CPU set and its text, None if there is no such file."""
        for name in _EFFECTIVE:
            text = self._open_text(directory, name)
            if text is not None:
                return name, text
            path = f"{directory}/{name}"
            if os.path.exists(path):
                return name, _read(path)
        return None

    def _read_file(self, directory: str, name: str) -> bytes:
        """Return the text of a file; "" once the cgroup is removed."""
        text = self._open_text(directory, name)
        return _read(f"{directory}/{name}") if text is None else text

    def _open_text(self, directory: str, name: str) -> bytes | None:
        """Return the text of a file that is held open, None if it is not or cannot be read."""
        try:
            return self._read_open(directory, name)
        except OSError:
            return None

    def _directory(self, path: str) -> _Directory:
        found = self._directories.get(path)
        if found is None:
            found = self._directories[path] = _Directory(path, self._watch(path))
            self._by_number[found.number] = found
        return found

    def _watch(self, path: str) -> int:
        """Return the watch's number, below 0 if there is none: the sweep alone then finds changes.

        The limits of the host's user root (fs.inotify.max_user_watches) may be reached.
        """
        if self._reader is None:
            self._inotify = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self._inotify >= 0:
                self._reader = ThrottledReader(self._inotify, self._read)
        number: int = _LIBC.inotify_add_watch(
            self._inotify, os.fsencode(path), _IN_MODIFY | _IN_ONLYDIR
        )
        if number < 0 and (code := ctypes.get_errno()) != errno.ENOENT:
            _LOG.warning("watch: no inotify for %s: %s", path, os.strerror(code))
        return number

    def _read(self) -> None:
        numbers: set[int] = set()
        for _ in range(_MAX_BLOCKS):
            with suppress(BlockingIOError):
                numbers |= _numbers(os.read(self._inotify, _READ_BYTES))
                continue
            break
        if -1 in numbers:
            written = list(self._directories.values())
        else:
            written = [self._by_number[number] for number in numbers if number in self._by_number]
        for found in written:
            _notify(found.subscribers)
            _check_limits(found)

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
            os.close(self._inotify)
            self._inotify = -1


def _numbers(block: bytes) -> set[int]:
    """Return the watches that a controller's file was written under; -1 if events were lost."""
    found = set()
    offset = 0
    while offset + _EVENT.size <= len(block):
        number, mask, _, length = _EVENT.unpack_from(block, offset)
        name = block[offset + _EVENT.size : offset + _EVENT.size + length]
        offset += _EVENT.size + length
        if mask & _IN_Q_OVERFLOW:
            found.add(-1)
        elif name.startswith(_CONTROLLERS):
            found.add(number)
    return found


def _read(path: str) -> bytes:
    """Return the text; "" once the cgroup is removed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _MAX_CPU_LIST_BYTES)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _limits(directory: str) -> dict[bytes, bytes]:
    """Return the text of each limit's file, by name; {} once the cgroup is removed."""
    try:
        names = os.listdir(os.fsencode(directory))
    except OSError:
        return {}
    below = f"{directory}/"
    return {name: _read(below + os.fsdecode(name)) for name in names if _LIMIT.fullmatch(name)}


def _check_limits(directory: _Directory) -> None:
    """Read the limits again, and notify if one differs."""
    if not directory.limit_subscribers:
        return
    now = _limits(directory.path)
    if now != directory.limits:
        directory.limits = now
        _notify(directory.limit_subscribers)


def _notify(subscribers: Iterable[OnChange]) -> None:
    for on_change in tuple(subscribers):
        on_change()
