"""The host's cgroup tree: directories of the paths in /proc/<pid>/cgroup, and their owners.

A name proves nothing: a user with a delegated cgroup (systemd's `user@.service`,
a rootless container engine) may make `pod<uid>/<container ID>` below it, and both
are world-readable. But a directory of a cgroup file system belongs to the user who made
it, so the pod's directory and all above it must be root's.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from netutil.agent.errors import (
    FailedPrecondition,
    PermissionDenied,
    Reason,
    is_resource_exhaustion,
)
from netutil.agent.identity.held_cgroups import FileId, HeldCgroups
from netutil.agent.parsers.cgroup import (
    CgroupIdentity,
    CgroupLine,
    CgroupMount,
    Placement,
    identify,
    parse_cgroup_file,
    parse_cgroup_mounts,
    place,
)
from netutil.agent.parsers.pod_cgroups import (
    PodPlaces,
    below_node,
    joined_parents,
    kubepods_directories,
    locate,
    names_a_pod,
    pod_places,
)
from netutil.agent.recent_cache import RecentCache, SharedRecentCache

UNIFIED = ""
_ROOT_UID = 0
_MAX_DEPTH = 12
_MAX_OWNERS = 4096
MAX_IDENTITIES = 1024
MAX_IDENTITIES_OF_POD = 32
"""A container's processes have one for each cgroup that they are in, and a workload may make many:
of up to 16 KiB each."""
_MAX_IDENTIFIED_TEXT = 4096
_LINKS_OF_A_LEAF = 2
"""st_nlink of a directory without directories, as kernfs counts it (fs/kernfs/dir.c)."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy of the host.

    `root` is the cgroup that is mounted. `namespace` is the path, below the
    mount, of the cgroup namespace that paths in /proc/<pid>/cgroup are
    relative to: "" where the agent shares the host's. `places` are the locations of pods' cgroups.
    """

    version: int
    directory: str
    root: str = "/"
    namespace: str = ""
    places: PodPlaces = field(default_factory=pod_places, repr=False)

    def absolute(self, path: str) -> str | None:
        """Return a path of /proc/<pid>/cgroup from the hierarchy's root, as far as the agent sees.

        None if the path leads above that root.
        """
        segments: list[str] = []
        for segment in f"{self.namespace}/{path}".split("/"):
            if segment == "..":
                if not segments:
                    return None
                segments.pop()
            elif segment and segment != ".":
                segments.append(segment)
        return "/" + "/".join(segments)

    def resolve(self, path: str) -> str | None:
        """Return the directory of an absolute path, None if it lies outside of what is mounted."""
        if self.root == "/":
            return os.path.normpath(f"{self.directory}/{path}")
        if path != self.root and not path.startswith(f"{self.root}/"):
            return None
        return os.path.normpath(f"{self.directory}/{path.removeprefix(self.root)}")

    def container_at(self, directory: str) -> str | None:
        """Return the ID of the container of which a directory is the own cgroup, None if of none.

        Only of a container whose path has a pod UID.
        """
        path = self._path_of(directory)
        found = locate(path, self.places)
        return found.container_id if found.pod_uid and found.container_path == path else None

    def pod_at(self, directory: str) -> str | None:
        """Return the normalised UID of the pod that a directory's path names, None for no pod."""
        return locate(self._path_of(directory), self.places).pod_uid

    def _path_of(self, directory: str) -> str:
        below = directory.removeprefix(self.directory)
        return f"{'' if self.root == '/' else self.root}{below}"


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
                names = _names_in(parent, before)
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
            if hierarchy and directory and _is_populated(directory, hierarchy.version):
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


def _cgroups_below(
    directory: str,
    *,
    breadth_first: bool = False,
    onerror: Callable[[OSError], None] = lambda _: None,
) -> Iterator[str]:
    """Yield a directory and all below it, each before those in it.

    os.walk of Python 3.11 calls itself for each level, and a workload that may make cgroups nests
    more of them than Python allows calls. `onerror` gets the error of what cannot be listed, which
    is then left out.
    """
    waiting = deque([directory])
    while waiting:
        folder = waiting.popleft() if breadth_first else waiting.pop()
        try:
            with os.scandir(folder) as entries:
                below = [one.path for one in entries if one.is_dir(follow_symlinks=False)]
        except OSError as error:
            onerror(error)
            continue
        yield folder
        waiting.extend(below if breadth_first else reversed(below))


def processes_below(directory: str) -> Iterator[int]:
    """Yield the host pids in a cgroup and all below it (cgroup.procs), as they are now.

    Raises OSError for a shortage: a process that was not looked for is not missing.
    """
    for folder in _cgroups_below(directory, onerror=_only_shortage):
        try:
            text = Path(folder, "cgroup.procs").read_text(encoding="ascii")
        except OSError as error:
            # The cgroup went away meanwhile, or is a threaded one of cgroup v2,
            # whose processes the nearest domain above it lists.
            _only_shortage(error)
            continue
        for line in text.split():
            yield int(line)


def containers_below(hierarchy: Hierarchy) -> dict[str, str]:
    """Return the directory of every container in a hierarchy whose path has a pod UID.

    For the operators' view: names are taken as they are. Blocks: not for the loop. Raises
    OSError for a shortage.
    """
    found: dict[str, str] = {}
    for path in kubepods_directories(hierarchy.places):
        top = hierarchy.resolve(path)
        if top is not None:
            _find_containers(hierarchy, top, found)
    for path in joined_parents(hierarchy.places):
        parent = hierarchy.resolve(path or "/")
        if parent is not None:
            _find_joined(hierarchy, parent, found)
    return found


def pod_directories_below(hierarchy: Hierarchy) -> dict[str, str]:
    """Return the directory of every pod in a hierarchy that has one, by normalised UID.

    Blocks and raises as `containers_below`.
    """
    found: dict[str, str] = {}
    for path in kubepods_directories(hierarchy.places):
        top = hierarchy.resolve(path)
        if top is None:
            continue
        for folder, below, _ in os.walk(top, onerror=_only_shortage):
            pod_uid = hierarchy.pod_at(folder)
            if pod_uid is not None:
                found.setdefault(pod_uid, folder)
                below.clear()
            elif folder.count("/") - top.count("/") >= _MAX_DEPTH:
                below.clear()
    return found


def _names_in(directory: str, prefix: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if name.startswith(prefix))
    except OSError as error:
        _only_shortage(error)
        return []


def _find_containers(hierarchy: Hierarchy, top: str, found: dict[str, str]) -> None:
    for folder, below, _ in os.walk(top, onerror=_only_shortage):
        container_id = hierarchy.container_at(folder)
        if container_id:
            found.setdefault(container_id, folder)
            below.clear()
        elif folder.count("/") - top.count("/") >= _MAX_DEPTH:
            below.clear()


def _find_joined(hierarchy: Hierarchy, parent: str, found: dict[str, str]) -> None:
    """Find containers whose segment has the pod's slice too."""
    try:
        names = os.listdir(parent)
    except OSError as error:
        _only_shortage(error)
        return
    for name in names:
        container_id = hierarchy.container_at(f"{parent}/{name}") if ":" in name else None
        if container_id:
            found.setdefault(container_id, f"{parent}/{name}")


def _is_populated(directory: str, version: int) -> bool:
    """Return whether a cgroup has processes, or may have some below it.

    Raises OSError for a shortage.
    """
    try:
        if version == 1:
            members = Path(directory, "cgroup.procs").read_bytes()
            # Its cgroups are not walked through: a workload makes as many as it likes.
            return bool(members) or os.stat(directory).st_nlink > _LINKS_OF_A_LEAF
        return "populated 1" in Path(directory, "cgroup.events").read_text(encoding="ascii")
    except OSError as error:
        _only_shortage(error)
        return False


def _only_shortage(error: OSError) -> None:
    if is_resource_exhaustion(error):
        raise error


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
        _only_shortage(error)
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
    for folder in _cgroups_below(mount_point, breadth_first=True):
        try:
            members = Path(folder, "cgroup.procs").read_text(encoding="ascii").split()
        except OSError:
            continue
        if pid in members:
            return folder.removeprefix(mount_point)
    return None
