"""The watch of a socket rebinds it, or leaves the path to another agent."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from netutil.agent.errors import QuotaExceeded, Reason
from netutil.agent.identity.process import PinnedProcess
from netutil.agent.listener import ownership
from netutil.agent.listener.ownership import SocketHealth, SocketWatch
from netutil.agent.listener.unix_socket import Listener

from tests.support.waiting import until
from tests.unit.listener.fast_checks import Holder
from tests.unit.listener.harness import start, watch_of


class Watched:
    """A listener at `net.sock` whose path is watched."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holder = Holder(start(path))
        self.watch, self.health = watch_of(self.holder)

    @property
    def listener(self) -> Listener:
        return self.holder.listener

    def is_bound(self) -> bool:
        return self.listener.still_ours()

    def check(self, times: int = 1) -> None:
        for _ in range(times):
            self.watch.check()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path / "net.sock")
    yield watched
    watched.listener.connection.close()


@pytest.fixture
def newer(watched: Watched) -> Iterator[Listener]:
    """Another agent that took over the path, as the watch has noticed."""
    listener = start(watched.path)
    watched.check()
    yield listener
    listener.connection.close()


def test_a_socket_in_its_place_is_left(watched: Watched) -> None:
    bound = watched.listener
    watched.check(10)
    assert watched.listener is bound
    assert watched.health == SocketHealth()


def test_a_missing_socket_is_rebound_at_once(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.path.unlink()
    watched.check()
    assert watched.listener.still_ours()
    assert watched.health.rebinds == 1
    assert f"listener: {watched.path} was missing; rebound" in caplog.text


def test_the_mode_of_the_socket_is_restored(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.path.chmod(0o600)
    watched.check()
    assert watched.path.stat().st_mode & 0o777 == 0o666
    assert f"{watched.path} was changed to another mode; rebound" in caplog.text


def test_the_socket_of_a_newer_agent_is_left(watched: Watched, newer: Listener) -> None:
    watched.check(20)
    assert newer.still_ours()
    assert watched.health.rebinds == 0


def test_another_agents_socket_is_probed_every_few_checks_only(
    watched: Watched, newer: Listener
) -> None:
    def connections() -> int:
        count = 0
        while True:
            try:
                newer.connection.accept()[0].close()
            except BlockingIOError:
                return count
            count += 1

    assert connections() == 1
    watched.check(ownership._CHECKS_BETWEEN_PROBES)
    assert connections() == 0
    watched.check()
    assert connections() == 1


def test_a_missing_newer_socket_is_rebound_after_its_grace(
    watched: Watched, newer: Listener
) -> None:
    newer.unlink_if_ours()
    watched.check(ownership._GRACE_CHECKS)
    assert not watched.path.exists()
    watched.check()
    assert watched.listener.still_ours()


def test_a_newer_agent_may_rebind_within_the_grace_period(
    watched: Watched, newer: Listener
) -> None:
    newer.unlink_if_ours()
    watched.check(ownership._GRACE_CHECKS)
    rebound = newer.rebind(replacing=None)
    watched.check(20)
    assert rebound.still_ours()
    rebound.connection.close()


def test_a_killed_agents_socket_is_replaced_at_the_next_probe(
    watched: Watched, newer: Listener
) -> None:
    newer.connection.close()
    watched.check(ownership._CHECKS_BETWEEN_PROBES + 1)
    assert watched.listener.still_ours()


def test_a_full_backlog_is_replaced_only_when_it_stays_full(watched: Watched) -> None:
    watched.path.unlink()
    with ExitStack() as stack:
        other = stack.enter_context(socket.socket(socket.AF_UNIX))
        other.bind(str(watched.path))
        other.listen(0)
        for _ in range(2):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            waiting.connect_ex(str(watched.path))
        watched.check(ownership._MAX_FULL_BACKLOG_CHECKS)
        assert watched.health.rebinds == 0
        watched.check()
    assert watched.listener.still_ours()
    assert watched.health.rebinds == 1


def test_a_failure_is_logged_once_in_a_minute(
    watched: Watched, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Listener:
        raise OSError(errno.ENOSPC, "no space", str(watched.path))

    monkeypatch.setattr(Listener, "rebind", fail)
    watched.path.unlink()
    watched.check(60)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"listener: {watched.path} is missing and cannot be rebound: no space;"
        " open connections are kept"
    )
    watched.check()
    assert len(caplog.records) == 2
    assert watched.health.problem() == ""


def test_a_deleted_directory_is_a_problem_until_it_is_back(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Listener:
        raise OSError(errno.ENOENT, "No such file or directory", str(watched.path))

    moved = watched.path.with_name("moved")
    with monkeypatch.context() as patched:
        patched.setattr(Listener, "rebind", fail)
        watched.path.rename(moved)
        watched.check(ownership._MOUNT_LOST_CHECKS - 1)
        assert watched.health.problem() == ""
        watched.check()
        assert watched.health.problem() == (
            f"The directory of {watched.path.parent / 'net.sock'} was deleted on the host:"
            " the agent's container must be restarted."
        )
    moved.rename(watched.path)
    watched.check()
    assert watched.health.problem() == ""


def test_a_rebind_that_finds_a_newer_socket_is_no_failure(
    watched: Watched, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(*_: object, **__: object) -> Listener:
        raise FileExistsError(errno.EEXIST, "File exists", str(watched.path))

    monkeypatch.setattr(Listener, "rebind", taken)
    watched.path.unlink()
    watched.check(100)
    assert caplog.records == []
    assert watched.health.rebinds == 0


@contextmanager
def running(watch: SocketWatch) -> Iterator[None]:
    task = asyncio.get_running_loop().create_task(watch.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()


async def test_the_watch_runs_on_when_a_path_cannot_be_checked(
    watched: Watched, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_resources(connection: socket.socket, pid: int) -> PinnedProcess:
        del connection, pid
        raise QuotaExceeded(Reason.AGENT_OUT_OF_RESOURCES, "The agent has no descriptors left.")

    monkeypatch.setattr(ownership, "CHECK_SECONDS", 0.01)
    watch = SocketWatch(watched.holder, no_resources, watched.health)
    other = start(watched.path)
    with caplog.at_level(logging.WARNING), running(watch):
        await until(lambda: f"listener: cannot stat {watched.path}: The agent" in caplog.text)
        other.unlink_if_ours()
        await until(watched.is_bound)
    other.connection.close()


async def test_an_unreadable_path_is_logged_and_the_watch_runs_on(
    watched: Watched, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "CHECK_SECONDS", 0.01)
    directory, target = watched.path.parent, watched.path.parent.with_name("loop")
    directory.rename(target)
    directory.symlink_to(directory)
    with running(watched.watch):
        await until(lambda: f"{watched.path} is unreadable" in caplog.text)
        os.unlink(directory)
        target.rename(directory)
        watched.path.unlink()
        await until(watched.is_bound)
