"""From a connection to a process that cannot be mistaken for another, on both kinds of kernel."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from netutil.agent.errors import QuotaExceeded, Reason, Unauthenticated
from netutil.agent.identity import pidfd
from netutil.agent.identity.pidfd import (
    PinPeer,
    choose_pin,
    peer_credentials,
    pin_by_peer_pidfd,
    pin_by_start_time,
    pin_pid,
)

from tests.support.lab.reused_pid import process_under
from tests.support.processes import open_descriptors, pinned, process

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for namespaces")
needs_peer_pidfd = pytest.mark.skipif(
    choose_pin()[0] is not pin_by_peer_pidfd, reason="needs SO_PEERPIDFD, Linux 6.5 or later"
)
both = pytest.mark.parametrize(
    "pin", [pytest.param(pin_by_peer_pidfd, marks=needs_peer_pidfd), pin_by_start_time]
)

CONNECT = "import socket; s = socket.socket(socket.AF_UNIX); s.connect({path!r})"


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "sock"))
        made.listen()
        yield made


def connect_and_die(listener: socket.socket) -> tuple[socket.socket, int]:
    """Return a connection whose peer has ended and was waited for, and the peer's pid."""
    script = CONNECT.format(path=listener.getsockname())
    client = subprocess.Popen([sys.executable, "-I", "-c", script])
    client.wait()
    connection, _ = listener.accept()
    return connection, client.pid


class Socket:
    """A connection on a kernel that says this of SO_PEERPIDFD."""

    def __init__(self, number: int) -> None:
        self.number = number

    def getsockopt(self, *_: object) -> bytes:
        raise OSError(self.number, os.strerror(self.number))


@both
def test_a_live_peer_is_pinned(pin: PinPeer, listener: socket.socket) -> None:
    with process(CONNECT.format(path=listener.getsockname())) as client:
        connection, _ = listener.accept()
        with connection:
            credentials = peer_credentials(connection)
            found = pin(connection, credentials.pid)
        assert credentials.pid == found.pid == client.pid
        assert (credentials.uid, credentials.gid) == (os.getuid(), os.getgid())
        assert found.alive()
        assert found.status().namespace_pids[0] == client.pid
        found.close()


@both
def test_a_connection_made_by_a_thread_is_its_processs(
    pin: PinPeer, listener: socket.socket
) -> None:
    connect = CONNECT.format(path=listener.getsockname())
    script = (
        f"import threading\ndef go():\n  global s\n  {connect}\nt = threading.Thread(target=go)"
    )
    with process(f"{script}; t.start(); t.join()") as client:
        connection, _ = listener.accept()
        with connection:
            found = pin(connection, peer_credentials(connection).pid)
        assert found.pid == client.pid
        found.close()


@both
def test_a_peer_that_died_is_refused(pin: PinPeer, listener: socket.socket) -> None:
    descriptors = open_descriptors()
    connection, pid = connect_and_die(listener)
    with connection, pytest.raises(Unauthenticated) as refused:
        pin(connection, pid)
    assert refused.value.reason is Reason.PEER_GONE
    assert open_descriptors() == descriptors


@both
def test_a_peer_that_died_and_was_not_waited_for_is_refused(
    pin: PinPeer, listener: socket.socket
) -> None:
    with process(CONNECT.format(path=listener.getsockname())) as client:
        connection, _ = listener.accept()
        client.kill()
        os.waitid(os.P_PID, client.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
        with connection, pytest.raises(Unauthenticated) as refused:
            pin(connection, client.pid)
    assert refused.value.reason is Reason.PEER_GONE


@needs_peer_pidfd
@pytest.mark.root
@needs_root
def test_another_process_with_the_peers_pid_is_not_taken_for_it(
    listener: socket.socket,
) -> None:
    connection, pid = connect_and_die(listener)
    with connection, process_under(pid), pytest.raises(Unauthenticated) as refused:
        pin_by_peer_pidfd(connection, pid)
    assert refused.value.reason is Reason.PEER_GONE


def test_a_process_younger_than_the_connection_is_not_the_peer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = time.clock_gettime(time.CLOCK_BOOTTIME)
    time.sleep(0.05)
    with process() as younger, socket.socket() as any_connection:
        monkeypatch.setattr(pidfd.time, "clock_gettime", lambda _: seen)  # type: ignore[attr-defined]
        with pytest.raises(Unauthenticated) as refused:
            pin_by_start_time(any_connection, younger.pid)
    assert refused.value.reason is Reason.PEER_GONE


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ESRCH, errno.ENODATA])
def test_a_peer_reported_as_exited_is_never_looked_up_by_pid(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[int] = []
    monkeypatch.setattr(os, "pidfd_open", looked_up.append)
    with pytest.raises(Unauthenticated) as refused:
        pin_by_peer_pidfd(Socket(number), os.getpid())  # type: ignore[arg-type]
    assert refused.value.reason is Reason.PEER_GONE
    assert looked_up == []


def test_another_failure_to_pin_says_what_failed() -> None:
    with pytest.raises(Unauthenticated) as refused:
        pin_by_peer_pidfd(Socket(errno.EPERM), os.getpid())  # type: ignore[arg-type]
    assert refused.value.reason is Reason.PEER_NOT_PINNED
    assert "Operation not permitted" in refused.value.message


def test_a_peer_that_no_descriptor_is_left_for_may_come_again() -> None:
    with pytest.raises(QuotaExceeded) as refused:
        pin_by_peer_pidfd(Socket(errno.EMFILE), os.getpid())  # type: ignore[arg-type]
    assert refused.value.reason is Reason.AGENT_OUT_OF_RESOURCES


def answering(number: int) -> Callable[..., tuple[Socket, socket.socket]]:
    class Both(Socket):
        def __enter__(self) -> Socket:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    return lambda *_: (Both(number), Both(number))  # type: ignore[return-value]


def test_this_kernel_is_asked_which_way_it_has() -> None:
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    expected = release >= (6, 5)
    assert (choose_pin()[0] is pin_by_peer_pidfd) is expected


def test_a_kernel_without_the_option_gets_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socketpair", answering(errno.ENOPROTOOPT))
    assert choose_pin() == (pin_by_start_time, "pidfd_open and start time")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ESRCH, errno.EMFILE])
def test_any_other_failure_is_no_reason_for_the_fallback(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socketpair", answering(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        choose_pin()


@pytest.mark.root
@needs_root
def test_a_peer_outside_the_pid_namespace_is_called_invisible(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "sock")
    script = (
        "import socket, sys\n"
        "from netutil.agent.errors import Unauthenticated\n"
        "from netutil.agent.identity.pidfd import peer_credentials\n"
        "listener = socket.socket(socket.AF_UNIX); listener.bind(sys.argv[1]); listener.listen()\n"
        "print(flush=True)\n"
        "connection, _ = listener.accept()\n"
        "try: print(peer_credentials(connection))\n"
        "except Unauthenticated as error: print(error.reason, '|', error.advice)\n"
    )
    agent = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", script, path],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert agent.stdout is not None
        agent.stdout.readline()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            output, _ = agent.communicate(timeout=30)
    finally:
        agent.kill()
        agent.wait()
    assert output.startswith("PEER_NOT_VISIBLE | Set hostPID: true")


def test_nothing_is_read_of_a_process_after_its_end() -> None:
    with process() as one, pinned(one.pid) as pin:
        assert pin.cgroup_text()
        one.kill()
        one.wait()
        assert not pin.alive()
        for read in (pin.cgroup_text, pin.status, pin.stat, pin.ensure_alive):
            with pytest.raises(Unauthenticated) as refused:
                read()
            assert refused.value.reason is Reason.PEER_GONE


def test_an_unused_pid_has_exited() -> None:
    with process() as one:
        pass
    with pytest.raises(Unauthenticated) as refused:
        pin_pid(one.pid)
    assert refused.value.reason is Reason.PEER_GONE


def test_a_process_was_started_between_before_and_after() -> None:
    tick = timedelta(seconds=1 / os.sysconf("SC_CLK_TCK"))
    before = datetime.now(UTC) - 2 * tick
    with process() as started:
        after = datetime.now(UTC) + 2 * tick
        with pinned(started.pid) as pin:
            assert before <= pin.started_at() <= after
        started.kill()


def test_a_duplicate_outlives_its_original_and_nothing_leaks() -> None:
    before = open_descriptors()
    with process() as one:
        for _ in range(1000):
            pin = pin_pid(one.pid)
            copy = pin.duplicate()
            pin.close()
            pin.close()
            assert copy.alive()
            copy.close()
        with pytest.raises(Unauthenticated):
            copy.duplicate()
    assert open_descriptors() == before
