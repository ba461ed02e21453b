"""Cpuset partitions: whether the kernel keeps other processes off a container's CPUs.

Sources: cgroup-v2.rst, section "Cpuset" (cpuset.cpus.partition, cpuset.cpus.exclusive,
cpuset.cpus.exclusive.effective); cgroup-v1/cpusets.rst, section 1.4 (cpuset.cpu_exclusive).

The kernel enforces a partition, independent of who requested it. A partition is no statement of the
kubelet's, and the kubelet's CPU manager makes none: it gives CPUs to a container and takes them out
of the sets of the other containers that it knows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from netutil.agent.facts.cgroup_file import CPU_LIST, match_if_there, number_if_there
from netutil.agent.facts.cgroup_levels import CgroupLevel, of_container
from netutil.agent.facts.cpu import CpuDirectories, ensure_there
from netutil.agent.facts.sysfs import BY_PATH, Files

MEMBER = "member"
# cpuset_partition_show in the kernel's kernel/cgroup/cpuset.c:
# "isolated", or "isolated invalid (Cpu list in cpuset.cpus not exclusive)".
_PARTITION = re.compile(
    r"(?P<state>member|(?:root|isolated)(?: invalid)?)(?: \((?P<reason>[^\n]{1,200})\))?"
)


@dataclass(frozen=True, slots=True)
class CpusetPartition:
    """The cpuset partition that a container's CPUs belong to.

    `state` is as the kernel writes it, of the nearest cgroup from the container's upwards that
    is a partition root: "root", "isolated", "root invalid" or "isolated invalid"; "member" if
    there is none up to the root; "" on cgroup v1 and where no such file is. `invalid_reason` are
    the kernel's words for it. `level` is that of the cgroup, None if there is none.
    `exclusive_cpus` are the CPUs that only cgroups below that one may use: a kernel list, None
    where the partition is not valid or the kernel (before Linux 6.7) has no such file.
    `requested_cpus` are the container's own cpuset.cpus.exclusive: a request, with no effect
    outside of a partition. `cpu_exclusive` is cgroup v1's flag of the container's cgroup: no other
    cgroup but those above and below it has any of its CPUs.
    """

    state: str = ""
    invalid_reason: str = ""
    level: CgroupLevel | None = None
    exclusive_cpus: str | None = None
    requested_cpus: str | None = None
    cpu_exclusive: bool | None = None


def read_partition(directories: CpuDirectories, files: Files = BY_PATH) -> CpusetPartition:
    """Return the partition of a container's CPUs. Raises `FailedPrecondition` as `read_cpu`."""
    read = _read_v1 if directories.cgroup_version == 1 else _read_v2
    found = read(files, directories)
    ensure_there(directories, files)
    return found


def _read_v1(files: Files, directories: CpuDirectories) -> CpusetPartition:
    flag = number_if_there(files, directories.cpuset, "cpuset.cpu_exclusive")
    return CpusetPartition(cpu_exclusive=None if flag is None else flag != 0)


def _read_v2(files: Files, directories: CpuDirectories) -> CpusetPartition:
    levels = directories.cpuset_levels
    requested = of_container(levels, _cpus(files, directories.cpuset, "cpuset.cpus.exclusive"))
    state = ""
    for level, directory in levels:
        found = match_if_there(files, directory, "cpuset.cpus.partition", _PARTITION)
        if found is None:
            continue  # the root, or the controller is not handed down so far
        state = found["state"]
        if state != MEMBER:
            valid = not state.endswith(" invalid")
            exclusive = (
                _cpus(files, directory, "cpuset.cpus.exclusive.effective") if valid else None
            )
            reason = found["reason"] or ""
            return CpusetPartition(state, reason, level, exclusive, requested)
    return CpusetPartition(state, requested_cpus=requested)


def _cpus(files: Files, directory: str, name: str) -> str | None:
    found = match_if_there(files, directory, name, CPU_LIST)
    return found[0] if found else None
