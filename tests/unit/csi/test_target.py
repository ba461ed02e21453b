"""From a target path to the pod and the volume in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.csi.errors import InvalidRequest
from netutil.agent.csi.target import parse_target, shown

from tests.support.csi_paths import PATH, PODS, UID

NAMES = st.text(min_size=1, max_size=60).filter(
    lambda name: name not in (".", "..") and not set(name) & {"/", "\0"}
)


def test_the_kubelets_path_has_pod_and_volume() -> None:
    target = parse_target(PATH, PODS)
    assert (target.pod_uid, target.volume) == (UID, "netutil")
    assert (target.path, target.parent) == (PATH, PATH.removesuffix("/mount"))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        PODS,
        f"{PODS}/{UID}",
        PATH + "/",
        PATH + "/..",
        PATH.replace("/mount", ""),
        PATH.replace("/mount", "/other"),
        PATH.replace("kubernetes.io~csi", "kubernetes.io~empty-dir"),
        PATH.replace("/volumes/", "/volume-subpaths/"),
        PATH.replace("/volumes/", "//volumes/"),
        PATH.replace("/netutil/", "/../"),
        PATH.replace("/netutil/", "/./"),
        PATH.replace("/netutil/", "//"),
        PATH.replace("/netutil/", "/a/b/"),
        PATH.replace("/netutil/", "/" + "v" * 256 + "/"),
        PATH.replace("netutil", "net\0util"),
        PATH.replace(UID, ".."),
        PATH.replace("/var/lib/kubelet", "/var/lib/other"),
        PATH.replace("/var/lib/kubelet", ""),
        PATH.removeprefix("/"),
        "/x" + PATH,
    ],
)
def test_another_path_is_rejected_with_the_fix(path: str) -> None:
    with pytest.raises(InvalidRequest, match="--kubelet-root"):
        parse_target(path, PODS)


@given(NAMES, NAMES)
def test_any_name_of_pod_and_volume_is_found_again(uid: str, volume: str) -> None:
    target = parse_target(f"{PODS}/{uid}/volumes/kubernetes.io~csi/{volume}/mount", PODS)
    assert (target.pod_uid, target.volume) == (uid, volume)


@given(st.text(alphabet="./ab\0", max_size=40), st.text(alphabet="./ab\0", max_size=40))
def test_an_accepted_path_never_leaves_its_pod(uid: str, volume: str) -> None:
    path = f"{PODS}/{uid}/volumes/kubernetes.io~csi/{volume}/mount"
    try:
        target = parse_target(path, PODS)
    except InvalidRequest:
        return
    names = target.path.removeprefix(PODS + "/").split("/")
    assert len(names) == 5 and not {"", ".", ".."} & set(names) and "\0" not in path


@given(st.text(max_size=400))
def test_any_text_is_shown_on_one_line_of_bounded_length(text: str) -> None:
    line = shown(text)
    assert line.isascii() and line.isprintable() and len(line) <= 200 * 10 + 5
