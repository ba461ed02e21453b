"""The CPUs of a container, from its cgroup and the cgroups above.

Sources: the kernel's cgroup-v1/cpusets.rst, scheduler/sched-bwc.rst (cgroup v1)
and cgroup-v2.rst, sections "CPU" and "Cpuset".
"""

from __future__ import annotations

import os
import re

import msgspec
from netutil.agent.errors import FailedPrecondition, Reason
from netutil.agent.facts.cgroup_file import CPU_LIST, match_if_there, number_if_there, unusable
from netutil.agent.facts.cgroup_levels import (
    CgroupLevel,
    ControllerDirectory,
    Levels,
    cgroup_levels,
    of_container,
)
from netutil.agent.facts.sysfs import BY_PATH, Files

_CONTROLLERS = re.compile(r"[a-z_ ]*")
_CPU_MAX = re.compile(r"(?P<quota>max|[0-9]{1,19}) (?P<period>[0-9]{1,19})")


class CpuDirectories(msgspec.Struct, frozen=True):
    """A container's cgroup directories in the hierarchies of cpuset and cpu, and where each ends.

    `cpuset` and `cpu.directory` are the same directory on cgroup v2. `cpuset_top` is the
    mount point: no file above it is read. `cpu` is None where the container has no cgroup in
    a cpu hierarchy that the agent sees. `cpuset_pod` is the pod's directory.
    """

    cgroup_version: int
    cpuset: str
    cpuset_top: str
    cpu: ControllerDirectory | None
    cpuset_pod: str | None = None

    @property
    def cpuset_levels(self) -> Levels:
        """Return the container's directory in the hierarchy of cpuset and all above it."""
        return cgroup_levels(self.cpuset, self.cpuset_top, self.cpuset_pod)


class CpuLimit(msgspec.Struct, frozen=True):
    """The CPU bandwidth limit of one cgroup: quota and period in microseconds."""

    quota_microseconds: int
    period_microseconds: int

    @property
    def cores(self) -> float:
        """Return quota divided by period, in CPUs."""
        return self.quota_microseconds / self.period_microseconds


class CpuBandwidth(msgspec.Struct, frozen=True):
    """CPU bandwidth and weight; what is None is not limited or not of this cgroup version.

    `limit` is the smallest of the container's cgroup and all above it; `level` says where it
    is, the level nearest to the container if several have the same. `own_limit` is that of
    the container's own cgroup, and `own_period_microseconds` is its period, limit or not; both are
    None for a process in the pod's own cgroup, which is in no container. With
    `is_known` False the agent sees no cpu cgroup of the container, and cannot know of a limit.
    """

    limit: CpuLimit | None = None
    level: CgroupLevel | None = None
    own_limit: CpuLimit | None = None
    own_period_microseconds: int | None = None
    shares: int | None = None
    weight: int | None = None
    is_known: bool = True

    @property
    def quota_cores(self) -> float | None:
        """Return the limit in CPUs; None for no limit."""
        return self.limit.cores if self.limit else None


class CpuFacts(msgspec.Struct, frozen=True):
    """CPU sets as kernel lists ("0-3,8"), and the bandwidth."""

    cpuset: str
    effective_cpus: str
    bandwidth: CpuBandwidth
    cgroup_version: int


def read_cpu(directories: CpuDirectories, files: Files = BY_PATH) -> CpuFacts:
    """Return the CPU facts of a container.

    Raises `FailedPrecondition` if the cgroup is removed, if it names no CPUs anywhere up to
    the root, or if a file that is there cannot be read or is not as the kernel
    writes it.
    """
    facts = _read(directories, files)
    ensure_there(directories, files)
    return facts


def ensure_there(directories: CpuDirectories, files: Files) -> None:
    """Raise `FailedPrecondition` if the container's cgroups are removed: call it after reading.

    Files of a cgroup that goes meanwhile are missing, and the cgroup above would be taken
    for its own.
    """
    cpu = directories.cpu.directory if directories.cpu else None
    for directory in dict.fromkeys(filter(None, (directories.cpuset, cpu))):
        if not files.is_there(directory):
            raise FailedPrecondition(
                Reason.CPUSET_NOT_FOUND,
                "The container's cgroup does not exist any more.",
                read=directory,
                advice="The container has ended.",
            )


def _read(directories: CpuDirectories, files: Files) -> CpuFacts:
    if directories.cgroup_version == 1:
        cpuset = _nearest(files, directories, ("cpuset.cpus",))
        effective = _nearest(files, directories, ("cpuset.effective_cpus", "cpuset.cpus"))
        return CpuFacts(cpuset, effective, _bandwidth(files, directories.cpu), 1)
    # An empty cpuset.cpus means "as the parent"; at the root only the effective
    # set exists. Where the controller is off the files are missing, which means the same.
    cpuset = _nearest(files, directories, ("cpuset.cpus", "cpuset.cpus.effective"))
    effective = _nearest(files, directories, ("cpuset.cpus.effective",))
    return CpuFacts(cpuset, effective, _bandwidth(files, directories.cpu), 2)


def _nearest(files: Files, directories: CpuDirectories, names: tuple[str, ...]) -> str:
    """Return the first of `names` that is not empty, in the cgroup or the nearest one above it."""
    directory = directories.cpuset
    while True:
        for name in names if directory == directories.cpuset_top else names[:1]:
            match = match_if_there(files, directory, name, CPU_LIST)
            if match and match[0]:
                return match[0]
        if directory in (directories.cpuset_top, "/"):
            break
        directory = os.path.dirname(directory)
    raise FailedPrecondition(
        Reason.CPUSET_NOT_FOUND,
        f"No {names[0]} names any CPU from the container's cgroup up to the root.",
        read=f"{directories.cpuset}/{names[0]}",
        advice="The container has ended, or the host's cpuset hierarchy is not mounted at"
        " --host-root.",
    )


def _bandwidth(files: Files, cpu: ControllerDirectory | None) -> CpuBandwidth:
    if cpu is None:
        return CpuBandwidth(is_known=False)
    is_v1 = cpu.cgroup_version == 1
    read = _limit_v1 if is_v1 else _limit_v2
    limits = [(read(files, directory), level) for level, directory in cpu.levels]
    given = [(limit, level) for limit, level in limits if limit is not None]
    # `min` returns the first of equal ones, which is the nearest to the container.
    limit, level = min(given, key=lambda one: one[0].cores, default=(None, None))
    nearest = limits[0][0]
    period = nearest.period_microseconds if nearest else _period(files, cpu)
    return CpuBandwidth(
        limit=limit,
        level=level,
        own_limit=of_container(cpu.levels, nearest),
        own_period_microseconds=of_container(cpu.levels, period),
        shares=number_if_there(files, cpu.directory, "cpu.shares") if is_v1 else None,
        weight=None if is_v1 else number_if_there(files, cpu.directory, "cpu.weight"),
        is_known=is_v1 or bool(limit or period) or _has_cpu_controller(files, cpu.top),
    )


def _has_cpu_controller(files: Files, top: str) -> bool:
    """Return whether cgroup v2 has the controller: else it is in a hierarchy that is not seen."""
    found = match_if_there(files, top, "cgroup.controllers", _CONTROLLERS)
    return found is not None and "cpu" in found[0].split(" ")


def _period(files: Files, cpu: ControllerDirectory) -> int | None:
    """Return the period of a container's cgroup without a limit, in microseconds."""
    if cpu.cgroup_version == 1:
        return number_if_there(files, cpu.directory, "cpu.cfs_period_us")
    found = match_if_there(files, cpu.directory, "cpu.max", _CPU_MAX)
    return int(found["period"]) if found else None


def _limit_v1(files: Files, directory: str) -> CpuLimit | None:
    """Return a cgroup's limit. A quota below 0 is none."""
    quota = number_if_there(files, directory, "cpu.cfs_quota_us")
    if quota is None or quota < 0:
        return None
    period = number_if_there(files, directory, "cpu.cfs_period_us")
    return None if period is None else _limit(quota, period, f"{directory}/cpu.cfs_period_us")


def _limit_v2(files: Files, directory: str) -> CpuLimit | None:
    """Return a cgroup's limit. The root has no cpu.max, and none."""
    found = match_if_there(files, directory, "cpu.max", _CPU_MAX)
    if found is None or found["quota"] == "max":
        return None
    return _limit(int(found["quota"]), int(found["period"]), f"{directory}/cpu.max")


def _limit(quota: int, period: int, path: str) -> CpuLimit:
    if period <= 0:
        raise unusable(path, f"has a period of {period} us, which the kernel never has")
    return CpuLimit(quota, period)
