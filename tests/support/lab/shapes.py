"""Cgroup paths as the kubelet and the runtimes make them, for each driver."""

from __future__ import annotations

from typing import Literal

Driver = Literal["cgroupfs", "systemd", "joined", "no-uid"]
"""How kubelet and runtime name cgroups. With the last two a pod has no directory of its own:
`joined` is containerd's cgroupfs driver below a kubelet with the systemd driver, `no-uid` is CRI-O
under some set-ups, whose paths have no pod UID."""
Runtime = Literal["containerd", "cri-o", "docker"]
QoS = Literal["guaranteed", "burstable", "besteffort"]

_SCOPES: dict[Runtime, str] = {"containerd": "cri-containerd", "cri-o": "crio", "docker": "docker"}


def pod_path(uid: str, qos: QoS, driver: Driver) -> str:
    """Path of a pod's cgroup below the kubelet's cgroupRoot.

    kubelet, pkg/kubelet/cm: a guaranteed pod is directly in kubepods; the
    systemd driver joins all names above with dashes, so those of the UID become
    underscores. Of a driver that gives a pod no directory, it is the one in which the containers
    of all pods stand.
    """
    if driver == "joined":
        return "system.slice/containerd.service"
    if driver == "no-uid":
        return "system.slice"
    if driver == "cgroupfs":
        return "/".join(["kubepods", *([] if qos == "guaranteed" else [qos]), f"pod{uid}"])
    return "/".join(f"{name}.slice" for name in _slices(uid, qos))


def _slices(uid: str, qos: QoS) -> list[str]:
    above = ["kubepods"] if qos == "guaranteed" else ["kubepods", f"kubepods-{qos}"]
    return [*above, f"{above[-1]}-pod{uid.replace('-', '_')}"]


def container_path(uid: str, qos: QoS, driver: Driver, runtime: Runtime, container_id: str) -> str:
    """Path of a container's cgroup below the kubelet's cgroupRoot."""
    name = container_name(container_id, runtime, driver)
    if driver == "joined":
        name = f"{_slices(uid, qos)[-1]}.slice:cri-containerd:{container_id}"
    return f"{pod_path(uid, qos, driver)}/{name}"


def container_name(container_id: str, runtime: Runtime, driver: Driver) -> str:
    """Name of a container's cgroup within that of its pod."""
    if driver in ("systemd", "no-uid"):
        return f"{_SCOPES[runtime]}-{container_id}.scope"
    return f"crio-{container_id}" if runtime == "cri-o" else container_id
