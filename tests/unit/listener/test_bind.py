"""The socket file at every step of bind: its mode, and files that others may have put there."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from netutil.agent.listener.unix_socket import MAX_PATH_BYTES

from tests.unit.listener.harness import start


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    previous = os.umask(mask)
    try:
        yield
    finally:
        os.umask(previous)


def after_every_call(look: Callable[[], None], work: Callable[[], Any]) -> Any:
    """Return what `work` returns; `look` runs after each call of C that it makes."""

    def profile(frame: FrameType, event: str, argument: object) -> None:
        del frame, argument
        if event == "c_return":
            sys.setprofile(None)
            look()
            sys.setprofile(profile)

    previous = sys.getprofile()
    sys.setprofile(profile)
    try:
        return work()
    finally:
        sys.setprofile(previous)


@pytest.mark.parametrize("mode", [0o666, 0o600])
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_the_file_has_its_mode_under_every_name_at_every_moment(
    mode: int, mask: int, tmp_path: Path
) -> None:
    seen: list[tuple[str, int]] = []

    def look() -> None:
        seen.extend((path.name, mode_of(path)) for path in tmp_path.iterdir())

    with umask(mask):
        listener = after_every_call(look, lambda: start(tmp_path / "net.sock", mode=mode))
    listener.connection.close()
    assert {modes for _, modes in seen} == {mode}
    assert len({name for name, _ in seen}) == 2  # the temporary name was seen, and the final one


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_missing_directory_has_its_mode_whatever_the_umask(
    mode: int, mask: int, tmp_path: Path
) -> None:
    directory = tmp_path / "run" / "netutil"
    with umask(mask):
        start(directory / "net.sock", directory_mode=mode).connection.close()
    assert mode_of(directory) == mode


def test_no_missing_parent_becomes_writable_by_others(tmp_path: Path) -> None:
    with umask(0):
        start(tmp_path / "run" / "netutil" / "net.sock").connection.close()
    assert mode_of(tmp_path / "run") & 0o022 == 0


def test_an_existing_directory_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    start(tmp_path / "net.sock").connection.close()
    assert mode_of(tmp_path) == 0o711


@pytest.mark.parametrize("planted", ["link", "file", "directory", "socket"])
def test_a_file_at_the_temporary_name_is_not_used(
    planted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda _: "guessed")
    target, trap = tmp_path / "target", tmp_path / "net.sock.guessed"
    match planted:
        case "link":
            trap.symlink_to(target)
        case "file":
            trap.write_text("workload")
        case "directory":
            trap.mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as theirs:
                theirs.bind(str(trap))
    with pytest.raises(OSError, match=r"in use|directory"):
        start(tmp_path / "net.sock")
    assert not target.exists()
    assert os.listdir(tmp_path) == ["net.sock.guessed"]


def test_a_temporary_name_in_use_is_left_and_another_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter(("taken", "free"))
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(names))
    (tmp_path / "net.sock.taken").write_text("workload")
    start(tmp_path / "net.sock").connection.close()
    assert sorted(os.listdir(tmp_path)) == ["net.sock", "net.sock.taken"]
    assert (tmp_path / "net.sock.taken").read_text() == "workload"


def test_a_failed_start_leaves_the_socket_of_the_running_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = start(tmp_path / "net.sock")

    def no_rename(temporary: str, final: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", temporary)

    monkeypatch.setattr(os, "rename", no_rename)
    with pytest.raises(PermissionError):
        start(tmp_path / "net.sock")
    assert running.still_ours()
    assert os.listdir(tmp_path) == ["net.sock"]
    running.connection.close()


@pytest.mark.parametrize("foreign", ["file", "link to ours", "nothing"])
def test_a_workloads_file_at_the_path_is_not_removed(foreign: str, tmp_path: Path) -> None:
    path, moved = tmp_path / "net.sock", tmp_path / "moved"
    listener = start(path)
    path.rename(moved)
    if foreign == "file":
        path.write_text("workload")
    elif foreign == "link to ours":
        path.symlink_to(moved)
    before = sorted(os.listdir(tmp_path))
    listener.unlink_if_ours()
    assert sorted(os.listdir(tmp_path)) == before
    listener.connection.close()


def test_a_link_to_nothing_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    path.symlink_to(tmp_path / "missing")
    start(path).connection.close()
    assert path.is_socket() and not path.is_symlink()
    assert not (tmp_path / "missing").exists()


def test_a_link_to_a_directory_is_replaced_and_not_followed(tmp_path: Path) -> None:
    path, inside = tmp_path / "net.sock", tmp_path / "inside"
    inside.mkdir()
    path.symlink_to(inside)
    start(path).connection.close()
    assert path.is_socket() and not path.is_symlink()
    assert os.listdir(inside) == []


def test_the_longest_path_can_be_bound(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    path = directory / ("s" * (MAX_PATH_BYTES - len(str(directory)) - 1))
    listener = start(path)
    assert len(str(path)) == MAX_PATH_BYTES
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.connection.close()
