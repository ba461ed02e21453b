"""Recognises the cgroups of a kubelet and its container runtime, by name and by location. Pure.

The runtimes' names are quoted above each rule, as found on real nodes. A name proves nothing:
root in a container of another engine may make directories of any name below its own cgroup. So
the place decides. The kubelet's tree is directly below the kubelet's cgroup root, and a path
that reaches a pod's name in any other way passes through a container that no kubelet started,
whatever that container's cgroup is called. No list of foreign engines is needed.

The places follow from the agent's own cgroup: the kubelet's cgroup root is one of the directories
above it, since the agent is a pod, or runs beside the kubelet on the node. Such a directory
belongs to the owners of the agent, and never to a workload.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

_MAX_LOCATED = 16
_UID = r"[0-9a-f]{8}(?P<separator>[-_]?)(?:[0-9a-f]{4}(?P=separator)){3}[0-9a-f]{12}"

# cgroupfs driver:  /kubepods/burstable/pod2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b/<id>
# static pod:       /kubepods/burstable/podd71a3f8c2b9e4a6f8c0d1e2f3a4b5c6d/<id>
_POD = re.compile(rf"pod(?P<uid>{_UID})")

# systemd driver:   /kubepods.slice/kubepods-pod2f5b8a1c_6d3e_4f70_9a1b_0c2d3e4f5a6b.slice/…
# kubelet with a cgroup root of its own (kind): /kubelet.slice/kubelet-kubepods.slice/…
_POD_SLICE = re.compile(
    rf"(?P<above>(?:[^:]+-)?kubepods)(?:-burstable|-besteffort)?-pod(?P<uid>{_UID})\.slice"
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

_QOS = ("burstable", "besteffort")
_KUBEPODS = "kubepods"

# kind and k3d set the kubelet's cgroupRoot to /kubelet; the systemd driver makes a slice of it.
_USUAL_ROOTS = ("", "/kubelet", "/kubelet.slice")

_RUNTIME_SERVICES = tuple(
    f"{name}.service"
    for name in (
        "containerd",
        "crio",
        "cri-docker",
        "docker",
        "k0scontroller",
        "k0sworker",
        "k3s",
        "k3s-agent",
        "kubelet",
        "rke2-agent",
        "rke2-server",
        "snap.microk8s.daemon-containerd",
    )
)

# Where a runtime puts a container of a kubelet that has cgroupsPerQOS off: CRI-O and others
# under systemd, docker, containerd (its CRI namespace), CRI-O's own default.
_USUAL_PARENTS = ("", "/system.slice", "/docker", "/k8s.io", "/crio")


@dataclass(frozen=True, slots=True)
class PodPlaces:
    """Locations of pods' cgroups in one hierarchy, as absolute paths; "" is the hierarchy's root.

    `tops` are the directories above the agent that may hold the kubelet's tree, the deepest
    first, and `cgroup_roots` what the kubelet's cgroup root may be below one of them. `node` are
    the containers that the node itself is in.
    """

    tops: tuple[str, ...]
    cgroup_roots: tuple[str, ...]
    node: frozenset[str]


@dataclass(frozen=True, slots=True)
class Located:
    """What a path names. `containers` is an (id, path) pair where no segment has a pod UID.

    `pod_uid` is normalised to 32 hexadecimal digits.
    """

    pod_uid: str | None = None
    pod_path: str | None = None
    container_id: str | None = None
    container_path: str | None = None
    containers: tuple[tuple[str, str], ...] = ()


def pod_places(own: str = "/", cgroup_root: str = "") -> PodPlaces:
    """Return the places for an agent whose own cgroup is `own`.

    `cgroup_root` is the kubelet's cgroupRoot where it is neither "/" nor above the agent, "" for
    none. `cgroup_root` counts in both spellings: /a/b is /a.slice/a-b.slice with the systemd
    driver.
    """
    segments = [segment for segment in own.split("/") if segment]
    own = "".join(f"/{segment}" for segment in segments)
    above = ["".join(f"/{one}" for one in segments[:n]) for n in range(len(segments) + 1)]
    # The agent's own container is not the node's; CRI-O with crun adds a cgroup to it.
    node = frozenset(
        path
        for path, segment in zip(above[1:], segments, strict=True)
        if _container_id(segment) and own not in (path, f"{path}/container")
    )
    for top in above:
        pod = _below_root(top, own)
        if pod and pod.container_path:
            # The kubelet's own directories, from `kubepods` to the pod, hold no other tree.
            inside = range(len(top) + 1, len(pod.container_path))
            above = [one for one in above if len(one) not in inside]
    configured = (cgroup_root.rstrip("/"), _as_slices(cgroup_root)) if cgroup_root else ()
    return PodPlaces(_deepest_first(above), (*_USUAL_ROOTS, *configured), node)


@lru_cache(maxsize=_MAX_LOCATED)
def locate(path: str, places: PodPlaces) -> Located:
    """Return the pod and the container that a process at an absolute cgroup path is in.

    The last few are kept: the hierarchies of one process mostly have the same path, which is then
    looked at once, and what is made of it held once.

    A path is read from the outside in: the first strict container below the pod is the
    container. The workload made all deeper directories and may give them any name. Where the node
    itself is in a pod or a container, the innermost place that the agent shares counts.
    """
    for top in places.tops:
        if path.startswith(f"{top}/"):
            found = _below_top(top, path, places)
            if found:
                return found
    return Located()


def _below_top(top: str, path: str, places: PodPlaces) -> Located | None:
    roots = [top + root for root in places.cgroup_roots]
    for root in roots:
        found = _below_root(root, path) if path.startswith(f"{root}/") else None
        if found:
            return found
    joined = _joined(top, path)
    if joined:
        return joined
    candidates = []
    for parent in dict.fromkeys((*(top + parent for parent in _USUAL_PARENTS), *roots)):
        segment, _, _ = path[len(parent) + 1 :].partition("/")
        place, container_id = f"{parent}/{segment}", _container_id(segment)
        if path.startswith(f"{parent}/") and container_id and place not in places.node:
            candidates.append((container_id, place))
    return Located(containers=tuple(candidates)) if candidates else None


def _joined(top: str, path: str) -> Located | None:
    """Return what a name says that joins a pod's slice and a container.

    Such a cgroup is where the runtime is: below slices, which systemd alone makes, and the service
    of the runtime. EKS runs containerd in runtime.slice.
    """
    segments = path[len(top) + 1 :].split("/")
    index = 0
    while index < len(segments) and segments[index].endswith(".slice"):
        index += 1
    if index < len(segments) and segments[index] in _RUNTIME_SERVICES:
        index += 1
    match = _POD_AND_CONTAINER.fullmatch(segments[index]) if index < len(segments) else None
    pod = _POD_SLICE.fullmatch(match["pod"]) if match else None
    if match is None or pod is None:
        return None
    place = "/".join([top, *segments[: index + 1]])
    return Located(normalise_uid(pod["uid"]), place, match["id"], place)


def kubepods_directories(places: PodPlaces) -> Iterator[str]:
    """Yield each path at which this node's `kubepods` may be: a few that exist, many not."""
    for top in places.tops:
        for root in (top + root for root in places.cgroup_roots):
            yield f"{root}/{_KUBEPODS}"
            yield f"{root}/{_slice_prefix(root)}{_KUBEPODS}.slice"


def joined_parents(places: PodPlaces) -> Iterator[str]:
    """Yield paths at which joined names may be, but for slices of names that are not known."""
    for top in places.tops:
        for above in ("", "/system.slice", "/runtime.slice"):
            yield f"{top}{above}"
            yield from (f"{top}{above}/{name}" for name in _RUNTIME_SERVICES)


def names_a_container(segment: str) -> bool:
    """Return whether a segment of a path is strictly a container."""
    return _container_id(segment) is not None


def names_a_pod(path: str) -> bool:
    """Return whether any segment looks like a pod or a container, at any depth."""
    return any(
        _POD.fullmatch(segment)
        or _POD_SLICE.fullmatch(segment)
        or _POD_AND_CONTAINER.fullmatch(segment)
        or _CONTAINER.fullmatch(segment)
        for segment in path.split("/")
    )


def below_node(path: str, places: PodPlaces) -> str:
    """Return the part of an absolute path below the innermost container that the node is in."""
    shared = [node for node in places.node if path == node or path.startswith(f"{node}/")]
    return path[max(map(len, shared), default=0) :]


def normalise_uid(uid: str) -> str:
    """Return a pod UID in one spelling: lower case, without dashes or underscores."""
    return uid.lower().replace("-", "").replace("_", "")


def _below_root(root: str, path: str) -> Located | None:
    segments = path[len(root) + 1 :].split("/")
    top = segments[0]
    if top == _KUBEPODS:
        index = 2 if len(segments) > 1 and segments[1] in _QOS else 1
        pod = _POD.fullmatch(segments[index]) if index < len(segments) else None
    elif top == f"{_slice_prefix(root)}{_KUBEPODS}.slice":
        name = top.removesuffix(".slice")
        qos = tuple(f"{name}-{each}.slice" for each in _QOS)
        index = 2 if len(segments) > 1 and segments[1] in qos else 1
        pod = _POD_SLICE.fullmatch(segments[index]) if index < len(segments) else None
        if pod and pod["above"] != name:
            pod = None
    else:
        return None
    if pod is None:
        return None
    uid, pod_path = normalise_uid(pod["uid"]), "/".join([root, *segments[: index + 1]])
    for deeper in range(index + 1, len(segments)):
        container_id = _container_id(segments[deeper])
        if container_id:
            return Located(uid, pod_path, container_id, "/".join([root, *segments[: deeper + 1]]))
    return Located(uid, pod_path)


def _container_id(segment: str) -> str | None:
    match = _CONTAINER.fullmatch(segment)
    return (match["scope"] or match["plain"]) if match else None


def _slice_prefix(root: str) -> str:
    """Return what the name of a slice directly below `root` begins with (systemd.slice(5))."""
    name = root.rpartition("/")[2]
    return f"{name.removesuffix('.slice')}-" if name.endswith(".slice") else ""


def _as_slices(cgroup_root: str) -> str:
    """Return a cgroup root as the kubelet names it with the systemd driver.

    kubernetes, pkg/kubelet/cm/cgroup_manager_linux.go: ToSystemd.
    """
    parts = [part.replace("-", "_") for part in cgroup_root.split("/") if part]
    return "".join(f"/{'-'.join(parts[: n + 1])}.slice" for n in range(len(parts)))


def _deepest_first(paths: list[str]) -> tuple[str, ...]:
    return tuple(sorted(paths, key=lambda path: (-path.count("/"), path)))
