"""Agents that are killed at any moment, or that share a path: it holds a live socket in the end."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.faults.faulty import PodClient, asking
from tests.support.lab import Lab, LabAgent
from tests.support.lab.confined import CONFINED
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("faults-restarts")]
KILLS = 6
MAX_SECONDS = 2.5
"""By then an agent of this machine serves, if nothing else runs."""


@pytest.fixture
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with Lab() as lab:
        lab.pod("web").container("app")
        yield lab


def inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None


@pytest.fixture
def web(lab: Lab) -> Iterator[PodClient]:
    with asking(lab.pods[0].containers[0]) as client:
        yield client


def answers(web: PodClient) -> bool:
    """Return whether a new connection is answered."""
    return web.ask("pod", fresh=True).get("said") == "web"


@contextmanager
def own_temporary_directory(lab: Lab) -> Iterator[Path]:
    """A temporary directory for the agents that are started within, and for no others."""
    directory = lab.directory / "tmp"
    directory.mkdir(mode=0o1777)
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(directory)
    try:
        yield directory
    finally:
        del os.environ["TMPDIR"]
        if before is not None:
            os.environ["TMPDIR"] = before


def begin(lab: Lab) -> subprocess.Popen[bytes]:
    """Start an agent and do not wait for it."""
    command = [sys.executable, "-m", "netutil.agent", f"--socket={lab.socket}"]
    command += [f"--admin-socket={lab.admin_socket}", "--metrics-address="]
    command += [f"--pod-source=file:{lab.directory}/pods.json", f"--cgroup-root=/{lab.name}"]
    if CONFINED:
        command = lab.confined(command)
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def handles_sigterm(pid: int) -> bool:
    """Return whether a process has come so far that a SIGTERM does not kill it (proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (caught,) = re.findall(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)
    return bool(int(caught, 16) >> signal.SIGTERM - 1 & 1)


def start_and_kill(lab: Lab, after_seconds: float) -> None:
    """Start an agent and kill it after so long, wherever it is then."""
    process = begin(lab)
    try:
        time.sleep(after_seconds)
    finally:
        process.kill()
        process.wait()


def plant_what_a_kill_between_bind_and_rename_leaves(lab: Lab) -> list[Path]:
    left = []
    for path in (lab.socket, lab.admin_socket):
        temporary = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(temporary))
            dead.listen()
        left.append(temporary)
    return left


def test_agents_killed_at_any_moment_leave_nothing_that_adds_up(lab: Lab, web: PodClient) -> None:
    lab.write_pod_list()
    with own_temporary_directory(lab) as temporary:
        for _ in range(KILLS):
            start_and_kill(lab, random.uniform(0.2, MAX_SECONDS))  # noqa: S311 - no secret
        left = plant_what_a_kill_between_bind_and_rename_leaves(lab)
        agent = lab.agent()
        assert answers(web)
        assert [path for path in left if path.exists()] == []
        assert os.listdir(lab.socket.parent) == ["net.sock"]
        assert os.listdir(lab.admin_socket.parent) == ["admin.sock"]
        assert os.listdir(temporary) == []
        assert agent.stop() == 0
        assert os.listdir(temporary) == []


def test_sockets_that_listen_and_plain_files_are_not_removed(lab: Lab) -> None:
    lab.agent()
    with socket.socket(socket.AF_UNIX) as listening:
        beside = lab.socket.with_name("net.sock.0123abcd")
        listening.bind(str(beside))
        listening.listen()
        plain = lab.socket.with_name("net.sock.89abcdef")
        plain.write_text("no socket")
        lab.agent()
        assert beside.is_socket()
        assert plain.read_text() == "no socket"


def test_an_agent_removes_the_directory_of_the_version_before(lab: Lab) -> None:
    with own_temporary_directory(lab) as temporary:
        (temporary / "netutil-agent-0123").mkdir(mode=0o700)
        lab.agent()
        # In a container the temporary directory is its own.
        assert len(os.listdir(temporary)) == (1 if CONFINED else 0)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_the_agent_that_is_left_of_two_has_the_path(
    lab: Lab, web: PodClient, ending: signal.Signals
) -> None:
    left = lab.agent()
    holder = lab.agent()
    end(holder, ending)
    eventually(lambda: answers(web))
    assert f"{lab.socket} was " in left.stderr_text()
    assert left.stop() == 0
    assert inode(lab.socket) is None


def test_an_agent_leaves_the_path_to_its_successor(lab: Lab) -> None:
    old, new = lab.agent(), lab.agent()
    taken = inode(lab.socket)
    eventually(lambda: f"another agent took over {lab.socket}" in old.stderr_text())
    time.sleep(7)  # another probe is due by then
    assert inode(lab.socket) == taken
    lab.socket.unlink()
    eventually(lambda: f"{lab.socket} was missing; rebound" in new.stderr_text())
    taken = inode(lab.socket)
    assert f"{lab.socket} was missing" not in old.stderr_text()
    end(old, signal.SIGKILL)
    assert inode(lab.socket) == taken


def end(agent: LabAgent, how: signal.Signals) -> None:
    if how is signal.SIGTERM:
        assert agent.stop() == 0
    else:
        agent.kill()


def test_two_agents_that_start_together_leave_one_live_socket(lab: Lab, web: PodClient) -> None:
    lab.write_pod_list()
    agents = [begin(lab) for _ in range(2)]
    try:
        for agent in agents:
            eventually(lambda: answers(web))
            eventually(partial(handles_sigterm, agent.pid))  # the answer may be of the other one
            agent.terminate()
            assert agent.wait(30) == 0
        assert inode(lab.socket) is None
    finally:
        for agent in agents:
            agent.kill()
            agent.wait()
