"""Nothing of a node stays on this machine, however its run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.namespaces import TOP
from tests.support.lab.cgroups import Cgroups, find_hierarchies
from tests.support.repository import ROOT

WATCHED = ("/run", "/var/lib", "/var/log", "/etc")


def seen() -> dict[str, object]:
    """Return the traces that a node could leave behind on this machine."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    return {
        "mounts": [line.split()[4] for line in mounts.splitlines()],
        "links": [line.split(":")[1] for line in links.splitlines()],
        **{path: sorted(os.listdir(path)) for path in WATCHED},
    }


def cgroups(name: str) -> list[Path]:
    tops = [hierarchy.directory / name for hierarchy in find_hierarchies()]
    return [Path(folder) for top in tops for folder, _, _ in os.walk(top)]


def processes(name: str) -> set[str]:
    found: set[str] = set()
    for directory in cgroups(name):
        found |= set((directory / "cgroup.procs").read_text().split())
    return found


@contextmanager
def running() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A node with a pod, and the name of its cgroup."""
    command = [sys.executable, "-m", "tests.e2e.place_program"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            words = process.stdout.readline().split()
            assert words[:1] == ["ready"], words
            assert processes(words[1]), "the pod's processes are in the node's cgroup"
            yield process, words[1]
        finally:
            process.kill()


def wait_until_removed(name: str) -> None:
    deadline = time.monotonic() + 30
    while processes(name):
        assert time.monotonic() < deadline, processes(name)
        time.sleep(0.05)


def test_a_run_that_ends_leaves_nothing() -> None:
    before = seen()
    with running() as (process, name):
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0
    assert cgroups(name) == []
    assert not (TOP / name).exists()
    assert seen() == before


def test_a_run_that_the_terminal_interrupts_leaves_nothing() -> None:
    before = seen()
    with running() as (process, name):
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(150) != 0
    assert cgroups(name) == []
    assert not (TOP / name).exists()
    assert seen() == before


def test_a_run_that_is_killed_leaves_what_the_next_one_removes() -> None:
    before = seen()
    with running() as (process, name):
        process.kill()
        process.wait()
        wait_until_removed(name)
    assert seen() == before
    assert cgroups(name) and (TOP / name).exists()
    with running() as (process, _):
        assert cgroups(name) == []
        assert not (TOP / name).exists()
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.fixture(autouse=True)
def nothing_stale() -> None:
    Cgroups("none").remove_stale()
