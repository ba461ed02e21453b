"""Only what dead agents left is removed."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from netutil.agent.listener import stale
from netutil.agent.listener.stale import (
    PRIVATE_DIRECTORY_PREFIX,
    remove_private_directories,
    remove_stale_sockets,
)

TEMPORARY = "net.sock.0123abcd"


@contextmanager
def listening(path: Path, backlog: int = 8) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(backlog)
        yield listener


def bind_and_close(path: Path) -> None:
    with listening(path):
        pass


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_a_socket_without_a_listener_is_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bind_and_close(tmp_path / TEMPORARY)
    with caplog.at_level("INFO"):
        remove_stale_sockets(str(tmp_path / "net.sock"))
    assert names(tmp_path) == []
    assert f"listener: removed {tmp_path / TEMPORARY} of an agent that was killed" in caplog.text


def test_a_socket_with_a_listener_stays(tmp_path: Path) -> None:
    with listening(tmp_path / TEMPORARY):
        remove_stale_sockets(str(tmp_path / "net.sock"))
        assert names(tmp_path) == [TEMPORARY]


def test_a_socket_with_a_full_backlog_stays(tmp_path: Path) -> None:
    with listening(tmp_path / TEMPORARY, backlog=0), socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(tmp_path / TEMPORARY))
        remove_stale_sockets(str(tmp_path / "net.sock"))
        assert names(tmp_path) == [TEMPORARY]


@pytest.mark.parametrize("name", ["net.sock", "net.sock.d", "net.sock.0123abcd0", "a.0123abcd"])
def test_a_socket_with_another_name_stays(name: str, tmp_path: Path) -> None:
    bind_and_close(tmp_path / name)
    remove_stale_sockets(str(tmp_path / "net.sock"))
    assert names(tmp_path) == [name]


def test_a_file_with_a_temporary_name_stays(tmp_path: Path) -> None:
    (tmp_path / TEMPORARY).write_text("not a socket")
    remove_stale_sockets(str(tmp_path / "net.sock"))
    assert names(tmp_path) == [TEMPORARY]


def test_a_link_to_a_stale_socket_stays_with_its_target(tmp_path: Path) -> None:
    bind_and_close(tmp_path / "other")
    (tmp_path / TEMPORARY).symlink_to("other")
    remove_stale_sockets(str(tmp_path / "net.sock"))
    assert names(tmp_path) == [TEMPORARY, "other"]


def test_a_missing_directory_has_nothing_to_remove(tmp_path: Path) -> None:
    remove_stale_sockets(str(tmp_path / "missing" / "net.sock"))
    assert names(tmp_path) == []


def test_a_directory_filled_by_a_pod_is_read_only_to_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stale, "_MAX_ENTRIES", 2)
    for number in range(5):
        bind_and_close(tmp_path / f"net.sock.{number:08x}")
    remove_stale_sockets(str(tmp_path / "net.sock"))
    assert len(names(tmp_path)) == 3


def private_directory(parent: Path, name: str = "dead", mode: int = 0o700) -> Path:
    directory = parent / f"{PRIVATE_DIRECTORY_PREFIX}{name}"
    directory.mkdir()
    directory.chmod(mode)
    bind_and_close(directory / "public.sock")
    return directory


def test_a_private_directory_of_a_dead_agent_is_removed(tmp_path: Path) -> None:
    private_directory(tmp_path)
    remove_private_directories(str(tmp_path))
    assert names(tmp_path) == []


def test_a_private_directory_that_its_agent_has_locked_stays(tmp_path: Path) -> None:
    directory = private_directory(tmp_path)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_private_directories(str(tmp_path))
        assert names(directory) == ["public.sock"]
    finally:
        os.close(lock)


def test_a_directory_with_another_mode_or_name_stays(tmp_path: Path) -> None:
    readable = private_directory(tmp_path, mode=0o755)
    (tmp_path / "netutil").mkdir(mode=0o700)
    remove_private_directories(str(tmp_path))
    assert names(tmp_path) == sorted([readable.name, "netutil"])


def test_a_link_with_the_name_of_a_private_directory_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    (tmp_path / f"{PRIVATE_DIRECTORY_PREFIX}link").symlink_to(target)
    remove_private_directories(str(tmp_path))
    assert names(tmp_path) == [f"{PRIVATE_DIRECTORY_PREFIX}link", "target"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another owner")
def test_a_private_directory_of_another_user_stays(tmp_path: Path) -> None:
    directory = private_directory(tmp_path)
    os.chown(directory, 65534, 65534)
    remove_private_directories(str(tmp_path))
    assert names(directory) == ["public.sock"]
