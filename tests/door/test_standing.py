"""What stands at a path, as the keeper of a socket sees it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from netutil.agent.door.listener import Listener, listen
from netutil.agent.door.standing import Standing, standing
from netutil.agent.identity.pinning import choose_pin

PIN, _ = choose_pin()


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Listener]:
    listener = listen(str(tmp_path / "net.sock"), mode=0o666, directory_mode=0o755)
    yield listener
    listener.connection.close()


@pytest.fixture
def other(ours: Listener) -> Iterator[socket.socket]:
    """A socket of another listener at the same path, with a queue for one."""
    os.unlink(ours.path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(ours.path)
        listening.listen(0)
        yield listening


def what_stands(ours: Listener) -> Standing:
    with standing(ours, PIN) as (found, inode):
        assert (inode is None) is (found is Standing.MISSING)
        return found


def test_a_socket_is_ours_by_inode_and_mode(ours: Listener) -> None:
    assert what_stands(ours) is Standing.OURS
    os.chmod(ours.path, 0o600)
    assert what_stands(ours) is Standing.SPOILT


def test_a_socket_that_was_moved_away_is_gone(ours: Listener) -> None:
    os.rename(ours.path, f"{ours.path}.moved")
    assert what_stands(ours) is Standing.MISSING


@pytest.mark.usefixtures("other")
def test_a_listener_of_our_uid_and_pid_namespace_is_an_agent(ours: Listener) -> None:
    assert what_stands(ours) is Standing.AGENT


def test_a_socket_that_nobody_listens_at_is_dead(ours: Listener, other: socket.socket) -> None:
    other.close()
    assert what_stands(ours) is Standing.DEAD


@pytest.mark.usefixtures("other")
def test_a_full_queue_says_nothing_about_who_listens(ours: Listener) -> None:
    with ExitStack() as stack:
        for _ in range(8):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            waiting.connect_ex(ours.path)
        assert what_stands(ours) is Standing.BUSY


def test_a_link_to_an_agents_socket_is_no_socket(ours: Listener) -> None:
    os.rename(ours.path, f"{ours.path}.moved")
    os.symlink(f"{ours.path}.moved", ours.path)
    assert what_stands(ours) is Standing.NO_SOCKET


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another uid")
def test_a_listener_of_another_uid_is_no_agent(ours: Listener, tmp_path: Path) -> None:
    os.unlink(ours.path)
    tmp_path.chmod(0o777)
    for above in tmp_path.parents[:-2]:  # not /tmp and /
        above.chmod(above.stat().st_mode | 0o011)
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            listening = socket.socket(socket.AF_UNIX)
            listening.bind(ours.path)
            listening.listen()
            os.kill(os.getpid(), signal.SIGSTOP)  # it lives, and listens
        finally:
            os._exit(0)  # never back into the tests
    try:
        os.waitpid(child, os.WUNTRACED)
        assert what_stands(ours) is Standing.STRANGER
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_the_number_of_what_was_seen_is_nobody_elses_while_it_is_held(ours: Listener) -> None:
    ours.connection.close()
    Path(ours.path).unlink()
    for _ in range(50):
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(ours.path)
        dead.close()
        with standing(ours, PIN) as (_, seen):
            os.unlink(ours.path)
            with socket.socket(socket.AF_UNIX) as newer:
                newer.bind(ours.path)
                status = os.lstat(ours.path)
                assert (status.st_dev, status.st_ino) != seen
        os.unlink(ours.path)
