"""The lab's cgroups, the same path in every hierarchy that can be written, v1 or v2."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.lab.ownership import is_stale

_PERIOD = 100_000
_REMOVAL_SECONDS = 15.0
_DELEGATED = ("cpuset", "cpu", "memory", "pids")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy. `controllers` is empty for v2, may hold name=… for v1."""

    directory: Path
    version: int
    controllers: frozenset[str]


def find_hierarchies() -> tuple[Hierarchy, ...]:
    """The hierarchies that this process may make cgroups in, from /proc/self/mountinfo."""
    found: dict[str, Hierarchy] = {}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        mount, (kind, _, options) = left.split(" "), right.split(" ")[:3]
        directory = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), mount[4]))
        if kind not in ("cgroup", "cgroup2") or not os.access(directory, os.W_OK):
            continue
        version = 2 if kind == "cgroup2" else 1
        named = frozenset(options.split(",")) - {"rw", "xattr", "clone_children", "noprefix"}
        controllers = frozenset(o for o in named if version == 1 and "release_agent=" not in o)
        found.setdefault(mount[2], Hierarchy(directory, version, controllers))
    return tuple(found.values())


class Cgroups:
    """One cgroup per hierarchy, `root`, and whatever the lab makes below it."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._hierarchies = find_hierarchies()

    def make(self, path: str) -> None:
        """Make a cgroup, named from `root` on, and those above it, in every hierarchy."""
        for hierarchy in self._hierarchies:
            directory = hierarchy.directory
            for name in (self.root, *filter(None, path.split("/"))):
                if hierarchy.version == 2:
                    _delegate(directory)
                directory /= name
                directory.mkdir(exist_ok=True)
                if "cpuset" in hierarchy.controllers:
                    _fill_cpuset(directory)

    def directories(self, path: str) -> tuple[Path, ...]:
        """The directories of a cgroup, one per hierarchy."""
        return tuple(h.directory / self.root / path for h in self._hierarchies)

    def members_files(self, path: str) -> tuple[str, ...]:
        """The cgroup.procs files of a cgroup, one per hierarchy."""
        return tuple(str(directory / "cgroup.procs") for directory in self.directories(path))

    def confine(self, path: str, cpus: str, quota_cores: float | None) -> None:
        """Set a cgroup's CPUs and CFS quota where a hierarchy knows them."""
        for directory in self.directories(path):
            if (directory / "cpuset.cpus").exists():
                (directory / "cpuset.cpus").write_text(cpus)
        if quota_cores is not None:
            self.limit(path, quota_cores)

    def limit(self, path: str, quota_cores: float | None) -> None:
        """Set a cgroup's CFS quota where a hierarchy knows it, None for no limit."""
        micros = None if quota_cores is None else round(quota_cores * _PERIOD)
        for directory in self.directories(path):
            if (directory / "cpu.max").exists():
                (directory / "cpu.max").write_text(f"{micros or 'max'} {_PERIOD}")
            if (directory / "cpu.cfs_quota_us").exists():
                (directory / "cpu.cfs_period_us").write_text(str(_PERIOD))
                (directory / "cpu.cfs_quota_us").write_text(str(micros or -1))

    def remove(self, path: str = "") -> None:
        """Kill all processes in a cgroup and below, and remove it. TimeoutError after 15 s."""
        _remove([h.directory / self.root / path for h in self._hierarchies], self.root)

    def remove_stale(self) -> None:
        """Remove the cgroups of labs whose owners are dead, and kill the processes in them."""
        tops = {hierarchy.directory for hierarchy in self._hierarchies}
        names = {name for top in tops for name in os.listdir(top) if is_stale(name)}
        for name in names:
            _remove([top / name for top in tops], name)


def _fill_cpuset(directory: Path) -> None:
    """cpuset(7): a v1 cpuset takes no process until both are set."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (directory / name).read_text().strip():
            (directory / name).write_text((directory.parent / name).read_text())


def _delegate(directory: Path) -> None:
    """Enable the controllers for children, one by one: an unavailable controller is no error."""
    for controller in (directory / "cgroup.controllers").read_text().split():
        if controller in _DELEGATED:
            with suppress(OSError):
                (directory / "cgroup.subtree_control").write_text(f"+{controller}")


def _remove(tops: Iterable[Path], name: str) -> None:
    deadline = time.monotonic() + _REMOVAL_SECONDS
    left = [top for top in tops if top.exists()]
    while left:
        for top in left:
            for directory in _deepest_first(top):
                _thaw(directory)
                _kill_members(directory, name)
                with suppress(OSError):
                    directory.rmdir()
        left = [top for top in left if top.exists()]
        if left and time.monotonic() > deadline:
            raise TimeoutError(f"cannot remove {', '.join(map(str, left))}: still in use")
        if left:
            time.sleep(0.01)


def _deepest_first(top: Path) -> Iterator[Path]:
    for folder, _, _ in os.walk(top, topdown=False):
        yield Path(folder)


def _thaw(directory: Path) -> None:
    """A process that a v1 freezer holds takes no SIGKILL."""
    with suppress(OSError):
        if (directory / "freezer.state").read_text().strip() != "THAWED":
            (directory / "freezer.state").write_text("THAWED")


def _kill_members(directory: Path, name: str) -> None:
    try:
        members = (directory / "cgroup.procs").read_text().split()
    except OSError:
        return
    for pid in map(int, members):
        with suppress(OSError, ValueError):
            _kill(pid, name)


def _kill(pid: int, name: str) -> None:
    """Kill a process in the lab's cgroups, never a process that got its pid since."""
    process = os.pidfd_open(pid)
    try:
        if f"/{name}" in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8"):
            signal.pidfd_send_signal(process, signal.SIGKILL)
    finally:
        os.close(process)
