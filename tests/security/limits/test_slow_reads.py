"""A pod whose processes are stopped or cannot be read in time delays only itself."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.lab import Lab, LabAgent, LabContainer, LabProcess
from tests.support.lab.processes import inside_pid
from tests.support.repository import ROOT

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("hostile-reads")]
ENV = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "PYTHONPATH": str(ROOT), "WHO": "me"}
FILLED = [*(f"{k}={v}".encode() for k, v in ENV.items()), b"FILL=" + b"x" * 65536]
CALLERS = 2
MAX_THREADS = 8
"""Threads more than before: one that reads for each pod, and what gRPC adds of its own."""

ASK = """
import sys, time
from netutil.client import Client, NetUtilError
with Client(timeout_seconds=10) as client:
    while True:
        try:
            said = client.variable("WHO", pid=int(sys.argv[1]))
        except NetUtilError as error:
            said = error.reason
        print(said, flush=True)
"""


@pytest.fixture(scope="module")
def node() -> Iterator[tuple[LabAgent, LabContainer, LabContainer]]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with Lab() as lab:
        hostile = lab.pod("hostile").container("app")
        other = lab.pod("other").container("app", env=ENV)
        yield lab.agent(), hostile, other


@contextmanager
def running(
    container: LabContainer, argv: Sequence[str], env: list[bytes] = FILLED
) -> Iterator[LabProcess]:
    process = container.spawn([sys.executable, *argv], env=env, stderr=None)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.communicate(timeout=30)


def line(process: LabProcess) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


@contextmanager
def unreadable(container: LabContainer, how: str) -> Iterator[str]:
    """Within, there is such a process; yield its pid as its container sees it."""
    with running(container, ["-m", "tests.support.attacks.slow_environ", how]) as process:
        said = line(process)
        if said != "ready":
            pytest.skip(f"this kernel does not let a process be made unreadable so: {said}")
        yield str(inside_pid(process.host_pid))


@contextmanager
def asking(container: LabContainer, pid: str) -> Iterator[list[LabProcess]]:
    """Within, several clients ask for a process's environment without a pause."""
    asked: list[LabProcess] = []
    try:
        for _ in range(CALLERS):
            asked.append(container.spawn([sys.executable, "-c", ASK, pid], env=ENV, stderr=None))
        yield asked
    finally:
        for process in asked:
            process.kill()
            process.communicate(timeout=30)


def answers_of(other: LabContainer, calls: int) -> None:
    """The other pod gets its own environment, read in the same pool, each time."""
    with running(other, ["-c", ASK, "1"], [f"{k}={v}".encode() for k, v in ENV.items()]) as client:
        began = time.monotonic()
        for _ in range(calls):
            assert line(client) == "me"
        assert time.monotonic() - began < 60


@pytest.mark.parametrize("how", ["forking", "dropped"])
def test_an_environment_that_times_out_costs_only_its_own_pod(
    how: str, node: tuple[LabAgent, LabContainer, LabContainer]
) -> None:
    agent, hostile, other = node
    before = psutil.Process(agent.pid).num_threads()
    with unreadable(hostile, how) as pid, asking(hostile, pid) as callers:
        said = {line(caller) for caller in callers}
        # Never an empty environment, or another one: its own, or a refusal that says why.
        assert said <= {"me", "READ_TIMED_OUT", "TOO_MANY_READS_OF_POD", "PEER_GONE"}, said
        answers_of(other, 20)
        assert psutil.Process(agent.pid).num_threads() <= before + MAX_THREADS


def freeze(container: LabContainer, *, frozen: bool) -> None:
    """Freeze a container's cgroup, in whichever hierarchy knows how (v1 freezer, v2)."""
    for directory in container.cgroups:
        for name, words in (("freezer.state", ("THAWED", "FROZEN")), ("cgroup.freeze", "01")):
            if (directory / name).exists():
                (directory / name).write_text(words[frozen])
                wait_until_frozen(directory, frozen=frozen)
                return
    pytest.skip("no cgroup hierarchy of this machine can freeze")


def wait_until_frozen(directory: Path, *, frozen: bool) -> None:
    state, events = directory / "freezer.state", directory / "cgroup.events"
    deadline = time.monotonic() + 30
    while True:
        now = state.read_text() if state.exists() else events.read_text()
        if ("FROZEN" in now or "frozen 1" in now) == frozen:
            return
        assert time.monotonic() < deadline, now
        time.sleep(0.01)


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_a_stopped_peer_delays_no_other_peer(
    how: str, node: tuple[LabAgent, LabContainer, LabContainer]
) -> None:
    agent, hostile, other = node
    with asking(hostile, "1") as callers:
        for caller in callers:
            line(caller)
        if how == "frozen":
            freeze(hostile, frozen=True)
        else:
            for caller in callers:
                os.kill(caller.host_pid, signal.SIGSTOP)
        try:
            answers_of(other, 20)
            assert agent.running
        finally:
            if how == "frozen":
                freeze(hostile, frozen=False)
            else:
                for caller in callers:
                    os.kill(caller.host_pid, signal.SIGCONT)
        # It goes on where it stood.
        assert all(line(caller) for caller in callers)
