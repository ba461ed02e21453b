"""Parses /proc/<pid>/cgroup to the pod and the container of the process, and mountinfo.

Source: cgroups(7), "/proc/[pid]/cgroup": one line per hierarchy,
`hierarchy-ID:controller-list:cgroup-path`. What a path names is decided in
`netutil.agent.parsers.pod_cgroups`.

What this module says is what *names and places* say. That the directories were
made by root is checked in `netutil.agent.identity.cgroups`, and
that the kubelet knows them in `netutil.agent.pods`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

import msgspec
from netutil.agent.errors import FailedPrecondition, PermissionDenied, Reason
from netutil.agent.parsers.pod_cgroups import PodPlaces, locate, names_a_pod, pod_places

_MAX_DIGITS = 10
"""Digits of a hierarchy's ID, an int of the kernel's."""
_STATIC = re.compile(r"pod[0-9a-f]{32}(?:\.slice)?(?::cri-containerd:[0-9a-f]{64})?")
_AT_ROOT = pod_places()
_ESCAPE = re.compile(r"\\([0-7]{3})")


class CgroupLine(msgspec.Struct, frozen=True):
    """One line of /proc/<pid>/cgroup.

    `controllers` is empty for cgroup v2's line (`0::/path`) and holds
    `name=systemd` for a named v1 hierarchy. `path` is as the reader's cgroup
    namespace shows it.
    """

    hierarchy: int
    controllers: tuple[str, ...]
    path: str


class Placement(msgspec.Struct, frozen=True):
    """The place of a process in one hierarchy, read from the outside in.

    `pod_uid` and `container_id` are None where no segment has one; `pod_path` and
    `container_path` are the path down to the segment that does, absolute in the hierarchy.
    `containers` is the (id, path) pair of the first container that the node is not in, on a path
    without a pod UID.
    """

    line: CgroupLine
    pod_uid: str | None
    pod_path: str | None
    container_id: str | None
    container_path: str | None
    containers: tuple[tuple[str, str], ...] = ()
    path: str = ""
    """The line's own path, absolute."""


class CgroupIdentity(msgspec.Struct, frozen=True):
    """What all hierarchies together say about a process.

    `pod_uid` is normalised to 32 hexadecimal digits. `pod_uid` is None where no
    hierarchy has one; then each of `placements` offers its container
    segments, and the pod list decides which of them is a pod's. `container_id` is
    None, beside a pod UID, for a process in the pod's own cgroup.
    """

    pod_uid: str | None
    container_id: str | None
    placements: tuple[Placement, ...]

    def container_path(self, controller: str) -> str | None:
        """Return the path of the container's cgroup in the hierarchy of `controller`.

        "" is cgroup v2's hierarchy. The pod's own cgroup for a process that is in no
        container. None where the process has no such hierarchy, or is outside of its
        container there.
        """
        for placement in self.placements:
            controllers = placement.line.controllers or ("",)
            if controller in controllers:
                in_pod = self.pod_uid is not None and self.container_id is None
                return placement.pod_path if in_pod else placement.container_path
        return None

    def pod_path(self, controller: str) -> str | None:
        """Return the path of the pod's cgroup in the hierarchy of `controller`.

        As `container_path`; None also where the pod has no cgroup of its own: no segment of the
        path has a pod UID, or the one that does is the container's.
        """
        for placement in self.placements:
            if controller in (placement.line.controllers or ("",)):
                path = placement.pod_path
                return None if path == placement.container_path else path
        return None


def is_written_as_static(identity: CgroupIdentity) -> bool:
    """Return whether the pod's UID is written without dashes or underscores.

    The kubelet gives a static pod an MD5 in hexadecimal (pkg/kubelet/config/common.go,
    `applyDefaults`), the API server gives others a UUID with dashes. The form is a sign and no
    proof.
    """
    paths = (placement.pod_path for placement in identity.placements if placement.pod_path)
    return any(_STATIC.search(path.rpartition("/")[2]) for path in paths)


def parse_cgroup_file(text: str) -> tuple[CgroupLine, ...]:
    """Return the lines of /proc/<pid>/cgroup.

    Raises `FailedPrecondition` for a line that is not as cgroups(7) says: a kernel
    that writes something else must not be guessed at.
    """
    lines = []
    paths: dict[str, str] = {}  # mostly the same one in all lines, and held once
    # Not str.splitlines: a workload may put any other line separator (\v, U+2028)
    # into a cgroup's name and so add lines of its own. The kernel bars only "\n".
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        if not line and not text:
            break
        hierarchy, colon, rest = line.partition(":")
        controllers, second_colon, path = rest.partition(":")
        if not (colon and second_colon and _is_number(hierarchy) and path.startswith("/")):
            raise FailedPrecondition(
                Reason.CGROUPS_DISAGREE,
                f"Line {number} of the caller's cgroup file is not"
                f" hierarchy:controllers:path but {line!r}.",
                read="/proc/<pid>/cgroup",
            )
        path = paths.setdefault(path, path)
        lines.append(CgroupLine(int(hierarchy), _names(controllers), path))
    return tuple(lines)


@lru_cache(maxsize=64)
def _names(controllers: str) -> tuple[str, ...]:
    """Return the names of a list of controllers. A node has few lists, root's own."""
    return tuple(controllers.split(",")) if controllers else ()


def place(line: CgroupLine, path: str, places: PodPlaces) -> Placement:
    """Return where one hierarchy puts the process. `path` is the line's, absolute."""
    found = locate(path, places)
    return Placement(
        line,
        found.pod_uid,
        found.pod_path,
        found.container_id,
        found.container_path,
        found.containers,
        line.path if line.path == path else path,
    )


def place_at_root(line: CgroupLine) -> Placement:
    """Return where a line puts the process, as an agent at the hierarchy's root sees it."""
    return place(line, line.path, _AT_ROOT)


def identify(
    text: str, locate_line: Callable[[CgroupLine], Placement | None] = place_at_root
) -> CgroupIdentity:
    """Return the pod and the container that the text of /proc/<pid>/cgroup names.

    `locate_line` returns None for a line of which the agent does not see the hierarchy, or not
    that place in it. Such a line says nothing. A hierarchy that has a pod UID wins over those
    that do not. A process in the pod's own cgroup is the pod's, in no container: gVisor's are on
    cgroup v1 (pkg/shim, `setPodCgroup`). Raises `FailedPrecondition` if two hierarchies name
    different pods or containers, `PermissionDenied` if none names a container and the process is
    not in the pod's own cgroup either.
    """
    lines = parse_cgroup_file(text)
    located = [locate_line(line) for line in lines]
    placements = [placement for placement in located if placement is not None]
    with_pod = tuple(placement for placement in placements if placement.pod_uid)
    if with_pod:
        pod_uid = _the_one("pod UIDs", (placement.pod_uid for placement in with_pod))
        container_id = _the_one("container IDs", (p.container_id for p in with_pod))
        # Deeper segments, under no container's name, are the runtime's (crio-conmon-…).
        if container_id is None and any(p.path != p.pod_path for p in with_pod):
            raise _not_a_pod()
        return CgroupIdentity(pod_uid, container_id, with_pod)
    with_container = tuple(placement for placement in placements if placement.containers)
    if with_container:
        return CgroupIdentity(None, None, with_container)
    named = [
        placement for line, placement in zip(lines, located, strict=True) if names_a_pod(line.path)
    ]
    if None in named:
        raise _not_visible()
    raise _outside_kubelet_tree() if named else _not_a_pod()


def choose_container(identity: CgroupIdentity, known: Iterable[str]) -> CgroupIdentity:
    """Return `identity` with the container that the pod list knows.

    For a process of which no hierarchy has a pod UID: in each hierarchy the
    outermost container segment in `known` decides, and all must agree. Raises
    `PermissionDenied` if none is known, `FailedPrecondition` if two differ.
    """
    names = set(known)
    chosen = []
    for placement in identity.placements:
        for container_id, path in placement.containers:
            if container_id in names:
                chosen.append(Placement(placement.line, None, None, container_id, path))
                break
    decided = _the_one("container IDs", (placement.container_id for placement in chosen))
    if decided is None:
        raise _not_a_pod()
    return CgroupIdentity(None, decided, tuple(chosen))


def _the_one(what: str, values: Iterable[str | None]) -> str | None:
    different = sorted({value for value in values if value is not None})
    if len(different) > 1:
        raise FailedPrecondition(
            Reason.CGROUPS_DISAGREE,
            f"The caller's cgroup hierarchies name different {what}: {', '.join(different)}.",
            read="/proc/<pid>/cgroup",
            advice="A process must be in one container in every hierarchy; look at"
            " /proc/<pid>/cgroup on the node.",
        )
    return different[0] if different else None


def _not_a_pod() -> PermissionDenied:
    return PermissionDenied(
        Reason.NOT_A_POD,
        "The calling process is not in a pod's container: no cgroup of the process"
        " is one that a kubelet and a container runtime make.",
        read="/proc/<pid>/cgroup",
        advice="Only processes in pods of this node are answered; operators use the"
        " operator socket.",
    )


def _outside_kubelet_tree() -> PermissionDenied:
    return PermissionDenied(
        Reason.OUTSIDE_KUBELET_CGROUPS,
        "The calling process's cgroup has the name of a pod or a container, but is not"
        " where this node's kubelet keeps its pods.",
        read="/proc/<pid>/cgroup",
        advice="A container that no kubelet started is not answered. If the kubelet has a"
        " cgroupRoot of its own, give it to the agent as --cgroup-root.",
    )


def _not_visible() -> PermissionDenied:
    return PermissionDenied(
        Reason.CGROUP_NOT_OWNED_BY_ROOT,
        "The calling process's cgroup lies outside of what the agent sees of the host's cgroups,"
        " so its owner cannot be checked.",
        read="/proc/<pid>/cgroup",
        advice="Mount the host's /sys into the agent's container; --host-root names it.",
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


class CgroupMount(msgspec.Struct, frozen=True):
    """One mounted cgroup hierarchy.

    `options` are the file system's own: for cgroup v1 the controllers and
    `name=…` are among them. `root` is the cgroup that is mounted, as the
    reader's cgroup namespace shows it: "/" or, above the namespace's root,
    "/..", "/../..", ….
    """

    version: int
    options: frozenset[str]
    mount_point: str
    root: str


def parse_cgroup_mounts(text: str) -> tuple[CgroupMount, ...]:
    """Return the cgroup mounts, in the file's order. Other lines are passed over."""
    mounts = []
    for line in text.split("\n"):
        left, dash, right = line.partition(" - ")
        mount, file_system = left.split(" "), right.split(" ")
        if not dash or len(mount) < 6 or len(file_system) < 3:  # noqa: PLR2004 - the columns
            continue
        if file_system[0] not in ("cgroup", "cgroup2"):
            continue
        mounts.append(
            CgroupMount(
                version=2 if file_system[0] == "cgroup2" else 1,
                options=frozenset(file_system[2].split(",")),
                mount_point=_unescape(mount[4]),
                root=_unescape(mount[3]),
            )
        )
    return tuple(mounts)


def _unescape(field: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)
