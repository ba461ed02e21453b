"""The socket file: its mode, its takeover, and which agent removes it."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from pathlib import Path

import pytest
from netutil.agent.listener.unix_socket import Listener, listen

from tests.unit.listener.harness import start


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("mode", [0o666, 0o600])
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_the_socket_is_bound_with_its_mode_whatever_the_umask(
    mode: int, umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.sock"
    at_bind: list[int] = []
    rename = os.rename

    def renaming(temporary: str, final: str) -> None:
        at_bind.append(mode_of(Path(temporary)))
        rename(temporary, final)

    monkeypatch.setattr(os, "rename", renaming)
    previous = os.umask(umask)
    try:
        listener = start(path, mode=mode)
        assert os.umask(umask) == umask
    finally:
        os.umask(previous)
    listener.connection.close()
    assert at_bind == [mode]
    assert mode_of(path) == mode


def test_a_missing_directory_is_created_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "run" / "admin.sock"
    listen(str(path), mode=0o600, directory_mode=0o700).connection.close()
    assert mode_of(path.parent) == 0o700


def _accept_all(listeners: list[Listener]) -> None:
    for listener in listeners:
        with contextlib.suppress(BlockingIOError):
            while True:
                listener.connection.accept()[0].close()


def test_the_path_is_never_without_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    listeners = [start(path)]
    failures: list[OSError] = []
    connected = 0
    stop = threading.Event()

    def connect() -> None:
        nonlocal connected
        while not stop.is_set():
            with socket.socket(socket.AF_UNIX) as client:
                try:
                    client.connect(str(path))
                    connected += 1
                except OSError as error:
                    failures.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        for _ in range(50):
            listeners.append(start(path))
    finally:
        stop.set()
        while thread.is_alive():  # it may wait for a full queue
            _accept_all(listeners)
            thread.join(0.01)
        for listener in listeners:
            listener.connection.close()
    assert failures == []
    assert connected > 0
    assert os.listdir(tmp_path) == ["net.sock"]


def test_only_the_last_listener_removes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    old, new = start(path), start(path)
    assert not old.still_ours()
    old.unlink_if_ours()
    assert path.is_socket()
    new.unlink_if_ours()
    assert not path.exists()
    new.unlink_if_ours()
    for listener in (old, new):
        listener.connection.close()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    start(path).connection.close()
    listener = start(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listener.connection.close()


def test_a_link_is_replaced_and_its_target_is_kept(tmp_path: Path) -> None:
    path, target = tmp_path / "net.sock", tmp_path / "target"
    target.write_text("mine")
    path.symlink_to(target)
    listener = start(path)
    assert path.is_socket()
    assert not path.is_symlink()
    assert target.read_text() == "mine"
    listener.connection.close()


def test_bind_is_retried_when_its_temporary_name_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, lost = os.rename, [True]

    def renaming(temporary: str, final: str) -> None:
        if lost.pop() if lost else False:
            os.unlink(temporary)
        rename(temporary, final)

    monkeypatch.setattr(os, "rename", renaming)
    listener = start(tmp_path / "net.sock")
    assert listener.still_ours()
    listener.connection.close()


def test_four_of_each_of_250_pods_may_connect_without_waiting(tmp_path: Path) -> None:
    listener, clients = start(tmp_path / "net.sock"), []
    try:
        for _ in range(4 * 250):
            client = socket.socket(socket.AF_UNIX)
            clients.append(client)
            client.setblocking(False)
            client.connect(str(tmp_path / "net.sock"))
    finally:
        for client in clients:
            client.close()
        listener.connection.close()
