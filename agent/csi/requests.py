"""Checks the requests of the kubelet that mount and unmount a volume.

The parser takes a message and returns a value; it opens no file. Each rejection says what to
change, because the kubelet shows it as an event of the pod.
"""

from __future__ import annotations

from dataclasses import dataclass

from netutil.agent.csi.errors import InvalidRequest
from netutil.agent.csi.target import Target, parse_target, shown
from netutil.csi.v1 import csi_pb2

_PREFIX = "csi.storage.k8s.io/"
_EPHEMERAL = f"{_PREFIX}ephemeral"
_POD_UID = f"{_PREFIX}pod.uid"
_POD_NAME = f"{_PREFIX}pod.name"
_POD_NAMESPACE = f"{_PREFIX}pod.namespace"
# kubernetes pkg/volume/csi/csi_util.go (getPodInfoAttrs) and csi_mounter.go (serviceAccount.tokens,
# if the CSIDriver object has tokenRequests).
_KUBELETS_KEYS = frozenset(
    (
        *(_EPHEMERAL, _POD_UID, _POD_NAME, _POD_NAMESPACE),
        *(f"{_PREFIX}serviceAccount.name", f"{_PREFIX}serviceAccount.tokens"),
    )
)


@dataclass(frozen=True, slots=True)
class Publication:
    """A request to mount a volume. `pod` is "namespace/name" for the log."""

    target: Target
    pod: str


def parse_place(
    request: csi_pb2.NodePublishVolumeRequest | csi_pb2.NodeUnpublishVolumeRequest, pods: str
) -> Target:
    """Return where to mount or unmount. Raises InvalidRequest."""
    if not request.volume_id:
        raise InvalidRequest("volume_id is missing: the kubelet sets it, no other caller may call")
    if not request.target_path:
        raise InvalidRequest("target_path is missing: the kubelet sets it")
    return parse_target(request.target_path, pods)


def parse_publish(request: csi_pb2.NodePublishVolumeRequest, target: Target) -> Publication:
    """Return what to mount at a target, the place of the request. Raises InvalidRequest."""
    _check_capability(request.volume_capability)
    if not request.readonly:
        raise InvalidRequest(
            f"volume {shown(target.volume)} is not read-only: set readOnly: true in its csi section"
        )
    context = dict(request.volume_context)
    _check_context(context, target)
    pod = f"{context.get(_POD_NAMESPACE, '')}/{context.get(_POD_NAME, '')}"
    return Publication(target, pod)


def _check_capability(capability: csi_pb2.VolumeCapability) -> None:
    if capability.WhichOneof("access_type") != "mount":
        raise InvalidRequest("the volume is not mounted as a directory: use an inline csi volume")
    if capability.mount.fs_type:
        raise InvalidRequest(
            f"fsType {shown(capability.mount.fs_type)} is not supported: remove fsType from the"
            " volume's csi section"
        )
    if capability.mount.mount_flags:
        raise InvalidRequest("mount options are not supported: remove them from the volume")


def _check_context(context: dict[str, str], target: Target) -> None:
    ephemeral = context.get(_EPHEMERAL)
    if ephemeral is None:
        raise InvalidRequest(
            f"the request lacks {_EPHEMERAL}: the CSIDriver object needs podInfoOnMount: true"
        )
    if ephemeral != "true":
        raise InvalidRequest(
            f"{_EPHEMERAL} is {shown(ephemeral)}: only inline volumes are supported, no"
            " PersistentVolume"
        )
    uid = context.get(_POD_UID)
    if uid != target.pod_uid:
        raise InvalidRequest(
            f"{_POD_UID} is {shown(uid or '')} and not the pod of the target path:"
            " the CSIDriver object needs podInfoOnMount: true"
        )
    unknown = sorted(context.keys() - _KUBELETS_KEYS)
    if unknown:
        raise InvalidRequest(
            f"volumeAttributes are not supported: remove {shown(unknown[0])} from the volume's csi"
            " section"
        )
