"""The cgroup levels above a container, with their Kubernetes names.

A limit of a cgroup holds for everything below it (cgroup-v2.rst, "Top-down Constraint";
scheduler/sched-bwc.rst, "Hierarchical considerations"), so a container without a limit of its
own may still be limited by its pod, by a QoS class, by `kubepods`, or by a cgroup above.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from netutil.agent.shared_text import shared

Fact = TypeVar("Fact")
# cgroupfs driver:  /kubepods/burstable/pod<uid>
# systemd driver:   /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice
# below a root:     /kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/…
# Pods of the class Guaranteed are directly below kubepods.
_QOS_CLASS = re.compile(r"(?:burstable|besteffort|[^/]*-(?:burstable|besteffort)\.slice)")
_KUBEPODS = re.compile(r"(?:kubepods|(?:[^/]*-)?kubepods\.slice)")


class CgroupLevel(StrEnum):
    """The level of a cgroup, from the container outwards.

    `POD`, `QOS_CLASS` and `KUBEPODS` are the cgroups that the kubelet makes ("Reserve Compute
    Resources for System Daemons" calls the last one the node allocatable's). `ABOVE` is
    every cgroup above those, up to the root that the agent sees.
    """

    CONTAINER = "container"
    POD = "pod"
    QOS_CLASS = "qos-class"
    KUBEPODS = "kubepods"
    ABOVE = "above"


Levels = tuple[tuple[CgroupLevel, str], ...]
"""Directories with their levels: the container's first, the mount point last.

For a process in a pod's own cgroup, which is in no container, the pod's is the first.
"""


@dataclass(frozen=True, slots=True)
class ControllerDirectory:
    """A container's cgroup directory in the hierarchy of one controller.

    `top` is the mount point: no file above it is read. `pod` is the directory of the pod,
    None where it has none of its own: no segment of the path has a pod UID, or the one that does
    is the container's. `directory` is `pod` for a process that is in no container.
    """

    cgroup_version: int
    directory: str
    top: str
    pod: str | None = None

    @property
    def levels(self) -> Levels:
        """Return the directory and all above it, up to and with `top`."""
        return cgroup_levels(self.directory, self.top, self.pod)


def of_container(levels: Levels, fact: Fact | None) -> Fact | None:
    """Return a fact that was read in the first of `levels`, None if that is no container's."""
    return fact if levels[0][0] is CgroupLevel.CONTAINER else None


def cgroup_levels(directory: str, top: str, pod: str | None) -> Levels:
    """Return `directory` and all above it, up to and with `top`, each with its level.

    `directory` is the container's, or `pod` itself for a process in no container (gVisor on cgroup
    v1). `pod` is None where the pod has no cgroup of its own.
    Only the innermost `kubepods` counts: a node that runs inside a pod has those of the outer
    node above it, and to its own pods they are `ABOVE`.
    """
    level = CgroupLevel.POD if directory == pod else CgroupLevel.CONTAINER
    found = [(level, directory)]
    inside_pod = pod is not None and directory.startswith(f"{pod}/")
    current = directory
    while current not in (top, "/"):
        current = shared(os.path.dirname(current))  # mostly that of other pods too
        if inside_pod:
            level = CgroupLevel.POD
            inside_pod = current != pod
        else:
            level = _level_above(level, os.path.basename(current))
        found.append((level, current))
    return tuple(found)


def _level_above(below: CgroupLevel, name: str) -> CgroupLevel:
    """Return the level of a cgroup that contains pods, by its name and the level below it."""
    if below in (CgroupLevel.CONTAINER, CgroupLevel.POD) and _QOS_CLASS.fullmatch(name):
        return CgroupLevel.QOS_CLASS
    if below not in (CgroupLevel.KUBEPODS, CgroupLevel.ABOVE) and _KUBEPODS.fullmatch(name):
        return CgroupLevel.KUBEPODS
    return CgroupLevel.ABOVE
