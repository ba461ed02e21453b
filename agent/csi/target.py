"""Parses the path at which the kubelet wants a volume.

Source: kubernetes pkg/volume/csi/csi_mounter.go (getTargetPath, GetPath) and
pkg/kubelet/kubelet_getters.go (getPodVolumeDir).
"""

from __future__ import annotations

from dataclasses import dataclass

from netutil.agent.csi.errors import InvalidRequest

_MAX_NAME_BYTES = 255
"""NAME_MAX of Linux."""
_MAX_SHOWN = 200
_PLUGIN = "kubernetes.io~csi"


@dataclass(frozen=True, slots=True)
class Target:
    """The path of a volume in a pod, and its components that are not fixed."""

    path: str
    parent: str
    pod_uid: str
    volume: str


def parse_target(path: str, pods: str) -> Target:
    """Return the components of a target path below `pods`, `<kubelet root>/pods`.

    Raises InvalidRequest for a path that is not `<pods>/<uid>/volumes/kubernetes.io~csi/<volume>/
    mount`. The parser opens no file: whether a component is a link is for the caller to check.
    """
    prefix = pods + "/"
    names = path.removeprefix(prefix).split("/") if path.startswith(prefix) else []
    match names:
        case [pod_uid, "volumes", plugin, volume, "mount"] if (
            plugin == _PLUGIN and _is_name(pod_uid) and _is_name(volume)
        ):
            return Target(path, path.removesuffix("/mount"), pod_uid, volume)
    raise InvalidRequest(
        f"target_path {shown(path)} is not {pods}/<pod UID>/volumes/{_PLUGIN}/<volume>/mount: set"
        " --kubelet-root of netutil-csi to the kubelet's root directory"
    )


def shown(text: str) -> str:
    """Return a text from a request as a message can have it: quoted, on one line, not long."""
    return ascii(text[:_MAX_SHOWN]) + ("..." if len(text) > _MAX_SHOWN else "")


def _is_name(text: str) -> bool:
    fits = 0 < len(text.encode("utf-8", "surrogatepass")) <= _MAX_NAME_BYTES
    return fits and text not in (".", "..") and "\0" not in text
