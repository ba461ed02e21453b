"""Requests of a kubelet to the CSI driver, with values of a pod in them, and the node's mounts."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from netutil.agent.csi.errors import InvalidRequest, VolumeFailed
from netutil.agent.csi.mountinfo import Mount, parse_mounts_at
from netutil.agent.csi.requests import Publication, parse_place, parse_publish
from netutil.agent.csi.target import Target as VolumeTarget
from netutil.agent.csi.target import parse_target
from netutil.csi.v1 import csi_pb2

from tests.fuzz.target import Target
from tests.support.csi_host import request
from tests.support.csi_paths import PATH, PODS, UID
from tests.unit.csi import test_mountinfo

_MAX_MESSAGE = 4096


def _publish(data: bytes) -> Publication | str:
    """Return what to mount, or the sentence for the pod's event."""
    try:
        request = csi_pb2.NodePublishVolumeRequest.FromString(data)
        return parse_publish(request, parse_place(request, PODS))
    except InvalidRequest as error:
        return str(error)


def _publish_holds(_: bytes, found: Publication | str) -> None:
    if isinstance(found, str):
        assert found.isprintable() and len(found) <= _MAX_MESSAGE
        return
    _target_holds(b"", found.target)


def _target(data: bytes) -> VolumeTarget:
    return parse_target(data.decode("utf-8", "surrogateescape"), PODS)


def _target_holds(_: bytes, found: VolumeTarget) -> None:
    expected = f"{PODS}/{found.pod_uid}/volumes/kubernetes.io~csi/{found.volume}/mount"
    assert found.path == expected
    for name in (found.pod_uid, found.volume):
        assert name not in ("", ".", "..") and not {"/", "\0"} & set(name)


def _mounts(data: bytes) -> tuple[Mount, ...]:
    return parse_mounts_at(data, test_mountinfo.TARGET)


def _mounts_hold(data: bytes, found: tuple[Mount, ...]) -> None:
    assert len(found) <= data.count(b"\n") + 1
    assert all(mount.point == test_mountinfo.TARGET for mount in found)


def targets() -> tuple[Target, ...]:
    """One target for each parser of the driver."""
    return (
        Target(
            "csi-publish",
            _publish,
            (request(UID, PATH).SerializeToString(),),
            expected=(DecodeError,),
            holds=_publish_holds,
            words=(b"csi.storage.k8s.io/", b"/mount", b"/../", b"true", UID.encode()),
        ),
        Target(
            "csi-target",
            _target,
            (PATH.encode(),),
            expected=(InvalidRequest,),
            holds=_target_holds,
            words=(b"/", b"..", b"\0", b"/mount", b"kubernetes.io~csi", b"\xff"),
        ),
        Target(
            "csi-mountinfo",
            _mounts,
            (test_mountinfo.RECORDED,),
            expected=(VolumeFailed,),
            holds=_mounts_hold,
            words=(b" - ", b"\\040", b" ", b"\n", b"shared:1", b"\\377"),
        ),
    )
