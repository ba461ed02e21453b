"""A connection is its connector's, also after a reuse of the pid or a change of the holder."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from netutil.agent.identity.pidfd import choose_pin, pin_by_peer_pidfd

from tests.security.stage import OLD_KERNEL, Stage, stage, victim_pod
from tests.support.lab import LabContainer
from tests.support.lab.observing import needs_lab
from tests.support.lab.reused_pid import process_under
from tests.support.nodes.client_driver import (
    EVERYTHING,
    SECRET,
    ConnectedClient,
    asked,
    assert_nothing_leaked,
)

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("hostile-identity-connections")]
EXITED = ("UNAUTHENTICATED", "PEER_GONE")
NOT_FOUND = ("NOT_FOUND", "PID_NOT_FOUND")

CONNECT_IN_A_CHILD = """
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # its number is given back at once
there, here = socket.socketpair()
if os.fork() == 0:
    mine = socket.socket(socket.AF_UNIX)
    mine.connect(task["socket"])
    socket.send_fds(there, [b"."], [mine.fileno()])
    signal.pause()
task["fd"] = socket.recv_fds(here, 1, 1)[1][0]
"""
HAND_ON = """
at = socket.socket(socket.AF_UNIX)
at.bind({path!r})
at.listen()
other, _ = at.accept()
socket.send_fds(other, [b"."], [agent.fileno()])
if {ends}:
    os._exit(0)
other.recv(1)
"""
TAKE_OVER = """
taken = socket.socket(socket.AF_UNIX)
while taken.connect_ex({path!r}):
    time.sleep(0.01)
task["fd"] = socket.recv_fds(taken, 1, 1)[1][0]
"""


@pytest.fixture(scope="module")
def on() -> Iterator[Stage]:
    with stage() as made:
        yield made


@pytest.fixture(scope="module")
def on_an_old_kernel() -> Iterator[Stage]:
    with stage(command=[sys.executable, "-c", OLD_KERNEL]) as made:
        assert "pinned by pidfd_open and start time" in made.agent.stderr_text()
        yield made


@contextmanager
def victim_under(pid: int, victim: LabContainer) -> Iterator[None]:
    """Let a process of the victim's take a pid that was given back."""
    with process_under(pid, {"PASSWORD": SECRET}):
        for directory in victim.cgroups:
            (directory / "cgroup.procs").write_text(str(pid))
        yield


def child_of(process: int) -> int:
    with open(f"/proc/{process}/task/{process}/children", encoding="ascii") as children:
        (child,) = children.read().split()
    return int(child)


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.01)


@pytest.mark.skipif(
    choose_pin()[0] is not pin_by_peer_pidfd, reason="needs SO_PEERPIDFD, Linux 6.5 or later"
)
def test_a_pid_reused_between_connect_and_read_gives_nothing(on: Stage) -> None:
    """The agent is kept from looking until the connector has ended and a victim has its pid."""
    os.kill(on.agent.pid, signal.SIGSTOP)
    try:
        attacker = ConnectedClient.connected(on.hostile, *EVERYTHING, before=CONNECT_IN_A_CHILD)
        pid = child_of(attacker.process.host_pid)
        end(pid)
        with victim_under(pid, on.victim):
            os.kill(on.agent.pid, signal.SIGCONT)
            got = attacker.ask()
    finally:
        os.kill(on.agent.pid, signal.SIGCONT)
    assert got.refusals() == {EXITED}
    assert_nothing_leaked(got)


@pytest.mark.parametrize("kernel", ["of today", "before 6.5"])
def test_a_pid_reused_after_the_connectors_end_gives_nothing(
    kernel: str, request: pytest.FixtureRequest
) -> None:
    on: Stage = request.getfixturevalue("on" if kernel == "of today" else "on_an_old_kernel")
    attacker = ConnectedClient.connected(on.hostile, *EVERYTHING, before=CONNECT_IN_A_CHILD)
    on.await_connections(1)
    pid = child_of(attacker.process.host_pid)
    end(pid)
    with victim_under(pid, on.victim):
        got = attacker.ask()
    env, cpu, *_, everything = got.calls
    assert env.refusal == EXITED
    assert cpu.code == "OK"
    assert "affinity" not in cpu.answer
    assert everything.answer["pod"]["name"] == "hostile"
    assert_nothing_leaked(got)


@pytest.mark.parametrize("ends", [False, True], ids=["that lives", "that ended"])
def test_a_passed_connection_answers_for_its_connector_alone(ends: bool, on: Stage) -> None:
    """Its holder is in another pod; a pid means what it means to the connector."""
    path = str(on.lab.directory / f"handed-{ends}")
    between = HAND_ON.format(path=path, ends=ends)
    giver = ConnectedClient.connected(on.hostile, ("GetPod", {}), between=between)
    giver.go()
    theirs = ("GetEnv", {"pid": str(on.victim.pid)})
    got = asked(on.victim, *EVERYTHING, theirs, before=TAKE_OVER.format(path=path))
    env, *_, pod, everything, by_pid = got.calls
    assert env.refusal == (EXITED if ends else ("OK", ""))
    assert by_pid.refusal == (EXITED if ends else NOT_FOUND)
    assert pod.answer["name"] == everything.answer["pod"]["name"] == "hostile"
    if not ends:
        assert env.answer["envs"] == {"WHO": "hostile"}
    assert_nothing_leaked(got)
    giver.process.kill()
    giver.process.communicate()


def test_a_connection_of_a_deleted_pod_is_not_its_successors(on: Stage) -> None:
    """A static pod has its UID again in its next life, and perhaps other secrets."""
    first = on.lab.pod("static", static=True)
    container = first.container("app")
    on.lab.write_pod_list()
    path = str(on.lab.directory / "handed-static")
    giver = ConnectedClient.connected(
        container, ("GetPod", {}), between=HAND_ON.format(path=path, ends=False)
    )
    on.await_connections(1)
    giver.go()
    holder = ConnectedClient.connected(on.hostile, *EVERYTHING, before=TAKE_OVER.format(path=path))
    first.delete()
    victim_pod(on.lab, "static", static=True, uid=first.uid).container(
        "app", env={"PASSWORD": SECRET}
    )
    on.lab.write_pod_list()
    got = holder.ask()
    assert got.refusals() == {EXITED}
    assert_nothing_leaked(got)
    giver.process.communicate()
