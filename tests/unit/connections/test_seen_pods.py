"""The pods that have connected, and those of them that the kernel no longer has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from netutil.agent.connections import seen_pods
from netutil.agent.connections.seen_pods import SeenPods, ended_of
from netutil.agent.identity.cgroups import CgroupTree
from netutil.agent.identity.hierarchy import Hierarchy
from netutil.agent.identity.peer import NO_POD, Peer
from netutil.agent.identity.process import Credentials

UID = "2f5b8a1c-6d3e-4f70-9a1b-0c2d3e4f5a6b"
KEY = UID.replace("-", "")
CONTAINER = "4c1f" * 16


def tree_of(root: Path) -> CgroupTree:
    return CgroupTree({"": Hierarchy(2, str(root))})


def peer_of(tree: CgroupTree, uid: str = UID, container: str = CONTAINER) -> Peer:
    process: Any = None
    identity = tree.identify(f"0::/kubepods/pod{uid}/{container}\n")
    return Peer(Credentials(1, 0, 0), process, identity, identity.pod_uid or NO_POD)


def test_a_pod_has_ended_when_its_cgroup_is_removed(tmp_path: Path) -> None:
    directory = tmp_path / "kubepods" / f"pod{UID}"
    directory.mkdir(parents=True)
    tree = tree_of(tmp_path)
    seen = SeenPods(tree)
    seen.note(peer_of(tree))
    assert seen.directories == {KEY: str(directory)}
    assert ended_of(seen.directories) == frozenset()
    directory.rmdir()
    assert ended_of(seen.directories) == {KEY}


def test_a_pod_lives_on_when_one_of_its_containers_has_ended(tmp_path: Path) -> None:
    container = tmp_path / "kubepods" / f"pod{UID}" / CONTAINER
    container.mkdir(parents=True)
    tree = tree_of(tmp_path)
    seen = SeenPods(tree)
    seen.note(peer_of(tree))
    container.rmdir()
    assert ended_of(seen.directories) == frozenset()


def test_an_unreadable_directory_does_not_count_as_removed(tmp_path: Path) -> None:
    """The kernel says ENAMETOOLONG of this one."""
    assert ended_of({KEY: str(tmp_path / ("x" * 300))}) == frozenset()


def test_peers_of_no_pod_are_not_noted(tmp_path: Path) -> None:
    tree = tree_of(tmp_path)
    seen = SeenPods(tree)
    process: Any = None
    seen.note(Peer(Credentials(1, 0, 0), process, peer_of(tree).cgroups, NO_POD))
    assert len(seen) == 0


def test_pods_past_the_bound_are_not_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_pods, "_MAX_PODS", 2)
    tree = tree_of(tmp_path)
    seen = SeenPods(tree)
    for number in range(5):
        seen.note(peer_of(tree, UID[:-1] + str(number)))
    assert len(seen) == 2
    for key in tuple(seen):
        seen.forget(key)
    seen.note(peer_of(tree))
    assert list(seen) == [KEY]
