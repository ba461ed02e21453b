"""The host's cgroup tree: from a path in /proc/<pid>/cgroup to a directory, and who made it.

A name proves nothing: whoever has a delegated cgroup (systemd's `user@.service`,
a rootless container engine) may make `pod<uid>/<container ID>` below it, and both
are world-readable. But a directory of a cgroup file system belongs to who made
it, so the pod's directory and all above it must be root's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from netutil.agent.errors import Denied, Reason
from netutil.agent.parsers.cgroup import (
    CgroupIdentity,
    CgroupLine,
    Placement,
    parse_cgroup_file,
    place,
)
from netutil.agent.parsers.mountinfo import CgroupMount, parse_cgroup_mounts

UNIFIED = ""
_ROOT_UID = 0
_DEEPEST = 12


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy of the host.

    `root` is the cgroup that is mounted. `namespace` is the path, below the
    mount, of the cgroup namespace that paths in /proc/<pid>/cgroup are
    relative to: "" where the agent shares the host's.
    """

    version: int
    directory: str
    root: str = "/"
    namespace: str = ""

    def resolve(self, path: str) -> str | None:
        """Return the directory of a cgroup path, None if it lies outside of what is mounted."""
        absolute = os.path.normpath(f"/{self.namespace}/{path}")
        if self.root == "/":
            return os.path.normpath(f"{self.directory}/{absolute}")
        if absolute != self.root and not absolute.startswith(f"{self.root}/"):
            return None
        return os.path.normpath(f"{self.directory}/{absolute.removeprefix(self.root)}")


@dataclass(frozen=True, slots=True)
class CgroupTree:
    """The host's hierarchies by controller; `UNIFIED` is the key of cgroup v2's."""

    hierarchies: Mapping[str, Hierarchy] = field(default_factory=dict)

    def of_line(self, line: CgroupLine) -> Hierarchy | None:
        """Return the mounted hierarchy that a line of /proc/<pid>/cgroup speaks of."""
        for controller in line.controllers or (UNIFIED,):
            if controller in self.hierarchies:
                return self.hierarchies[controller]
        return None

    def container_directory(self, identity: CgroupIdentity, controller: str) -> str | None:
        """Return the directory of the process's container in one hierarchy, None if it has none."""
        path = identity.container_path(controller)
        hierarchy = self.hierarchies.get(controller)
        return hierarchy.resolve(path) if hierarchy and path is not None else None

    def scope_directory(self, identity: CgroupIdentity) -> str | None:
        """Return a directory with all of the caller's pod, or else of its container."""
        for placement in identity.placements:
            hierarchy = self.of_line(placement.line)
            path = placement.pod_path or placement.container_path
            if hierarchy and path is not None:
                return hierarchy.resolve(path)
        return None

    def ensure_made_by_root(self, identity: CgroupIdentity) -> None:
        """Raise `Denied` unless root made the pod's cgroup directory and each one above it.

        Every mounted hierarchy that contributed to the identity is checked.
        Where no segment bears a pod UID, the directories above the container's
        are: the container's own may belong to a user-namespaced pod's root.
        """
        checked = 0
        for placement in identity.placements:
            hierarchy = self.of_line(placement.line)
            guarded = _guarded_path(placement)
            directory = hierarchy.resolve(guarded) if hierarchy and guarded is not None else None
            if hierarchy and directory is not None:
                _ensure_root_owns(hierarchy.directory, directory)
                checked += 1
        if not checked:
            raise Denied(
                Reason.CGROUP_NOT_OWNED_BY_ROOT,
                "Nobody can tell who made the caller's cgroup, because the host's cgroup"
                " file systems are not visible to the agent.",
                read=", ".join(sorted(h.directory for h in self.hierarchies.values())),
                advice="Mount the host's /sys into the agent's container; --host-root names it.",
            )


def read_cgroup_tree(host_root: str) -> CgroupTree:
    """Return the host's cgroup mounts at or below `host_root`, from the agent's own mountinfo.

    Never from a workload's: it can shape that. Where the agent stands in a
    private cgroup namespace, it finds its own place in the host's mount first.
    """
    mounts = parse_cgroup_mounts(_own("mountinfo"))
    own = parse_cgroup_file(_own("cgroup"))
    return build_tree(mounts, own, host_root)


def build_tree(
    mounts: Iterable[CgroupMount], own: Iterable[CgroupLine], host_root: str
) -> CgroupTree:
    """Return the tree for known mounts; of several mounts of one hierarchy the widest counts."""
    below = host_root.rstrip("/") + "/"
    best: dict[str, CgroupMount] = {}
    lines = tuple(own)
    for mount in mounts:
        if not mount.mount_point.startswith(below):
            continue
        for controller in _controllers(mount, lines):
            if controller not in best or _width(mount) > _width(best[controller]):
                best[controller] = mount
    return CgroupTree(
        {controller: _hierarchy(mount, controller, lines) for controller, mount in best.items()}
    )


def processes_below(directory: str) -> Iterator[int]:
    """Yield the host pids in a cgroup and all below it (cgroup.procs), as they are now."""
    for folder, _, files in os.walk(directory):
        if "cgroup.procs" not in files:
            continue
        try:
            text = Path(folder, "cgroup.procs").read_text(encoding="ascii")
        except (FileNotFoundError, OSError):
            # The cgroup went away meanwhile, or is a threaded one of cgroup v2,
            # whose processes the nearest domain above it lists.
            continue
        for line in text.split():
            yield int(line)


def containers_below(hierarchy: Hierarchy) -> dict[str, str]:
    """Return the directory of every container in a hierarchy whose path bears a pod UID.

    For the operators' view: names are taken as they stand. Blocks: not for the loop.
    """
    found: dict[str, str] = {}
    for folder, below, _ in os.walk(hierarchy.directory):
        path = folder.removeprefix(hierarchy.directory) or "/"
        placement = place(CgroupLine(0, (), path))
        if placement.pod_uid and placement.container_id:
            found.setdefault(placement.container_id, folder)
            below.clear()
        elif path.count("/") >= _DEEPEST:
            below.clear()
    return found


def _guarded_path(placement: Placement) -> str | None:
    if placement.pod_path is not None:
        return placement.pod_path
    path = placement.container_path
    return None if path is None else os.path.dirname(path) or "/"


def _ensure_root_owns(top: str, directory: str) -> None:
    current = directory
    while True:
        try:
            owner = os.stat(current, follow_symlinks=False).st_uid
        except OSError as error:
            raise Denied(
                Reason.CGROUP_NOT_OWNED_BY_ROOT,
                f"The caller's cgroup cannot be checked: {error.strerror}.",
                read=current,
            ) from error
        if owner != _ROOT_UID:
            raise Denied(
                Reason.CGROUP_NOT_OWNED_BY_ROOT,
                f"The caller's cgroup was made by uid {owner}, not by the kubelet:"
                " its name proves nothing.",
                read=current,
                advice="A pod's cgroups are made by root. A delegated cgroup of a user"
                " session or a rootless engine is no pod.",
            )
        if current == top:
            return
        current = os.path.dirname(current)


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


def _hierarchy(mount: CgroupMount, controller: str, own: Iterable[CgroupLine]) -> Hierarchy:
    if not mount.root.startswith("/.."):
        return Hierarchy(mount.version, mount.mount_point, mount.root)
    path = next(line.path for line in own if controller in (line.controllers or (UNIFIED,)))
    place = _own_place(mount.mount_point)
    return Hierarchy(mount.version, mount.mount_point, "/", place.removesuffix(path.rstrip("/")))


def _own(name: str) -> str:
    """Return a file of the agent's own process. Paths in it need not be UTF-8, nor lines end at CR.

    Whoever may mount anything on the host, a user's FUSE for one, chooses such paths.
    """
    return Path("/proc/self", name).read_bytes().decode("utf-8", errors="surrogateescape")


def _own_place(mount_point: str) -> str:
    """Return where the agent's own process stands below the mount.

    /proc/self/cgroup cannot say it in a private cgroup namespace, so the
    directory whose cgroup.procs lists this process is looked for, once.
    """
    pid = str(os.getpid())
    for folder, _, _ in os.walk(mount_point):
        try:
            members = Path(folder, "cgroup.procs").read_text(encoding="ascii").split()
        except OSError:
            continue
        if pid in members:
            return folder.removeprefix(mount_point)
    return ""
