"""The host's cgroup tree: directories of the paths in /proc/<pid>/cgroup, and their owners.

A name proves nothing: a user with a delegated cgroup (systemd's `user@.service`,
a rootless container engine) may make `pod<uid>/<container ID>` below it, and both
are world-readable. But a directory of a cgroup file system belongs to the user who made
it, so the pod's directory and all above it must be root's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from netutil.agent.errors import (
    FailedPrecondition,
    PermissionDenied,
    Reason,
)
from netutil.agent.identity.cgroup_walk import is_populated, names_in, only_shortage
from netutil.agent.identity.held_cgroups import FileId, HeldCgroups
from netutil.agent.identity.hierarchy import UNIFIED, Hierarchy
from netutil.agent.parsers.cgroup import (
    CgroupIdentity,
    CgroupLine,
    Placement,
    identify,
    parse_cgroup_file,
    place,
)
from netutil.agent.parsers.pod_cgroups import (
    below_node,
    names_a_pod,
)
from netutil.agent.recent_cache import RecentCache, SharedRecentCache

_ROOT_UID = 0
_MAX_OWNERS = 4096
MAX_IDENTITIES = 1024
MAX_IDENTITIES_OF_POD = 32
"""A container's processes have one for each cgroup that they are in, and a workload may make many:
of up to 16 KiB each."""
_MAX_IDENTIFIED_TEXT = 4096


@dataclass(frozen=True, slots=True)
class _Guarded:
    """A directory that root must have made, with all above it up to `top`.

    `is_pods` is whether it is a pod's own. Below its own, a workload makes as many directories
    with the names of containers as it likes, and those above them are not held.
    """

    top: str
    directory: str
    is_pods: bool


@dataclass(frozen=True, slots=True)
class _Identified:
    """What the text of /proc/<pid>/cgroup names."""

    identity: CgroupIdentity
    guarded: tuple[_Guarded, ...]


def _owner_of(found: _Identified) -> str:
    """Return the pod UID of an identity, or else the ID of the first container that it names."""
    identity = found.identity
    containers = (one for placement in identity.placements for one, _ in placement.containers)
    return identity.pod_uid or next(containers, "")


@dataclass(frozen=True, slots=True)
class CgroupTree:
    """The host's hierarchies by controller; `UNIFIED` is the key of cgroup v2's.

    `made_by_root` are directories that are root's with all above them. A cgroup is never moved
    to another parent, and only root gives one of its own away: what is once found so of a
    directory stays so as long as that directory, by its number, is there and root's.
    `identities` are what was found by the text that named it: all processes of a container have
    the same text. `held` are pods' directories that were found so: a connection of a pod that
    was seen before walks no path.
    """

    hierarchies: Mapping[str, Hierarchy] = field(default_factory=dict)
    made_by_root: RecentCache[FileId, bool] = field(
        default_factory=lambda: RecentCache(_MAX_OWNERS), repr=False, compare=False
    )
    held: HeldCgroups = field(default_factory=HeldCgroups, repr=False, compare=False)
    identities: SharedRecentCache[str, _Identified] = field(
        default_factory=lambda: SharedRecentCache(
            MAX_IDENTITIES, MAX_IDENTITIES_OF_POD // 2, _owner_of
        ),
        repr=False,
        compare=False,
    )

    def identify(self, text: str) -> CgroupIdentity:
        """Return the pod and the container that the text of /proc/<pid>/cgroup names.

        Raises as `netutil.agent.parsers.cgroup.identify`.
        """
        return self._look_up(text).identity

    def identify_made_by_root(self, text: str) -> CgroupIdentity:
        """Return as `identify`, and raise as `ensure_made_by_root` if the identity is of a pod UID.

        An identity without one is checked once the pod list has chosen its container.
        """
        found = self._look_up(text)
        if found.identity.pod_uid is not None:
            self._ensure_root_made(found.guarded)
        return found.identity

    def _look_up(self, text: str) -> _Identified:
        known = self.identities.get(text)
        if known is not None:
            return known
        identity = identify(text, self._place)
        found = _Identified(identity, self._guarded(identity))
        if len(text) <= _MAX_IDENTIFIED_TEXT:  # a workload may make it much longer
            self.identities[text] = found
        return found

    def shows_no_pod(self, text: str) -> bool:
        """Return whether the text of /proc/<pid>/cgroup names no pod and no container at all.

        Names count at any depth, but for those of containers that the node itself is in.
        False where the agent sees the place of no line, and for a text that is not as cgroups(7)
        says.
        """
        try:
            lines = parse_cgroup_file(text)
        except FailedPrecondition:
            return False
        placed = [placement for placement in map(self._place, lines) if placement is not None]
        return bool(placed) and not any(self._names_a_pod(line) for line in lines)

    def _names_a_pod(self, line: CgroupLine) -> bool:
        hierarchy = self.hierarchy_of(line)
        path = hierarchy.absolute(line.path) if hierarchy else None
        if hierarchy is None or path is None:
            return names_a_pod(line.path)
        return names_a_pod(below_node(path, hierarchy.places))

    def _place(self, line: CgroupLine) -> Placement | None:
        hierarchy = self.hierarchy_of(line)
        path = hierarchy.absolute(line.path) if hierarchy else None
        return place(line, path, hierarchy.places) if hierarchy and path is not None else None

    def hierarchy_of(self, line: CgroupLine) -> Hierarchy | None:
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

    def any_container_directory(self, identity: CgroupIdentity) -> str | None:
        """Return a directory with all of the process's container, None if it is in none."""
        return self._first_directory(identity, lambda placement: placement.container_path)

    def scope_directory(self, identity: CgroupIdentity) -> str | None:
        """Return the caller's pod's directory in one hierarchy, or else its container's."""
        return self._first_directory(identity, lambda one: one.pod_path or one.container_path)

    def _first_directory(
        self, identity: CgroupIdentity, path_of: Callable[[Placement], str | None]
    ) -> str | None:
        """Return the directory of the first path that is mounted for the agent."""
        for placement in identity.placements:
            hierarchy, path = self.hierarchy_of(placement.line), path_of(placement)
            directory = hierarchy.resolve(path) if hierarchy and path is not None else None
            if directory is not None:
                return directory
        return None

    def pod_directories(
        self, identity: CgroupIdentity, container_ids: Collection[str] = ()
    ) -> tuple[str, ...]:
        """Return the directories at or below which the processes of the caller's pod are.

        That is the pod's own directory if it has one. If it has none, they are those of its
        containers beside the caller's: with the pod's UID in their names (containerd's cgroupfs
        driver below a kubelet with the systemd driver), or without any (CRI-O under some set-ups),
        where `container_ids` are those that the pod list reports of the pod.

        The directories only say where to look: whether a process in them is of the pod is for the
        caller of this function to check. Blocks: not for the loop. Raises OSError for a shortage.
        """
        for placement in identity.placements:
            hierarchy = self.hierarchy_of(placement.line)
            path = placement.pod_path or placement.container_path
            directory = hierarchy.resolve(path) if hierarchy and path is not None else None
            if directory is None:
                continue
            if placement.pod_path is not None and placement.pod_path != placement.container_path:
                return (directory,)
            parent, name = os.path.split(directory)
            before, _, after = name.rpartition(placement.container_id or name)
            if placement.pod_path is not None:
                names = names_in(parent, before)
            else:
                names = [f"{before}{container_id}{after}" for container_id in container_ids]
            return tuple(dict.fromkeys((directory, *(f"{parent}/{one}" for one in names))))
        return ()

    def runs_beside(self, identity: CgroupIdentity, container_id: str) -> bool:
        """Return whether another container of the process's pod has processes.

        A runtime names all containers of a pod alike. One that has ended may keep an empty cgroup
        until it is removed (CRI-O). True where it cannot be known.
        """
        if identity.container_id is None or not container_id.isalnum():
            return True
        for placement in identity.placements:
            hierarchy = self.hierarchy_of(placement.line)
            above, _, name = (placement.container_path or "").rpartition("/")
            path = f"{above}/{name.replace(identity.container_id, container_id)}"
            directory = hierarchy.resolve(path) if hierarchy and name else None
            if hierarchy and directory and is_populated(directory, hierarchy.version):
                return True
        return False

    def has_container(self, identity: CgroupIdentity) -> bool:
        """Return whether the cgroup of the process's container is still there."""
        directory = self.any_container_directory(identity)
        return directory is not None and os.path.isdir(directory)

    def ensure_made_by_root(self, identity: CgroupIdentity) -> None:
        """Raise `PermissionDenied` unless root made the pod's cgroup directory and each one above
        it.

        Every mounted hierarchy that contributed to the identity is checked.
        Where no segment has a pod UID, the directories above the container's
        are: the container's own may belong to a user-namespaced pod's root.
        """
        self._ensure_root_made(self._guarded(identity))

    def _guarded(self, identity: CgroupIdentity) -> tuple[_Guarded, ...]:
        """Return the directories of an identity that root must have made, of those mounted."""
        found = []
        for placement in identity.placements:
            hierarchy = self.hierarchy_of(placement.line)
            guarded = _guarded_path(placement)
            directory = hierarchy.resolve(guarded) if hierarchy and guarded is not None else None
            if hierarchy and directory is not None:
                is_pods = placement.pod_path is not None
                found.append(_Guarded(hierarchy.directory, directory, is_pods))
        return tuple(found)

    def _ensure_root_made(self, guarded: tuple[_Guarded, ...]) -> None:
        if not guarded:
            raise PermissionDenied(
                Reason.CGROUP_NOT_OWNED_BY_ROOT,
                "It is not known who made the caller's cgroup, because the host's cgroup"
                " file systems are not visible to the agent.",
                read=", ".join(sorted(h.directory for h in self.hierarchies.values())),
                advice="Mount the host's /sys into the agent's container; --host-root names it.",
            )
        for one in guarded:
            if not one.is_pods:
                self._check_by_path(one)
            elif not (self.held.has(one.directory) or self.held.hold_below(one.directory)):
                self.held.check(one.directory, partial(self._check_by_path, one))
                self._hold_above(one)

    def _hold_above(self, guarded: _Guarded) -> None:
        """Hold the directory above a pod's that was just checked, for the pods to come."""
        above = os.path.dirname(guarded.directory)
        if above == guarded.top or self.held.has_above(guarded.directory):
            return
        check = partial(self._check_by_path, _Guarded(guarded.top, above, is_pods=False))
        with suppress(PermissionDenied, OSError):  # it was root's when the pod's was made
            self.held.hold_above(guarded.directory, guarded.top, check)

    def _check_by_path(self, guarded: _Guarded) -> FileId:
        number = _root_owned(guarded.directory)
        if self.made_by_root.get(number) is None:
            self._ensure_root_owns_above(guarded)
            self.made_by_root[number] = True
        return number

    def _ensure_root_owns_above(self, guarded: _Guarded) -> None:
        current = guarded.directory
        while current != guarded.top:
            current = os.path.dirname(current)
            _root_owned(current)


def _guarded_path(placement: Placement) -> str | None:
    if placement.pod_path is not None:
        return placement.pod_path
    path = placement.container_path
    return None if path is None else os.path.dirname(path) or "/"


def _root_owned(directory: str) -> FileId:
    """Return the identity of a directory owned by root.

    Raises `PermissionDenied` for a directory of another owner, OSError for a shortage.
    """
    try:
        found = os.lstat(directory)
    except OSError as error:
        only_shortage(error)
        raise PermissionDenied(
            Reason.CGROUP_NOT_OWNED_BY_ROOT,
            f"The caller's cgroup cannot be checked: {error.strerror}.",
            read=directory,
        ) from error
    if found.st_uid != _ROOT_UID:
        raise _not_owned(directory, found.st_uid)
    return found.st_dev, found.st_ino


def _not_owned(directory: str, owner: int) -> PermissionDenied:
    return PermissionDenied(
        Reason.CGROUP_NOT_OWNED_BY_ROOT,
        f"The caller's cgroup was made by uid {owner}, not by the kubelet:"
        " its name proves nothing.",
        read=directory,
        advice="A pod's cgroups are made by root. A delegated cgroup of a user"
        " session or a rootless engine is no pod.",
    )
