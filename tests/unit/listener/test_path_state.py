"""The state of a path, as the watch of a socket sees it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from netutil.agent.identity.pidfd import choose_pin
from netutil.agent.listener.ownership import PathState, path_state
from netutil.agent.listener.unix_socket import Listener, file_id

from tests.unit.listener.harness import start

PIN, _ = choose_pin()


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Listener]:
    listener = start(tmp_path / "net.sock")
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


def state_of(ours: Listener) -> PathState:
    with path_state(ours, PIN) as (state, found):
        assert (found is None) is (state is PathState.ABSENT)
        return state


def test_a_socket_is_ours_by_inode_and_mode(ours: Listener) -> None:
    assert state_of(ours) is PathState.OURS
    os.chmod(ours.path, 0o600)
    assert state_of(ours) is PathState.WRONG_MODE


def test_a_socket_that_was_renamed_is_absent(ours: Listener) -> None:
    os.rename(ours.path, f"{ours.path}.moved")
    assert state_of(ours) is PathState.ABSENT


@pytest.mark.usefixtures("other")
def test_a_listener_of_our_uid_and_pid_namespace_is_an_agent(ours: Listener) -> None:
    assert state_of(ours) is PathState.OTHER_AGENT


def test_a_socket_without_a_listener_is_stale(ours: Listener, other: socket.socket) -> None:
    other.close()
    assert state_of(ours) is PathState.STALE


@pytest.mark.usefixtures("other")
def test_a_full_backlog_hides_the_listening_process(ours: Listener) -> None:
    with ExitStack() as stack:
        for _ in range(8):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            waiting.connect_ex(ours.path)
        assert state_of(ours) is PathState.BACKLOG_FULL


def test_a_link_to_an_agents_socket_is_not_a_socket(ours: Listener) -> None:
    os.rename(ours.path, f"{ours.path}.moved")
    os.symlink(f"{ours.path}.moved", ours.path)
    assert state_of(ours) is PathState.NOT_A_SOCKET


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another uid")
def test_a_listener_of_another_uid_is_foreign(ours: Listener, tmp_path: Path) -> None:
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
            os.kill(os.getpid(), signal.SIGSTOP)  # it keeps listening
        finally:
            os._exit(0)  # never back into the tests
    try:
        os.waitpid(child, os.WUNTRACED)
        assert state_of(ours) is PathState.FOREIGN
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_the_checked_files_inode_is_not_reused_in_the_block(ours: Listener) -> None:
    ours.connection.close()
    Path(ours.path).unlink()
    for _ in range(50):
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(ours.path)
        stale.close()
        with path_state(ours, PIN) as (_, checked):
            os.unlink(ours.path)
            with socket.socket(socket.AF_UNIX) as newer:
                newer.bind(ours.path)
                assert file_id(ours.path) != checked
        os.unlink(ours.path)
