"""A pod's cgroup that root made is held, and seen to be the same without a walk of its path."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from netutil.agent.errors import PermissionDenied
from netutil.agent.identity import held_cgroups
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.held_cgroups import MAX_SWEPT, HeldCgroup, HeldCgroups
from netutil.agent.identity.hierarchy import UNIFIED, Hierarchy
from netutil.agent.parsers.cgroup import choose_container

from tests.support.lab.cgroups import find_hierarchies
from tests.support.lab.observing import needs_lab
from tests.support.processes import open_descriptors

pytestmark = [pytest.mark.root, needs_lab]

USER = 12345
UID = "2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b"
ID = "c" * 64
OTHER = "77777777-0000-4000-8000-000000000000"
OF_PARENT = 3
"""Descriptors of the directory above pods' own, which is right below the top."""
WALKS = ("lstat", "stat", "open", "listdir", "scandir")
"""What of `os` a check by path would use."""


class Node:
    """A hierarchy of this machine from one directory down, in which pods are made."""

    def __init__(self, version: int, directory: Path, held: HeldCgroups) -> None:
        self.controller = UNIFIED if version == 2 else "cpu"
        self.directory = directory
        self.pods = directory / "kubepods"
        self.pods.mkdir(parents=True)
        hierarchy = Hierarchy(version, str(directory), "/")
        self.tree = CgroupTree({self.controller: hierarchy}, held=held)

    def make_pod(self, uid: str = UID) -> Path:
        pod = self.pods / f"pod{uid}"
        pod.mkdir()
        return pod

    def identify(self, uid: str = UID, below: str = "") -> None:
        """Identify a process of a pod, as for each connection."""
        text = f"1:{self.controller}:/kubepods/pod{uid}/{ID}{below}\n"
        assert self.tree.identify_made_by_root(text).pod_uid == uid.replace("-", "")

    def close(self) -> None:
        self.tree.held.close()
        for folder, _, _ in os.walk(self.directory, topdown=False):
            os.rmdir(folder)


@pytest.fixture(params=find_hierarchies(), ids=lambda one: one.directory.name)
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    directory = request.param.directory / f"netutil-held-{os.getpid()}"
    made = Node(request.param.version, directory, HeldCgroups())
    yield made
    made.close()


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the calls that walked a path since."""
    found: list[str] = []

    def note(name: str) -> None:
        real = getattr(os, name)

        def noted(*args: object, **named: object) -> object:
            found.append(name)
            return real(*args, **named)

        monkeypatch.setattr(os, name, noted)

    for name in WALKS:
        note(name)
    return found


def test_a_pod_that_was_seen_before_costs_no_walk(node: Node, walks: list[str]) -> None:
    node.make_pod()
    node.identify()
    assert walks
    walks.clear()
    for number in range(100):  # from a new cgroup below its own for each connection
        node.identify(below=f"/churn-{number}")
    assert walks == []
    assert node.tree.held.checked_by_path == 1


def test_a_new_pod_beside_a_known_one_is_opened_without_a_walk(
    node: Node, walks: list[str]
) -> None:
    node.make_pod()
    node.identify()
    node.make_pod(OTHER)
    walks.clear()
    node.identify(OTHER)
    assert set(walks) == {"open"}
    assert node.tree.held.checked_by_path == 1
    assert len(node.tree.held) == 2
    walks.clear()
    node.identify(OTHER)
    assert walks == []


def test_a_users_new_pod_beside_a_known_one_is_refused(node: Node) -> None:
    node.make_pod()
    node.identify()
    os.chown(node.make_pod(OTHER), USER, USER)
    for _ in range(3):
        with pytest.raises(PermissionDenied, match=f"uid {USER}"):
            node.identify(OTHER)
    assert len(node.tree.held) == 1


def test_a_new_pod_below_a_users_directory_is_refused_meanwhile(
    node: Node,
) -> None:
    node.make_pod()
    node.identify()
    node.make_pod(OTHER)
    os.chown(node.pods, USER, USER)
    with pytest.raises(PermissionDenied, match=f"uid {USER}"):
        node.identify(OTHER)
    os.chown(node.pods, 0, 0)
    node.identify(OTHER)


def test_a_new_pod_is_refused_once_an_ancestor_is_given_away(node: Node) -> None:
    node.make_pod()
    node.identify()
    node.make_pod(OTHER)
    os.chown(node.directory, USER, USER)
    with pytest.raises(PermissionDenied, match=f"uid {USER}"):
        node.identify(OTHER)
    assert len(node.tree.held) == 1
    os.chown(node.directory, 0, 0)
    node.identify(OTHER)


def test_a_new_pod_is_looked_for_below_what_has_the_name_now(node: Node) -> None:
    """Cgroup v1 has rename(2): the directory above a held one may be another's."""
    node.make_pod()
    node.identify()
    if node.controller == UNIFIED:
        node.tree.held.close()
        for folder, _, _ in os.walk(node.pods, topdown=False):
            os.rmdir(folder)
    else:
        node.pods.rename(node.directory / "aside")
        (node.directory / "aside" / f"pod{OTHER}").mkdir()
    node.pods.mkdir()
    os.chown(node.pods, USER, USER)
    node.make_pod(OTHER)
    with pytest.raises(PermissionDenied, match=f"uid {USER}"):
        node.identify(OTHER)


def test_held_ancestors_are_bounded_and_released_with_removal(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_cgroups, "MAX_PARENTS", 2)
    held, before = HeldCgroups(), open_descriptors()
    tops = [node.directory / f"top{number}" for number in range(4)]
    for top in tops:
        top.mkdir()
        found = top.lstat()
        number = found.st_dev, found.st_ino
        held.hold_above(f"{top}/pod", str(node.directory), lambda number=number: number)  # type: ignore[misc]
    assert open_descriptors() == before + 2 * OF_PARENT
    assert [held.has_above(f"{top}/pod") for top in tops] == [False, False, True, True]
    tops[3].rmdir()
    held.age()
    assert open_descriptors() == before + OF_PARENT
    held.close()
    assert open_descriptors() == before


def test_an_owner_that_changed_is_seen_at_once(node: Node) -> None:
    pod = node.make_pod()
    for _ in range(20):
        node.identify()
        os.chown(pod, USER, USER)
        with pytest.raises(PermissionDenied, match=f"uid {USER}"):
            node.identify()
        assert len(node.tree.held) == 0
        os.chown(pod, 0, 0)


def test_a_users_directory_under_a_held_name_is_refused(node: Node) -> None:
    for _ in range(20):
        pod = node.make_pod()
        node.identify()
        pod.rmdir()
        os.chown(node.pods, USER, USER)
        node.make_pod()  # root's, but not what is above it
        with pytest.raises(PermissionDenied, match=f"uid {USER}"):
            node.identify()
        assert len(node.tree.held) == 0
        os.chown(node.pods, 0, 0)
        pod.rmdir()


def test_one_that_root_made_again_is_held_again(node: Node) -> None:
    for _ in range(20):
        pod = node.make_pod()
        node.identify()
        assert len(node.tree.held) == 1
        pod.rmdir()
        with pytest.raises(PermissionDenied, match="cannot be checked"):
            node.identify()
    assert len(node.tree.held) == 0


def test_one_that_was_renamed_does_not_prove_what_took_its_name(node: Node) -> None:
    """Cgroup v1 lets a user who may write the parent directory rename a cgroup; v2 lets no user."""
    pod = node.make_pod()
    node.identify()
    os.chown(node.pods, USER, USER)
    if node.controller == UNIFIED:
        with pytest.raises(PermissionError):
            pod.rename(node.pods / "aside")
        node.identify()
        return
    pod.rename(node.pods / "aside")
    node.make_pod()
    with pytest.raises(PermissionDenied, match=f"uid {USER}"):
        node.identify()
    assert len(node.tree.held) == 0


def test_a_users_cgroup_is_never_held(node: Node) -> None:
    os.chown(node.make_pod(), USER, USER)
    for _ in range(3):
        with pytest.raises(PermissionDenied):
            node.identify()
    assert len(node.tree.held) == 0


def test_one_that_is_exchanged_while_it_is_checked_is_not_held(node: Node) -> None:
    held, pod = node.tree.held, node.make_pod()

    def check() -> tuple[int, int]:
        pod.rmdir()
        pod.mkdir()
        found = pod.lstat()
        return found.st_dev, found.st_ino

    held.check(str(pod), check)
    assert len(held) == 0


def test_ancestors_of_a_container_without_a_pod_uid_are_not_held(node: Node) -> None:
    """A workload makes as many as it likes, and each would take the space of a pod's."""
    found = node.tree.identify(f"1:{node.controller}:/{ID}\n")
    node.tree.ensure_made_by_root(choose_container(found, [ID]))
    assert len(node.tree.held) == 0


def test_held_directories_are_bounded_oldest_released_first(node: Node, walks: list[str]) -> None:
    uids = [f"{number:08d}-0000-4000-8000-000000000000" for number in range(5)]
    for uid in uids:
        node.make_pod(uid)
    few = Node.__new__(Node)
    few.controller = node.controller
    few.tree = CgroupTree(node.tree.hierarchies, held=HeldCgroups(3))
    before = open_descriptors()
    for uid in uids[:3]:
        few.identify(uid)
    few.identify(uids[0])
    few.identify(uids[3])
    assert len(few.tree.held) == 3
    assert open_descriptors() == before + 6, "of so few, none is above pods' own"
    walks.clear()
    few.identify(uids[0])
    assert walks == []
    few.identify(uids[1])
    assert walks
    assert len(few.tree.held) == 3
    few.tree.held.close()
    assert open_descriptors() == before


def test_directories_above_count_twice(node: Node) -> None:
    held = HeldCgroups(8)
    few = CgroupTree(node.tree.hierarchies, held=held)
    before = open_descriptors()
    for number in range(12):
        uid = f"77777777-0000-4000-8000-{number:012}"
        node.make_pod(uid)
        few.identify_made_by_root(f"1:{node.controller}:/kubepods/pod{uid}/{ID}\n")
    assert len(held) == 6
    assert open_descriptors() == before + 2 * 6 + OF_PARENT
    held.close()
    assert open_descriptors() == before


def test_removed_ones_are_released_by_a_sweep(node: Node) -> None:
    other = "77777777-0000-4000-8000-000000000000"
    held = HeldCgroups()
    swept = CgroupTree(node.tree.hierarchies, held=held)
    pod = node.make_pod()
    node.make_pod(other)
    for uid in (UID, other):
        swept.identify_made_by_root(f"1:{node.controller}:/kubepods/pod{uid}/{ID}\n")
    pod.rmdir()
    before = open_descriptors()
    assert len(held) == 2
    held.age()
    assert len(held) == 1
    assert open_descriptors() == before - 2
    held.close()


def test_each_is_looked_at_by_some_sweep(node: Node) -> None:
    held = HeldCgroups()
    swept = CgroupTree(node.tree.hierarchies, held=held)
    uids = [f"77777777-0000-4000-8000-{number:012}" for number in range(MAX_SWEPT + 8)]
    pods = [node.make_pod(uid) for uid in uids]
    for uid in uids:
        swept.identify_made_by_root(f"1:{node.controller}:/kubepods/pod{uid}/{ID}\n")
    pods[-1].rmdir()
    held.age()
    assert len(held) == len(uids)
    held.age()
    assert len(held) == len(uids) - 1
    held.close()


def test_paths_are_walked_when_the_cache_is_full(node: Node, walks: list[str]) -> None:
    node.make_pod()
    tree = CgroupTree(node.tree.hierarchies, held=HeldCgroups(0))
    for _ in range(3):
        walks.clear()
        tree.identify_made_by_root(f"1:{node.controller}:/kubepods/pod{UID}/{ID}\n")
        assert walks
    assert len(tree.held) == 0


def test_a_descriptor_shortage_releases_all_and_walks_paths(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "77777777-0000-4000-8000-000000000000"
    node.make_pod()
    node.make_pod(other)
    node.identify()

    def short(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", short)
        node.identify(other)
    assert len(node.tree.held) == 0
    node.identify()
    assert len(node.tree.held) == 1


def test_a_directory_that_is_no_cgroup_is_not_held(tmp_path: Path) -> None:
    before = open_descriptors()
    with pytest.raises(FileNotFoundError):
        HeldCgroup(str(tmp_path))
    assert open_descriptors() == before
