"""The directories with the processes of a pod, on both cgroup versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from netutil.agent.identity.cgroup_walk import processes_below
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.hierarchy import UNIFIED, Hierarchy
from netutil.agent.parsers.cgroup import choose_container, identify

UID = "2f5b8a1c_6d3e_4f70_9a1b_0c2d3e4f5a6b"
OTHER_UID = "3f5b8a1c_6d3e_4f70_9a1b_0c2d3e4f5a6b"
ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64
SLICE = f"kubepods-burstable-pod{UID}.slice"
SERVICE = "/system.slice/containerd.service"


def tree_of(root: Path, version: int, *paths: str) -> CgroupTree:
    """A hierarchy in which each path has one process, numbered from 1 on."""
    for number, path in enumerate(paths, start=1):
        directory = root / path.removeprefix("/")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cgroup.procs").write_text(f"{number}\n")
    controller = UNIFIED if version == 2 else "cpu"
    return CgroupTree({controller: Hierarchy(version, str(root))})


def cgroup_file(version: int, path: str) -> str:
    return f"0::{path}\n" if version == 2 else f"3:cpu:{path}\n2:freezer:/\n0::/\n"


def found(tree: CgroupTree, text: str, *container_ids: str) -> set[int]:
    identity = identify(text)
    if identity.pod_uid is None:
        identity = choose_container(identity, container_ids)
    directories = tree.pod_directories(identity, container_ids)
    return {pid for directory in directories for pid in processes_below(directory)}


both = pytest.mark.parametrize("version", [1, 2])


@both
def test_a_pods_own_directory_holds_all_of_it(version: int, tmp_path: Path) -> None:
    pod, other = (f"/kubepods.slice/kubepods-pod{uid}.slice" for uid in (UID, OTHER_UID))
    names = [f"{pod}/cri-containerd-{one}.scope" for one in (ONE, TWO)]
    tree = tree_of(tmp_path, version, *names, f"{other}/cri-containerd-{THREE}.scope")
    assert found(tree, cgroup_file(version, names[0])) == {1, 2}


@both
def test_joined_names_of_one_pod_are_searched_together(version: int, tmp_path: Path) -> None:
    names = [f"{SERVICE}/{SLICE}:cri-containerd:{one}" for one in (ONE, TWO)]
    other = f"{SERVICE}/kubepods-burstable-pod{OTHER_UID}.slice:cri-containerd:{THREE}"
    below = f"{names[1]}/made-by-the-workload"
    tree = tree_of(tmp_path, version, *names, other, below, SERVICE)
    assert found(tree, cgroup_file(version, names[0])) == {1, 2, 4}
    assert found(tree, cgroup_file(version, below)) == {1, 2, 4}


@both
@pytest.mark.parametrize("name", ["crio-{}.scope", "crio-{}", "{}"])
def test_the_list_decides_which_directories_are_searched(
    name: str, version: int, tmp_path: Path
) -> None:
    names = [f"/system.slice/{name.format(one)}" for one in (ONE, TWO, THREE)]
    tree = tree_of(tmp_path, version, *names)
    assert found(tree, cgroup_file(version, names[0]), ONE, TWO) == {1, 2}
    assert found(tree, cgroup_file(version, names[0]), ONE) == {1}


def test_a_container_without_a_cgroup_is_skipped(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, 2, f"/system.slice/crio-{ONE}.scope")
    assert found(tree, f"0::/system.slice/crio-{ONE}.scope\n", ONE, TWO) == {1}


def test_a_hierarchy_that_is_not_mounted_is_passed_over(tmp_path: Path) -> None:
    names = [f"{SERVICE}/{SLICE}:cri-containerd:{one}" for one in (ONE, TWO)]
    tree = tree_of(tmp_path, 1, *names)
    assert found(tree, f"9:pids:{names[0]}\n3:cpu:{names[0]}\n") == {1, 2}
    assert found(CgroupTree(), cgroup_file(1, names[0])) == set()


def test_a_shortage_is_no_missing_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_descriptors(_: str) -> list[str]:
        raise OSError(24, os.strerror(24))

    name = f"{SERVICE}/{SLICE}:cri-containerd:{ONE}"
    tree = tree_of(tmp_path, 2, name)
    monkeypatch.setattr(os, "listdir", out_of_descriptors)
    with pytest.raises(OSError, match="Too many open files"):
        tree.pod_directories(identify(cgroup_file(2, name)))
