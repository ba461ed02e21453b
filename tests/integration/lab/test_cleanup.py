"""Nothing is left of a lab, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from tests.support.lab import Lab, LabContainer
from tests.support.lab.observing import FAKE_AGENT, cgroup_paths, needs_lab, traces
from tests.support.lab.processes import wait_exited
from tests.support.repository import ROOT


@pytest.mark.root
@needs_lab
def test_nothing_is_left_after_an_exception() -> None:
    before = descriptors()
    with pytest.raises(ZeroDivisionError), Lab() as lab:  # noqa: PT012 - the lab is the point
        busy = lab.pod("web", driver="systemd").container("app")
        process = busy.spawn(["sh", "-c", "sleep 60 & sleep 60"])
        lab.agent(command=FAKE_AGENT)
        freeze(busy)
        raise ZeroDivisionError

    assert traces(lab.name) == []
    assert process.returncode == -signal.SIGKILL
    assert descriptors() <= before  # what other tests left open may be closed meanwhile
    assert not [c for c in psutil.Process().children() if "launch.py" in " ".join(c.cmdline())]


def descriptors() -> set[tuple[str, str]]:
    """This process's, each with what it names."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found


def freeze(container: LabContainer) -> None:
    for directory in container.cgroups:
        if (directory / "freezer.state").exists():
            (directory / "freezer.state").write_text("FROZEN")


OWNER = """
import signal, time
from tests.support.lab import Lab
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
with Lab() as lab:
    container = lab.pod("web").container("app")
    process = container.spawn(["sleep", "600"])
    print(lab.name, container.pid, process.host_pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def owner() -> Iterator[tuple[subprocess.Popen[str], str, list[int]]]:
    """A process with a lab of its own: its name and its processes."""
    repository = ROOT
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=repository,
    ) as process:
        assert process.stdout
        name, *pids = process.stdout.readline().split()
        yield process, name, [int(pid) for pid in pids]
        process.kill()


@pytest.mark.root
@needs_lab
def test_nothing_is_left_after_ctrl_c(
    owner: tuple[subprocess.Popen[str], str, list[int]],
) -> None:
    process, name, _ = owner

    process.send_signal(signal.SIGINT)
    process.wait(30)

    assert traces(name) == []


@pytest.mark.root
@needs_lab
def test_a_killed_lab_leaves_no_process_and_the_next_removes_all(
    owner: tuple[subprocess.Popen[str], str, list[int]],
) -> None:
    process, name, pids = owner

    process.kill()
    process.wait(30)
    for pid in pids:
        wait_exited(pid, timeout=10)
    with Lab():
        eventually_exited(name)


@pytest.mark.root
@needs_lab
def test_a_new_lab_leaves_a_live_one_alone(
    owner: tuple[subprocess.Popen[str], str, list[int]],
) -> None:
    _, name, pids = owner

    with Lab():
        pass

    assert all(any(name in path for path in cgroup_paths(pid)) for pid in pids)


def eventually_exited(name: str) -> None:
    """Another lab, of a test beside this one, may be at the same clearing."""
    deadline = time.monotonic() + 10
    while traces(name) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert traces(name) == []
