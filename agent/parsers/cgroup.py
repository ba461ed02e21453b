"""From the text of /proc/<pid>/cgroup to the pod and the container of the process.

Source: cgroups(7), "/proc/[pid]/cgroup": one line per hierarchy,
`hierarchy-ID:controller-list:cgroup-path`. The runtimes' names are quoted above
each rule, as found on real nodes.

A path is read from the outside in. What the kubelet and the runtime made stands
outside; whatever stands deeper was made by the workload, which may give its
cgroups any name, that of another pod included, and is ignored. Where a container stands
outside of everything that is named like a pod, that container is the workload: unless
the agent is in it too, because the node itself is a container (kind).

What this module says is what the *names* say. That the directories of these
names were made by root is checked in `netutil.agent.identity.cgroups`, and
that the kubelet knows them in `netutil.agent.pods`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from functools import lru_cache

from netutil.agent.errors import Denied, Inconsistent, Reason

_LONGEST_REMEMBERED = 4096  # a workload may make it much longer

_UID = r"[0-9a-f]{8}(?P<separator>[-_]?)(?:[0-9a-f]{4}(?P=separator)){3}[0-9a-f]{12}"

# cgroupfs driver:  /kubepods/burstable/pod2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b/<id>
# static pod:       /kubepods/burstable/podd71a3f8c2b9e4a6f8c0d1e2f3a4b5c6d/<id>
# systemd driver:   /kubepods.slice/kubepods-pod2f5b8a1c_6d3e_4f70_9a1b_0c2d3e4f5a6b.slice/…
_POD = re.compile(
    rf"(?:pod(?P<plain>{_UID})|[^:]*-pod(?P<slice>{_UID.replace('separator', 'mark')})\.slice)"
)

# containerd, cgroupfs:                <64 hex>
# containerd, systemd:                 cri-containerd-<64 hex>.scope
# CRI-O, systemd and cgroupfs:         crio-<64 hex>.scope, crio-<64 hex>
# Docker (cri-dockerd), systemd:       docker-<64 hex>.scope
# CRI-O's monitor is a host process:   crio-conmon-<64 hex>.scope is no container.
_CONTAINER = re.compile(
    r"(?:(?:cri-containerd|crio|docker)-(?P<scope>[0-9a-f]{64})\.scope"
    r"|(?:crio-)?(?P<plain>[0-9a-f]{64}))"
)

# containerd without SystemdCgroup under a kubelet with the systemd driver puts the
# pod's slice and the container into one segment:
#   /system.slice/containerd.service/kubepods-burstable-pod<uid>.slice:cri-containerd:<64 hex>
_POD_AND_CONTAINER = re.compile(r"(?P<pod>[^:]+):cri-containerd:(?P<id>[0-9a-f]{64})")


_LONGEST_NUMBER = 10
"""Digits of a hierarchy's ID, an int of the kernel's."""


@dataclass(frozen=True, slots=True)
class CgroupLine:
    """One line of /proc/<pid>/cgroup.

    `controllers` is empty for cgroup v2's line (`0::/path`) and holds
    `name=systemd` for a named v1 hierarchy. `path` is as the reader's cgroup
    namespace shows it.
    """

    hierarchy: int
    controllers: tuple[str, ...]
    path: str


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a process stands in one hierarchy, read from the outside in.

    `pod_uid` and `container_id` are None where no segment bears one;
    `pod_path` and `container_path` are the path down to the segment that does.
    `containers` are the (id, path) pairs of strict container segments, the
    outermost first, for a path on which no segment bears a pod UID: those that the node
    is in, and the first that it is not in. What stands within that one is its own doing.
    """

    line: CgroupLine
    pod_uid: str | None
    pod_path: str | None
    container_id: str | None
    container_path: str | None
    containers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class CgroupIdentity:
    """What all hierarchies together say about a process.

    `pod_uid` is normalised to 32 hexadecimal digits. It is None where no
    hierarchy bears one; then each of `placements` offers its container
    segments, and the pod list decides which of them is a pod's. `container_id` is
    None, beside a pod UID, for a process in the pod's own cgroup.
    """

    pod_uid: str | None
    container_id: str | None
    placements: tuple[Placement, ...]

    def container_path(self, controller: str) -> str | None:
        """Return the path of the container's cgroup in the hierarchy of `controller`.

        "" stands for cgroup v2's hierarchy. The pod's own cgroup for a process that is in no
        container. None where the process has no such hierarchy, or stands outside of its
        container there.
        """
        for placement in self.placements:
            controllers = placement.line.controllers or ("",)
            if controller in controllers:
                in_pod = self.pod_uid is not None and self.container_id is None
                return placement.pod_path if in_pod else placement.container_path
        return None


def normalise_uid(uid: str) -> str:
    """Return a pod UID in one spelling: lower case, without dashes or underscores."""
    return uid.lower().replace("-", "").replace("_", "")


def parse_cgroup_file(text: str) -> tuple[CgroupLine, ...]:
    """Return the lines of /proc/<pid>/cgroup.

    Raises `Inconsistent` for a line that is not as cgroups(7) says: a kernel
    that writes something else must not be guessed at.
    """
    lines = []
    # Not str.splitlines: a workload may put any other line separator (\v, U+2028)
    # into a cgroup's name and so add lines of its own. The kernel bars only "\n".
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        if not line and not text:
            break
        hierarchy, colon, rest = line.partition(":")
        controllers, second_colon, path = rest.partition(":")
        if not (colon and second_colon and _is_number(hierarchy) and path.startswith("/")):
            raise Inconsistent(
                Reason.CGROUPS_DISAGREE,
                f"Line {number} of the caller's cgroup file is not"
                f" hierarchy:controllers:path but {line!r}.",
                read="/proc/<pid>/cgroup",
            )
        names = tuple(controllers.split(",")) if controllers else ()
        lines.append(CgroupLine(int(hierarchy), names, path))
    return tuple(lines)


def place(line: CgroupLine, node: Set[str] = frozenset()) -> Placement:
    """Return where one hierarchy puts the process; `node` are containers that the node is in."""
    segments = line.path.split("/")
    for index, segment in enumerate(segments):
        joined = _POD_AND_CONTAINER.fullmatch(segment)
        pod = _POD.fullmatch(joined["pod"] if joined else segment)
        if pod is None:
            foreign = next(_containers([segment], 0), None)
            if foreign is not None and foreign[0] not in node:
                segments = segments[: index + 1]
                break
            continue
        pod_path = _path_to(segments, index)
        uid = normalise_uid(pod["plain"] or pod["slice"])
        if joined:
            return Placement(line, uid, pod_path, joined["id"], pod_path)
        inside = next(_containers(segments, index + 1), None)
        if inside is None:
            return Placement(line, uid, pod_path, None, None)
        return Placement(line, uid, pod_path, *inside)
    return Placement(line, None, None, None, None, tuple(_containers(segments, 0)))


def identify(text: str, node: Set[str] = frozenset()) -> CgroupIdentity:
    """Return the pod and the container that the text of /proc/<pid>/cgroup names.

    `node` are the IDs of the containers that the node itself is in. A hierarchy
    that bears a pod UID wins over those that do not. A process in the pod's own cgroup is
    the pod's, in no container: gVisor's are on cgroup v1 (pkg/shim, `setPodCgroup`). Raises
    `Inconsistent` if two hierarchies name different pods or containers, `Denied` if none
    names a container and the process is not in the pod's own cgroup either.
    """
    find = _remembered if len(text) <= _LONGEST_REMEMBERED else _placements
    placements = find(text, frozenset(node))
    with_pod = tuple(placement for placement in placements if placement.pod_uid)
    if with_pod:
        pod_uid = _the_one("pod UIDs", (placement.pod_uid for placement in with_pod))
        container_id = _the_one("container IDs", (p.container_id for p in with_pod))
        # What stands deeper, under no container's name, is the runtime's (crio-conmon-…).
        if container_id is None and any(p.line.path != p.pod_path for p in with_pod):
            raise _no_pod()
        return CgroupIdentity(pod_uid, container_id, with_pod)
    with_container = tuple(placement for placement in placements if placement.containers)
    if not with_container:
        raise _no_pod()
    return CgroupIdentity(None, None, with_container)


def _placements(text: str, node: frozenset[str]) -> tuple[Placement, ...]:
    return tuple(place(line, node) for line in parse_cgroup_file(text))


_remembered = lru_cache(maxsize=512)(_placements)
"""All processes of a container have the same text, and cgroup v1 a dozen lines of it."""


def choose_container(identity: CgroupIdentity, known: Iterable[str]) -> CgroupIdentity:
    """Return `identity` with the container that the pod list knows.

    For a process of which no hierarchy bears a pod UID: in each hierarchy the
    outermost container segment in `known` decides, and all must agree. Raises
    `Denied` if none is known, `Inconsistent` if two differ.
    """
    names = set(known)
    chosen = []
    for placement in identity.placements:
        for container_id, path in placement.containers:
            if container_id in names:
                chosen.append(Placement(placement.line, None, None, container_id, path))
                break
    decided = _the_one("container IDs", (placement.container_id for placement in chosen))
    return CgroupIdentity(None, _required(decided), tuple(chosen))


def containers_of(lines: Iterable[CgroupLine]) -> frozenset[str]:
    """Return the IDs of all containers that a process stands in, whoever made them."""
    return frozenset(
        container_id for line in lines for container_id, _ in _containers(line.path.split("/"), 0)
    )


def _containers(segments: list[str], start: int) -> Iterator[tuple[str, str]]:
    """Yield ID and path of each container: most callers want the first, and a path is long."""
    for index in range(start, len(segments)):
        joined = _POD_AND_CONTAINER.fullmatch(segments[index])
        match = _CONTAINER.fullmatch(segments[index])
        if joined:
            yield joined["id"], _path_to(segments, index)
        elif match:
            yield match["scope"] or match["plain"], _path_to(segments, index)


def _the_one(what: str, values: Iterable[str | None]) -> str | None:
    different = sorted({value for value in values if value is not None})
    if len(different) > 1:
        raise Inconsistent(
            Reason.CGROUPS_DISAGREE,
            f"The caller's cgroup hierarchies name different {what}: {', '.join(different)}.",
            read="/proc/<pid>/cgroup",
            advice="A process must stand in one container in every hierarchy; look at"
            " /proc/<pid>/cgroup on the node.",
        )
    return different[0] if different else None


def _required(container_id: str | None) -> str:
    if container_id is None:
        raise _no_pod()
    return container_id


def _no_pod() -> Denied:
    return Denied(
        Reason.NOT_A_POD,
        "The calling process is not in a pod's container: no cgroup that it stands in"
        " is one that a kubelet and a container runtime make.",
        read="/proc/<pid>/cgroup",
        advice="Only processes in pods of this node are answered; operators use the"
        " operator socket.",
    )


def _path_to(segments: list[str], index: int) -> str:
    return "/".join(segments[: index + 1])


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER
