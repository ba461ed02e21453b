"""Cgroups that a workload nests deeper than Python allows calls."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from netutil.agent.identity import cgroup_mounts
from netutil.agent.identity.cgroup_walk import processes_below

CALLS = 1000
"""Python's default limit. Other tests of the same process may have left a higher one."""


@pytest.fixture
def nested(tmp_path: Path) -> Iterator[str]:
    """Directories below one another, each with a cgroup.procs of process 1, past PATH_MAX."""
    limit = sys.getrecursionlimit()
    previous = os.open(".", os.O_RDONLY)
    try:
        os.chdir(tmp_path)
        for _ in range(3 * CALLS):
            os.mkdir("a")
            os.chdir("a")
            Path("cgroup.procs").write_text("1\n")
    finally:
        os.fchdir(previous)
        os.close(previous)
    sys.setrecursionlimit(CALLS)
    yield str(tmp_path)
    sys.setrecursionlimit(limit)
    # Python 3.11 removes trees by calls of itself, too.
    subprocess.run(["rm", "-r", str(tmp_path / "a")], check=True)


def test_processes_in_nested_cgroups_are_found(nested: str) -> None:
    found = list(processes_below(nested))
    assert len(found) > CALLS
    assert set(found) == {1}


def test_the_agents_place_is_found_beside_nested_cgroups(nested: str) -> None:
    assert cgroup_mounts._own_place(nested) is None
    own = Path(nested, "z", "own")
    own.mkdir(parents=True)
    Path(own, "cgroup.procs").write_text(f"1\n{os.getpid()}\n")
    assert cgroup_mounts._own_place(nested) == "/z/own"
