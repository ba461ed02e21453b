"""The removal of directory trees: only directories are ever removed."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netutil.agent.listener.empty_tree import MAX_DEPTH, MAX_DIRECTORIES, remove_empty_tree

from tests.support.processes import open_descriptors

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=5).map("/".join)


@given(directories=st.lists(PATHS, max_size=12), files=st.lists(PATHS, max_size=3))
@settings(deadline=None)
def test_only_a_tree_without_files_is_removed_and_no_file_ever(
    directories: list[str], files: list[str]
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # not beside disk writes
        top, before = Path(folder, "tree"), open_descriptors()
        top.mkdir()
        for one in directories:
            (top / one).mkdir(parents=True, exist_ok=True)
        for number, one in enumerate(files):
            (top / f"{one}/{number}.file").parent.mkdir(parents=True, exist_ok=True)
            (top / f"{one}/{number}.file").write_text(one)
        assert remove_empty_tree(str(top)) is not bool(files)
        assert top.exists() is bool(files)
        for number, one in enumerate(files):
            assert (top / f"{one}/{number}.file").read_text() == one
        assert open_descriptors() == before


@pytest.mark.parametrize("kind", ["file", "link", "fifo"])
def test_a_file_that_is_not_a_directory_stays(kind: str, tmp_path: Path) -> None:
    path, target = tmp_path / "path", tmp_path / "target"
    target.mkdir()
    match kind:
        case "file":
            path.touch()
        case "link":
            path.symlink_to(target)
        case "fifo":
            os.mkfifo(path)
    before = sorted(os.listdir(tmp_path))
    assert not remove_empty_tree(str(path))
    assert sorted(os.listdir(tmp_path)) == before


def test_a_missing_directory_counts_as_removed(tmp_path: Path) -> None:
    assert remove_empty_tree(str(tmp_path / "missing"))


def test_two_agents_may_remove_one_tree_at_once(tmp_path: Path) -> None:
    for number in range(100):
        tree = tmp_path / f"{number}"
        for one in range(8):
            (tree / f"{one}" / "x" / "y").mkdir(parents=True)
        results: list[bool] = []
        threads = [
            threading.Thread(target=lambda: results.append(remove_empty_tree(str(tree))))  # noqa: B023
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert True in results
        assert not tree.exists()


def test_trees_up_to_the_limits_are_removed(tmp_path: Path) -> None:
    deep, wide = tmp_path / "deep", tmp_path / "wide"
    deep.joinpath(*["x"] * MAX_DEPTH).mkdir(parents=True)
    wide.mkdir()
    for number in range(MAX_DIRECTORIES - 1):
        (wide / f"{number}").mkdir()
    assert remove_empty_tree(str(deep))
    assert remove_empty_tree(str(wide))
    assert os.listdir(tmp_path) == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another owner")
def test_a_directory_of_another_user_stays(tmp_path: Path) -> None:
    (tmp_path / "tree" / "theirs").mkdir(parents=True)
    os.chown(tmp_path / "tree" / "theirs", 65534, 65534)
    assert not remove_empty_tree(str(tmp_path / "tree"))
    assert (tmp_path / "tree" / "theirs").is_dir()


def test_a_link_in_a_tree_is_not_followed(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    (outside / "empty").mkdir(parents=True)
    tree.mkdir()
    (tree / "link").symlink_to(outside)
    assert not remove_empty_tree(str(tree))
    assert (outside / "empty").is_dir()
    assert (tree / "link").is_symlink()


def test_links_swapped_in_meanwhile_are_not_followed(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    (outside / "empty").mkdir(parents=True)
    stop = threading.Event()

    def swap() -> None:
        link, directory = tmp_path / "link", tree / "a"
        while not stop.is_set():
            try:
                directory.mkdir(parents=True)
                link.symlink_to(outside)
                directory.rmdir()
                link.rename(directory)
                time.sleep(0.0001)
                directory.unlink()
            except OSError:
                link.unlink(missing_ok=True)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(300):
            (tree / "b").mkdir(parents=True, exist_ok=True)
            remove_empty_tree(str(tree))
    finally:
        stop.set()
        thread.join()
    assert (outside / "empty").is_dir()
