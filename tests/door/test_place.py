"""Two agents at one path: nothing is replaced or removed but what was looked at."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from netutil.agent.door import place
from netutil.agent.door.listener import Listener, listen
from netutil.agent.door.place import Replaced, inode_of, put, take_away


def start(path: Path) -> Listener:
    return listen(str(path), mode=0o666, directory_mode=0o755)


class Unable:
    """A kernel or file system without RENAME_NOREPLACE."""

    def renameat2(self, *_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1


@pytest.fixture(params=[True, False], ids=["renameat2", "without it"], autouse=True)
def _able(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(place, "_LIBC", Unable())


def test_a_file_is_put_only_where_nothing_stands(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("one")
    put(str(one), str(other))
    assert (one.exists(), other.read_text()) == (False, "one")
    one.write_text("two")
    with pytest.raises(FileExistsError):
        put(str(one), str(other))
    assert (one.read_text(), other.read_text()) == ("two", "one")


def a_file(path: Path) -> None:
    path.write_text("content")


def a_link(path: Path) -> None:
    path.symlink_to("elsewhere")


def a_directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [a_file, a_link, a_directory])
def test_what_is_expected_is_removed_and_all_else_stays(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    path, expected = tmp_path / "net.sock", tmp_path / "expected"
    expected.write_text("")
    make(path)
    stands = inode_of(str(path))
    assert take_away(str(path), inode_of(str(expected))) is None
    assert inode_of(str(path)) == stands
    assert take_away(str(path), stands) == Replaced(directory=make is a_directory)
    assert os.listdir(tmp_path) == ["expected"]
    assert take_away(str(path), stands) is None


def test_a_directory_with_content_is_moved_aside_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    path.mkdir()
    (path / "content").write_text("content")
    replaced = take_away(str(path), inode_of(str(path)))
    assert replaced is not None and replaced.directory
    assert [str(tmp_path / name) for name in os.listdir(tmp_path)] == [replaced.left_at]
    assert Path(replaced.left_at, "content").read_text() == "content"


def gone(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    path.unlink()
    path.write_text("not a socket")


def dead(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("fault", [gone, replaced, dead, lambda path: path.chmod(0)])
def test_an_older_agent_does_not_replace_what_a_newer_one_bound_since_it_looked(
    fault: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "net.sock"
    older = start(path)
    fault(path)
    seen = inode_of(str(path)) if path.exists() else None
    newer = start(path)
    with pytest.raises(FileExistsError):
        older.anew(seen)
    assert newer.still_ours()
    assert os.listdir(tmp_path) == ["net.sock"]
    for listener in (older, newer):
        listener.connection.close()


@pytest.mark.parametrize("fault", [gone, replaced, dead, lambda path: path.chmod(0)])
def test_what_is_still_as_it_was_seen_is_replaced(
    fault: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "net.sock"
    older = start(path)
    fault(path)
    anew = older.anew(inode_of(str(path)) if path.exists() else None)
    assert anew.still_ours()
    assert os.listdir(tmp_path) == ["net.sock"]
    for listener in (older, anew):
        listener.connection.close()


def test_an_agent_that_stops_does_not_remove_what_a_newer_one_bound_since_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.sock"
    older = start(path)
    newer = start(path)
    monkeypatch.setattr(Listener, "still_ours", lambda _: True)
    older.unlink_if_ours()
    monkeypatch.undo()
    assert newer.still_ours()
    for listener in (older, newer):
        listener.connection.close()
