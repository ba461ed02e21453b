"""The files of the driver's sockets."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from netutil.agent.csi.sockets import (
    MAX_ENTRIES,
    choose_registration_path,
    is_listening,
    move_into_place,
    registration_paths,
    temporary_path,
    unlink_if_ours,
)

NAME = "csi.netutil"


@pytest.fixture
def registry() -> Iterator[str]:
    """pytest's own temporary directories are longer than a socket's path may be."""
    with tempfile.TemporaryDirectory(prefix="nu-", dir="/tmp") as name:
        yield name


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    made: list[socket.socket] = []
    yield made
    for one in made:
        one.close()


def listen(path: str, listeners: list[socket.socket]) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listeners.append(listener)
    listener.bind(path)
    listener.listen(1)


def leave(path: str) -> None:
    """A socket without a listener, as a killed driver leaves it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)


def test_the_first_registration_has_the_drivers_name(registry: str) -> None:
    assert choose_registration_path(registry, NAME) == f"{registry}/{NAME}-reg.sock"


def test_a_dead_socket_is_removed_and_its_name_not_used(registry: str) -> None:
    dead = f"{registry}/{NAME}-reg.sock"
    leave(dead)
    chosen = choose_registration_path(registry, NAME)
    assert chosen != dead and not os.path.lexists(dead)
    leave(chosen)
    assert registration_paths(registry, NAME) == [chosen]


def test_a_living_socket_is_taken_over(registry: str, listeners: list[socket.socket]) -> None:
    living = f"{registry}/{NAME}-0123abcd-reg.sock"
    leave(f"{registry}/{NAME}-reg.sock")
    listen(living, listeners)
    assert choose_registration_path(registry, NAME) == living
    assert os.listdir(registry) == [os.path.basename(living)]


def test_a_file_that_is_no_socket_counts_as_dead(registry: str) -> None:
    Path(registry, f"{NAME}-reg.sock").touch()
    assert choose_registration_path(registry, NAME) != f"{registry}/{NAME}-reg.sock"
    assert os.listdir(registry) == []


@pytest.mark.parametrize(
    "other",
    [
        "csi.netutil2-reg.sock",
        "csi.netutil-0123ABCD-reg.sock",
        "csi.netutil-0123-reg.sock",
        "csi-netutil-reg.sock",
        ".csi.netutil-01234567",
        "csi.netutil-reg.sock.old",
        "x-csi.netutil-reg.sock",
    ],
)
def test_another_drivers_socket_is_left(registry: str, other: str) -> None:
    leave(f"{registry}/{other}")
    assert choose_registration_path(registry, NAME) == f"{registry}/{NAME}-reg.sock"
    assert os.listdir(registry) == [other]


def test_a_registry_is_read_up_to_a_limit(registry: str) -> None:
    for number in range(MAX_ENTRIES + 8):
        Path(registry, f"{NAME}-{number:08x}-reg.sock").touch()
    assert len(registration_paths(registry, NAME)) == MAX_ENTRIES


def test_a_missing_registry_is_an_error(registry: str) -> None:
    with pytest.raises(FileNotFoundError):
        choose_registration_path(f"{registry}/none", NAME)


def test_a_full_queue_counts_as_listening(registry: str, listeners: list[socket.socket]) -> None:
    path = f"{registry}/s"
    listener = socket.socket(socket.AF_UNIX)
    listeners.append(listener)
    listener.bind(path)
    listener.listen(0)
    for _ in range(2):
        waiting = socket.socket(socket.AF_UNIX)
        waiting.setblocking(False)
        listeners.append(waiting)
        waiting.connect_ex(path)
    assert is_listening(path)


def test_a_temporary_name_begins_with_a_dot_and_is_fresh(registry: str) -> None:
    names = {os.path.basename(temporary_path(registry, NAME)) for _ in range(50)}
    assert len(names) == 50 and all(name.startswith(f".{NAME}-") for name in names)


def test_a_socket_moves_over_another_one(registry: str, listeners: list[socket.socket]) -> None:
    path, temporary = f"{registry}/s", f"{registry}/.t"
    leave(path)
    listen(temporary, listeners)
    bound = move_into_place(temporary, path)
    assert bound.is_in_place() and is_listening(path) and os.listdir(registry) == ["s"]


def test_only_the_own_socket_is_removed(registry: str, listeners: list[socket.socket]) -> None:
    path = f"{registry}/{NAME}-reg.sock"
    listen(f"{registry}/.a", listeners)
    first = move_into_place(f"{registry}/.a", path)
    listen(f"{registry}/.b", listeners)
    second = move_into_place(f"{registry}/.b", path)
    assert not unlink_if_ours(first)
    assert second.is_in_place() and is_listening(path)
    assert unlink_if_ours(second)
    assert os.listdir(registry) == []
    assert not unlink_if_ours(second)
