"""Cgroup paths as the kubelet and the runtimes make them, for each driver."""

from __future__ import annotations

from typing import Literal

Driver = Literal["cgroupfs", "systemd"]
Runtime = Literal["containerd", "cri-o", "docker"]
QoS = Literal["guaranteed", "burstable", "besteffort"]

_SCOPES: dict[Runtime, str] = {"containerd": "cri-containerd", "cri-o": "crio", "docker": "docker"}


def pod_path(uid: str, qos: QoS, driver: Driver) -> str:
    """Path of a pod's cgroup below the kubelet's cgroupRoot.

    kubelet, pkg/kubelet/cm: a guaranteed pod stands directly in kubepods; the
    systemd driver joins all names above with dashes, so those of the UID become
    underscores.
    """
    if driver == "cgroupfs":
        return "/".join(["kubepods", *([] if qos == "guaranteed" else [qos]), f"pod{uid}"])
    above = ["kubepods"] if qos == "guaranteed" else ["kubepods", f"kubepods-{qos}"]
    slices = [*above, f"{above[-1]}-pod{uid.replace('-', '_')}"]
    return "/".join(f"{name}.slice" for name in slices)


def container_name(container_id: str, runtime: Runtime, driver: Driver) -> str:
    """Name of a container's cgroup within that of its pod."""
    if driver == "systemd":
        return f"{_SCOPES[runtime]}-{container_id}.scope"
    return f"crio-{container_id}" if runtime == "cri-o" else container_id
