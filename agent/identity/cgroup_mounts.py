"""Reads which cgroup hierarchies of the host are mounted for the agent."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from netutil.agent.identity.cgroup_walk import cgroups_below
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.held_cgroups import HeldCgroups
from netutil.agent.identity.hierarchy import UNIFIED, Hierarchy
from netutil.agent.parsers.cgroup import (
    CgroupLine,
    CgroupMount,
    parse_cgroup_file,
    parse_cgroup_mounts,
)
from netutil.agent.parsers.pod_cgroups import (
    pod_places,
)


def read_cgroup_tree(
    host_root: str, cgroup_root: str = "", held: HeldCgroups | None = None
) -> CgroupTree:
    """Return the host's cgroup mounts at or below `host_root`, from the agent's own mountinfo.

    Never from a workload's: it can shape that. Where the agent is in a
    private cgroup namespace, it finds its own place in the host's mount first. `cgroup_root` is
    the kubelet's, "" for one of those that the agent's own place shows. `held` is where pods'
    directories are held, None for one of its own.
    """
    mounts = parse_cgroup_mounts(_own("mountinfo"))
    own = parse_cgroup_file(_own("cgroup"))
    tree = build_tree(mounts, own, host_root, cgroup_root)
    return tree if held is None else replace(tree, held=held)


def build_tree(
    mounts: Iterable[CgroupMount], own: Iterable[CgroupLine], host_root: str, cgroup_root: str = ""
) -> CgroupTree:
    """Return the tree for known mounts; of several mounts of one hierarchy the widest counts.

    A mount in which the agent cannot find its own place is left out.
    """
    below = host_root.rstrip("/") + "/"
    best: dict[str, CgroupMount] = {}
    lines = tuple(own)
    for mount in mounts:
        if not mount.mount_point.startswith(below):
            continue
        for controller in _controllers(mount, lines):
            if controller not in best or _width(mount) > _width(best[controller]):
                best[controller] = mount
    found = {c: _hierarchy(mount, c, lines, cgroup_root) for c, mount in best.items()}
    return CgroupTree({c: hierarchy for c, hierarchy in found.items() if hierarchy is not None})


def _controllers(mount: CgroupMount, own: Iterable[CgroupLine]) -> tuple[str, ...]:
    if mount.version == 2:  # noqa: PLR2004 - cgroup v2
        return (UNIFIED,)
    return tuple(
        controller for line in own for controller in line.controllers if controller in mount.options
    )


def _width(mount: CgroupMount) -> int:
    """Rank a mount: the more of the hierarchy it shows, the higher."""
    steps = [step for step in mount.root.split("/") if step]
    above = steps.count("..")
    return above if above else -len(steps)


def _hierarchy(
    mount: CgroupMount, controller: str, own: Iterable[CgroupLine], cgroup_root: str
) -> Hierarchy | None:
    lines = (line for line in own if controller in (line.controllers or (UNIFIED,)))
    path = next((line.path for line in lines), "/")
    root, namespace = mount.root, ""
    if mount.root.startswith("/.."):
        place = _own_place(mount.mount_point)
        if place is None:
            return None
        root, namespace = "/", place.removesuffix(path.rstrip("/"))
    hierarchy = Hierarchy(mount.version, mount.mount_point, root, namespace)
    places = pod_places(hierarchy.absolute(path) or "/", cgroup_root)
    return replace(hierarchy, places=places)


def _own(name: str) -> str:
    """Return a file of the agent's own process. Paths in it need not be UTF-8, nor lines end at CR.

    A user who may mount anything on the host, FUSE for one, chooses such paths.
    """
    return Path("/proc/self", name).read_bytes().decode("utf-8", errors="surrogateescape")


def _own_place(mount_point: str) -> str | None:
    """Return where the agent's own process is below the mount.

    /proc/self/cgroup cannot say it in a private cgroup namespace, so the
    directory whose cgroup.procs lists this process is looked for, once. None if there is none.
    """
    pid = str(os.getpid())
    # The nearest first: a container may nest cgroups, and its own are farther than the agent's.
    for folder in cgroups_below(mount_point, breadth_first=True):
        try:
            members = Path(folder, "cgroup.procs").read_text(encoding="ascii").split()
        except OSError:
            continue
        if pid in members:
            return folder.removeprefix(mount_point)
    return None
