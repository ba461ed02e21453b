"""The requests of the kubelet, and the sentences for those that are rejected."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.csi.errors import InvalidRequest
from netutil.agent.csi.requests import Publication, parse_place, parse_publish
from netutil.csi.v1 import csi_pb2

from tests.support.csi_host import request
from tests.support.csi_paths import PATH, PODS, UID

CONTEXT = dict(request(UID, PATH).volume_context)
KEY = "csi.storage.k8s.io/"
Capability = csi_pb2.VolumeCapability


def mount(**fields: Any) -> csi_pb2.VolumeCapability:
    return Capability(mount=Capability.MountVolume(**fields))


def changed(**keys: str | None) -> dict[str, str]:
    """The volume context with keys of the kubelet's changed, or left out."""
    replaced = CONTEXT | {KEY + key.replace("_", "."): value for key, value in keys.items()}
    return {key: value for key, value in replaced.items() if value is not None}


REJECTED: dict[str, tuple[dict[str, Any], str]] = {
    "no volume ID": ({"volume_id": ""}, "volume_id is missing"),
    "no target": ({"target_path": ""}, "target_path is missing"),
    "another root": ({"target_path": "/k" + PATH}, "set --kubelet-root of netutil-csi"),
    "no access type": ({"volume_capability": Capability()}, "not mounted as a directory"),
    "a block device": (
        {"volume_capability": Capability(block=Capability.BlockVolume())},
        "not mounted as a directory",
    ),
    "a file system": (
        {"volume_capability": mount(fs_type="ext4")},
        "fsType 'ext4' is not supported: remove fsType",
    ),
    "mount options": ({"volume_capability": mount(mount_flags=["rw"])}, "mount options are not"),
    "writable": (
        {"readonly": False},
        "volume 'netutil' is not read-only: set readOnly: true in its csi section",
    ),
    "no pod info": ({"volume_context": {}}, "the CSIDriver object needs podInfoOnMount: true"),
    "a persistent volume": ({"volume_context": changed(ephemeral="false")}, "only inline volumes"),
    "another pod": (
        {"volume_context": changed(pod_uid="another")},
        "pod.uid is 'another' and not the pod of the target path",
    ),
    "no pod": ({"volume_context": changed(pod_uid=None)}, "pod.uid is '' and not the pod"),
    "attributes": (
        {"volume_context": CONTEXT | {"path": "/etc"}},
        "volumeAttributes are not supported: remove 'path' from the volume's csi section",
    ),
    "an attribute like the kubelet's": (
        {"volume_context": CONTEXT | {KEY + "pod.node": "x"}},
        "remove 'csi.storage.k8s.io/pod.node'",
    ),
}


def parsed(message: csi_pb2.NodePublishVolumeRequest) -> Publication:
    return parse_publish(message, parse_place(message, PODS))


def test_a_kubelets_request_names_pod_and_target() -> None:
    publication = parsed(request(UID, PATH))
    assert publication.pod == "shop/web-0"
    assert publication.target.path == PATH


def test_a_token_of_the_service_account_is_accepted() -> None:
    context = CONTEXT | {KEY + "serviceAccount.tokens": "{}"}
    parsed(request(UID, PATH, volume_context=context))


@pytest.mark.parametrize("case", REJECTED)
def test_a_wrong_request_is_rejected_with_the_fix(case: str) -> None:
    changes, sentence = REJECTED[case]
    with pytest.raises(InvalidRequest) as rejected:
        parsed(request(UID, PATH, **changes))
    assert sentence in str(rejected.value)


@pytest.mark.parametrize(
    ("volume_id", "path"), [("", PATH), ("csi-1", ""), ("csi-1", PODS), ("csi-1", PATH + "/x")]
)
def test_a_wrong_unmount_is_rejected(volume_id: str, path: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_place(csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=path), PODS)


@given(st.dictionaries(st.text(max_size=300), st.text(max_size=300), min_size=1, max_size=5))
def test_a_rejected_attribute_makes_one_short_line(attributes: dict[str, str]) -> None:
    context = attributes | CONTEXT
    message = request(UID, PATH, volume_context=context)
    if context.keys() == CONTEXT.keys():
        parsed(message)
        return
    with pytest.raises(InvalidRequest) as rejected:
        parsed(message)
    assert str(rejected.value).isprintable() and len(str(rejected.value)) < 3000
