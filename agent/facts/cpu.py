"""The CPUs of a container, from its cgroup.

Sources: the kernel's cgroup-v1/cpusets.rst, scheduler/sched-bwc.rst (cgroup v1)
and cgroup-v2.rst, sections "CPU" and "Cpuset".
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from netutil.agent.errors import Inconsistent, Reason


@dataclass(frozen=True, slots=True)
class CpuDirectories:
    """A container's cgroup directories in the hierarchies of cpuset and cpu, and where each ends.

    `cpuset` and `cpu` are the same directory on cgroup v2. `cpuset_top` is the
    mount point: no file above it is read.
    """

    cgroup_version: int
    cpuset: str
    cpuset_top: str
    cpu: str | None


@dataclass(frozen=True, slots=True)
class CpuBandwidth:
    """CPU bandwidth and weight; what is None is not limited or not of this cgroup version."""

    quota_microseconds: int | None = None
    period_microseconds: int | None = None
    shares: int | None = None
    weight: int | None = None

    @property
    def quota_cores(self) -> float | None:
        """Return quota divided by period, in CPUs; None for no limit."""
        if self.quota_microseconds is None or not self.period_microseconds:
            return None
        return self.quota_microseconds / self.period_microseconds


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """CPU sets as kernel lists ("0-3,8"), and the bandwidth."""

    cpuset: str
    effective_cpus: str
    bandwidth: CpuBandwidth
    cgroup_version: int


def read_cpu(directories: CpuDirectories) -> CpuFacts:
    """Return the CPU facts of a container.

    Raises `Inconsistent` if the cgroup is gone or names no CPUs anywhere up to
    the root, OSError if a file that is there cannot be read.
    """
    if directories.cgroup_version == 1:
        cpuset = _nearest(directories, ("cpuset.cpus",))
        effective = _nearest(directories, ("cpuset.effective_cpus", "cpuset.cpus"))
        return CpuFacts(cpuset, effective, _bandwidth_v1(directories.cpu), 1)
    # An empty cpuset.cpus means "as the parent"; at the root only the effective
    # set exists. Where the controller is off the files are missing, which means the same.
    cpuset = _nearest(directories, ("cpuset.cpus", "cpuset.cpus.effective"))
    effective = _nearest(directories, ("cpuset.cpus.effective",))
    return CpuFacts(cpuset, effective, _bandwidth_v2(directories.cpu), 2)


def _nearest(directories: CpuDirectories, names: tuple[str, ...]) -> str:
    """Return the first of `names` that is not empty, in the cgroup or the nearest one above it."""
    directory = directories.cpuset
    while True:
        for name in names if directory == directories.cpuset_top else names[:1]:
            text = _read_if_there(directory, name)
            if text:
                return text
        if directory in (directories.cpuset_top, "/"):
            break
        directory = os.path.dirname(directory)
    raise Inconsistent(
        Reason.CPUSET_NOT_FOUND,
        f"No {names[0]} names any CPU from the container's cgroup up to the root.",
        read=f"{directories.cpuset}/{names[0]}",
        advice="The container has ended, or the host's cpuset hierarchy is not mounted at"
        " --host-root.",
    )


def _bandwidth_v1(directory: str | None) -> CpuBandwidth:
    if directory is None:
        return CpuBandwidth()
    quota = _number(_read_if_there(directory, "cpu.cfs_quota_us"))
    return CpuBandwidth(
        quota_microseconds=quota if quota is not None and quota >= 0 else None,
        period_microseconds=_number(_read_if_there(directory, "cpu.cfs_period_us")),
        shares=_number(_read_if_there(directory, "cpu.shares")),
    )


def _bandwidth_v2(directory: str | None) -> CpuBandwidth:
    if directory is None:
        return CpuBandwidth()
    quota, _, period = _read_if_there(directory, "cpu.max").partition(" ")
    return CpuBandwidth(
        quota_microseconds=None if quota == "max" else _number(quota),
        period_microseconds=_number(period),
        weight=_number(_read_if_there(directory, "cpu.weight")),
    )


def _read_if_there(directory: str, name: str) -> str:
    """Return the file's text, stripped; "" if the cgroup or its controller's file is not there."""
    try:
        return Path(directory, name).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def _number(text: str) -> int | None:
    return int(text) if text else None
