"""The CPUs of a container, from its cgroup.

Sources: the kernel's cgroup-v1/cpusets.rst, scheduler/sched-bwc.rst (cgroup v1)
and cgroup-v2.rst, sections "CPU" and "Cpuset".
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass

from netutil.agent.errors import Inconsistent, Reason, is_shortage
from netutil.agent.facts.kernel_file import read_kernel_file

# bitmap_print_to_pagebuf in the kernel's lib/bitmap-str.c: "0-3,8", or nothing.
_CPU_LIST = re.compile(r"(?:[0-9]{1,6}(?:-[0-9]{1,6})?(?:,[0-9]{1,6}(?:-[0-9]{1,6})?)*)?")
_NUMBER = re.compile(r"-?[0-9]{1,19}")
_CPU_MAX = re.compile(r"(?P<quota>max|[0-9]{1,19}) (?P<period>[0-9]{1,19})")


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

    Raises `Inconsistent` if the cgroup is gone, if it names no CPUs anywhere up to
    the root, or if a file that is there cannot be read or is not as the kernel
    writes it.
    """
    facts = _read(directories)
    # Only now: files of a cgroup that goes meanwhile are missing, and what stands
    # above it would be taken for its own.
    for directory in filter(None, (directories.cpuset, directories.cpu)):
        if not os.path.isdir(directory):
            raise Inconsistent(
                Reason.CPUSET_NOT_FOUND,
                "The container's cgroup is gone.",
                read=directory,
                advice="The container has ended.",
            )
    return facts


def _read(directories: CpuDirectories) -> CpuFacts:
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
            match = _match_if_there(directory, name, _CPU_LIST)
            if match and match[0]:
                return match[0]
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
    quota = _number(directory, "cpu.cfs_quota_us")
    return CpuBandwidth(
        quota_microseconds=quota if quota is not None and quota >= 0 else None,
        period_microseconds=_number(directory, "cpu.cfs_period_us"),
        shares=_number(directory, "cpu.shares"),
    )


def _bandwidth_v2(directory: str | None) -> CpuBandwidth:
    if directory is None:
        return CpuBandwidth()
    limit = _match_if_there(directory, "cpu.max", _CPU_MAX)
    return CpuBandwidth(
        quota_microseconds=int(limit["quota"]) if limit and limit["quota"] != "max" else None,
        period_microseconds=int(limit["period"]) if limit else None,
        weight=_number(directory, "cpu.weight"),
    )


def _number(directory: str, name: str) -> int | None:
    match = _match_if_there(directory, name, _NUMBER)
    return int(match[0]) if match else None


def _match_if_there(directory: str, name: str, form: re.Pattern[str]) -> re.Match[str] | None:
    """Return the match of a file's whole text; None if the cgroup or the file is not there.

    Raises `Inconsistent` for another text, or none to be had; OSError for a shortage.
    """
    path = f"{directory}/{name}"
    try:
        text = read_kernel_file(directory, name).decode("ascii", errors="replace")
        text = text.removesuffix("\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ENODEV:  # the cgroup went after the file was opened
            return None
        if is_shortage(error):
            raise
        raise _unusable(path, f"cannot be read: {error.strerror}") from error
    match = form.fullmatch(text)
    if match is None:
        raise _unusable(path, f"holds {text[:60]!r}, which is not what the kernel writes there")
    return match


def _unusable(path: str, why: str) -> Inconsistent:
    return Inconsistent(
        Reason.CGROUP_FILE_UNUSABLE,
        f"The file {path} {why}.",
        read=path,
        advice="Look at that file on the node; see whether --host-root names the host's own"
        " cgroup file systems.",
    )
