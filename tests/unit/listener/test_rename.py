"""Two agents at one path: only a file that was checked is replaced or removed."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from netutil.agent.listener import unix_socket
from netutil.agent.listener.unix_socket import (
    Listener,
    Replaced,
    file_id,
    remove_if_unchanged,
    rename_noreplace,
)

from tests.unit.listener.harness import start


class WithoutRenameat2:
    """A kernel or file system without RENAME_NOREPLACE."""

    def renameat2(self, *_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1


@pytest.fixture(params=[True, False], ids=["renameat2", "without it"], autouse=True)
def _able(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(unix_socket, "_LIBC", WithoutRenameat2())


def test_a_file_is_renamed_only_where_nothing_exists(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("one")
    rename_noreplace(str(one), str(other))
    assert (one.exists(), other.read_text()) == (False, "one")
    one.write_text("two")
    with pytest.raises(FileExistsError):
        rename_noreplace(str(one), str(other))
    assert (one.read_text(), other.read_text()) == ("two", "one")


def a_file(path: Path) -> None:
    path.write_text("content")


def a_link(path: Path) -> None:
    path.symlink_to("elsewhere")


def a_directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [a_file, a_link, a_directory])
def test_the_expected_file_is_removed_and_any_other_stays(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    path, expected = tmp_path / "net.sock", tmp_path / "expected"
    expected.write_text("")
    make(path)
    found = file_id(str(path))
    assert remove_if_unchanged(str(path), file_id(str(expected))) is None
    assert file_id(str(path)) == found
    assert remove_if_unchanged(str(path), found) == Replaced(directory=make is a_directory)
    assert os.listdir(tmp_path) == ["expected"]
    assert remove_if_unchanged(str(path), found) is None


def test_a_directory_with_content_is_moved_aside_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    path.mkdir()
    (path / "content").write_text("content")
    replaced = remove_if_unchanged(str(path), file_id(str(path)))
    assert replaced is not None and replaced.directory
    assert [str(tmp_path / name) for name in os.listdir(tmp_path)] == [replaced.moved_to]
    assert Path(replaced.moved_to, "content").read_text() == "content"


def removed(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    path.unlink()
    path.write_text("not a socket")


def stale(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("fault", [removed, replaced, stale, lambda path: path.chmod(0)])
def test_an_older_agent_keeps_a_socket_bound_since_its_check(
    fault: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "net.sock"
    older = start(path)
    fault(path)
    checked = file_id(str(path)) if path.exists() else None
    newer = start(path)
    with pytest.raises(FileExistsError):
        older.rebind(replacing=checked)
    assert newer.still_ours()
    assert os.listdir(tmp_path) == ["net.sock"]
    for listener in (older, newer):
        listener.connection.close()


@pytest.mark.parametrize("fault", [removed, replaced, stale, lambda path: path.chmod(0)])
def test_a_file_that_is_unchanged_since_the_check_is_replaced(
    fault: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "net.sock"
    older = start(path)
    fault(path)
    rebound = older.rebind(replacing=file_id(str(path)) if path.exists() else None)
    assert rebound.still_ours()
    assert os.listdir(tmp_path) == ["net.sock"]
    for listener in (older, rebound):
        listener.connection.close()


def replace_before_the_rename(monkeypatch: pytest.MonkeyPatch, path: Path) -> list[Listener]:
    """Let a newer agent bind `path` between the older one's check and its next rename."""
    newer: list[Listener] = []
    rename = unix_socket.rename_noreplace

    def late(source: str, target: str) -> None:
        if not newer and source == str(path):
            newer.append(start(path))
        rename(source, target)

    monkeypatch.setattr(unix_socket, "rename_noreplace", late)
    return newer


def test_an_agent_that_rebinds_puts_a_newer_socket_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.sock"
    older = start(path)
    stale(path)
    newer = replace_before_the_rename(monkeypatch, path)
    with pytest.raises(FileExistsError):
        older.rebind(replacing=file_id(str(path)))
    assert newer[0].still_ours()
    assert os.listdir(tmp_path) == ["net.sock"]
    for listener in (older, *newer):
        listener.connection.close()


def test_an_agent_that_stops_puts_a_newer_socket_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.sock"
    older = start(path)
    newer = replace_before_the_rename(monkeypatch, path)
    older.unlink_if_ours()
    assert newer[0].still_ours()
    assert os.listdir(tmp_path) == ["net.sock"]
    for listener in (older, *newer):
        listener.connection.close()


def test_a_file_is_not_put_back_over_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.sock"
    path.write_text("checked")
    checked = file_id(str(path))
    rename = unix_socket.rename_noreplace

    def late(source: str, target: str) -> None:
        if source == str(path):
            path.rename(tmp_path / "checked")
            path.write_text("second")
        else:
            path.write_text("third")
        rename(source, target)

    monkeypatch.setattr(unix_socket, "rename_noreplace", late)
    assert remove_if_unchanged(str(path), checked) is None
    assert path.read_text() == "third"
    assert sorted(os.listdir(tmp_path)) == ["checked", "net.sock"]
