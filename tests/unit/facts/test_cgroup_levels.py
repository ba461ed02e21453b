"""The names of the cgroups above a container, from paths as kubelets and runtimes make them."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.facts.cgroup_levels import CgroupLevel, ControllerDirectory

ID = "4c1f" * 16
UID = "2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b"
SLICE_UID = UID.replace("-", "_")
TOP = "/sys/fs/cgroup"
CONTAINER, POD, QOS, KUBEPODS, ABOVE = CgroupLevel


def levels(path: str, pod: str | None) -> list[tuple[CgroupLevel, str]]:
    directory = f"{TOP}{path}"
    found = ControllerDirectory(2, directory, TOP, pod and f"{TOP}{pod}").levels
    assert found[0] == (POD if pod == path else CONTAINER, directory)
    assert found[-1][1] == TOP
    return [(level, os.path.basename(each)) for level, each in found[:-1]] + [(found[-1][0], "")]


def test_a_burstable_pod_of_the_cgroupfs_driver() -> None:
    pod = f"/kubepods/burstable/pod{UID}"
    assert levels(f"{pod}/{ID}", pod) == [
        (CONTAINER, ID),
        (POD, f"pod{UID}"),
        (QOS, "burstable"),
        (KUBEPODS, "kubepods"),
        (ABOVE, ""),
    ]


def test_a_guaranteed_pod_is_in_no_qos_class() -> None:
    pod = f"/kubepods/pod{UID}"
    found = levels(f"{pod}/{ID}", pod)
    assert [level for level, _ in found] == [CONTAINER, POD, KUBEPODS, ABOVE]


def test_a_pod_of_the_systemd_driver_below_a_cgroup_root() -> None:
    qos = "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice"
    pod = f"{qos}/kubelet-kubepods-besteffort-pod{SLICE_UID}.slice"
    found = levels(f"{pod}/cri-containerd-{ID}.scope", pod)
    assert [level for level, _ in found] == [CONTAINER, POD, QOS, KUBEPODS, ABOVE, ABOVE]


def test_a_pod_in_its_containers_segment_has_no_cgroup() -> None:
    path = f"/system.slice/containerd.service/kubepods-pod{SLICE_UID}.slice:cri-containerd:{ID}"
    found = levels(path, None)
    assert [level for level, _ in found] == [CONTAINER, ABOVE, ABOVE, ABOVE]


@pytest.mark.parametrize("qos", ["/burstable", ""])
def test_the_pods_own_cgroup_is_no_containers(qos: str) -> None:
    """As of gVisor on cgroup v1, whose processes are in no container's cgroup."""
    pod = f"/kubepods{qos}/pod{UID}"
    found = levels(pod, pod)
    assert [level for level, _ in found] == [POD, *[QOS] * bool(qos), KUBEPODS, ABOVE]


def test_a_cgroup_between_pod_and_container_is_the_pods() -> None:
    pod = f"/kubepods/pod{UID}"
    found = levels(f"{pod}/supervisor/{ID}", pod)
    assert [level for level, _ in found] == [CONTAINER, POD, POD, KUBEPODS, ABOVE]


def test_kubepods_of_an_outer_node_are_above_the_inner_one() -> None:
    outer = f"/kubepods/burstable/pod{UID}/{ID}"
    pod = f"{outer}/kubelet/kubepods/burstable/pod{UID}"
    found = levels(f"{pod}/{ID}", pod)
    inner = [CONTAINER, POD, QOS, KUBEPODS]
    assert [level for level, _ in found] == [*inner, *[ABOVE] * 6]


def test_no_cgroup_is_the_pods_without_a_pod_uid_in_the_path() -> None:
    found = levels(f"/kubepods.slice/crio-{ID}.scope", None)
    assert [level for level, _ in found] == [CONTAINER, KUBEPODS, ABOVE]


@pytest.mark.parametrize("name", ["kubepods.slice.old", "my-burstable", "burstable.slice", "pods"])
def test_a_name_that_no_kubelet_gives_is_above(name: str) -> None:
    pod = f"/{name}/pod{UID}"
    assert levels(f"{pod}/{ID}", pod)[2] == (ABOVE, name)


SEGMENT = st.sampled_from(["kubepods", "burstable", "a", "kubepods.slice", f"pod{UID}", ID])


@given(st.lists(SEGMENT, min_size=1, max_size=8), st.integers(0, 8))
def test_each_directory_up_to_the_top_is_one_level(segments: list[str], depth: int) -> None:
    path = "".join(f"/{one}" for one in segments)
    pod = TOP + "".join(f"/{one}" for one in segments[:depth]) if depth else None
    found = ControllerDirectory(2, TOP + path, TOP, pod).levels
    directories = [directory for _, directory in found]
    assert directories[0] == TOP + path and directories[-1] == TOP
    assert len(directories) == len(segments) + 1
    assert all(b == os.path.dirname(a) for a, b in pairwise(directories))
    order = [list(CgroupLevel).index(level) for level, _ in found]
    assert order == sorted(order)
    assert order[0] == (1 if pod == TOP + path else 0) and order.count(0) <= 1
