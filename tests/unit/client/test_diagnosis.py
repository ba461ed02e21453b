from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from netutil.client import NetUtilError, PermissionDenied, Unavailable, Unreachable
from netutil.client.rpc.diagnose import why_unreachable
from netutil.client.rpc.endpoint import OPERATOR, PUBLIC, Endpoint


def diagnosis(path: str, place: Endpoint = PUBLIC) -> NetUtilError:
    error = why_unreachable(path, place)
    assert error is not None
    return error


def test_a_listener_is_nothing_to_complain_about(socket_path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(socket_path)
        listener.listen()
        assert why_unreachable(socket_path, PUBLIC) is None


def test_a_missing_socket_may_still_come(socket_path: str) -> None:
    error = diagnosis(socket_path)
    assert type(error) is Unavailable and error.reason == "SOCKET_MISSING"
    assert error.advice == PUBLIC.if_missing and error.read == socket_path


def test_the_advice_is_that_of_the_place(socket_path: str) -> None:
    assert "--admin-socket" in diagnosis(socket_path, OPERATOR).advice


def test_a_missing_directory_will_not_come(directory: str) -> None:
    error = diagnosis(f"{directory}/none/net.sock")
    assert type(error) is Unreachable and error.reason == "SOCKET_DIRECTORY_MISSING"


def test_a_path_through_a_file_will_not_come(directory: str) -> None:
    Path(directory, "file").touch()
    assert diagnosis(f"{directory}/file/net.sock").reason == "SOCKET_DIRECTORY_MISSING"


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
@pytest.mark.parametrize(("place", "option"), [(PUBLIC, "--socket"), (OPERATOR, "--admin-socket")])
def test_a_file_or_directory_gets_advice_to_name_the_socket(
    socket_path: str, make: object, place: Endpoint, option: str
) -> None:
    make(Path(socket_path))  # type: ignore[operator]
    error = diagnosis(socket_path, place)
    assert type(error) is Unreachable and error.reason == "NOT_A_SOCKET"
    assert f"{option}, {place.variable}, by default {place.default_path}" in error.advice


def test_a_directory_with_the_socket_gets_advice_to_name_it(directory: str) -> None:
    left_behind(f"{directory}/net.sock")
    error = diagnosis(directory)
    assert str(error) == f"{directory} is a directory, not a socket [NOT_A_SOCKET]"
    assert error.advice == f"name the socket in it: {directory}/net.sock"


def test_a_path_that_is_too_long_gets_advice_for_a_shorter_path(directory: str) -> None:
    error = diagnosis(f"{directory}/{'x' * 108}")
    assert error.reason == "PATH_TOO_LONG" and "at a shorter path" in error.advice


def test_a_loop_of_links_is_carried_as_the_kernel_says_it(socket_path: str) -> None:
    Path(socket_path).symlink_to(socket_path)
    error = diagnosis(socket_path)
    assert error.reason == "SOCKET_BROKEN" and "symbolic links" in str(error)


def test_a_socket_without_a_listener_may_come_back(socket_path: str) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(socket_path)
    error = diagnosis(socket_path)
    assert type(error) is Unavailable and error.reason == "NO_LISTENER"
    assert (
        str(error)
        == f"socket {socket_path} exists, but nothing accepts connections on it [NO_LISTENER]"
    )
    for possible in ("is restarting", "not the socket file", "Kata or gVisor"):
        assert possible in error.advice


def left_behind(path: str) -> str:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)
    return path


def test_an_operator_gets_no_advice_about_mounts_of_pods(socket_path: str) -> None:
    error = diagnosis(left_behind(socket_path), OPERATOR)
    assert error.reason == "NO_LISTENER"
    assert error.advice == OPERATOR.if_refused
    assert "mount" not in error.advice


@pytest.mark.parametrize(("kind", "whose"), [("virtiofs", "Kata"), ("9p", "gVisor or Kata")])
def test_a_socket_shared_with_another_kernel_is_probably_its_own(
    socket_path: str, monkeypatch: pytest.MonkeyPatch, kind: str, whose: str
) -> None:
    monkeypatch.setattr("netutil.client.rpc.diagnose.read_filesystem_type", lambda path: kind)
    error = diagnosis(left_behind(socket_path))
    assert type(error) is Unavailable and error.reason == "SOCKET_OF_ANOTHER_KERNEL"
    assert f"on a {kind} mount, so this kernel is probably" in str(error)
    assert whose in str(error)
    assert "restarting" not in f"{error} {error.advice}"


def test_an_agent_with_a_full_queue_is_busy(socket_path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(socket_path)
        listener.listen(0)
        waiting.connect(socket_path)
        assert diagnosis(socket_path).reason == "AGENT_BUSY"


_PROBE = """
import os, sys
from netutil.client.rpc.endpoint import PUBLIC
from netutil.client.rpc.diagnose import why_unreachable
if os.getuid() == 0:
    os.setuid(65534)
print(type(error := why_unreachable(sys.argv[1], PUBLIC)).__name__, error.reason)
"""


@pytest.mark.parametrize("closed", ["socket", "directory"])
def test_a_socket_that_may_not_be_opened_is_denied(
    directory: str, socket_path: str, closed: str
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(socket_path)
        listener.listen()
        Path(socket_path if closed == "socket" else directory).chmod(0o000)
        probe = [sys.executable, "-c", _PROBE, socket_path]
        done = subprocess.run(probe, capture_output=True, text=True, check=True)
        Path(directory).chmod(0o755)
    assert done.stdout.split() == [PermissionDenied.__name__, "SOCKET_NOT_PERMITTED"]
