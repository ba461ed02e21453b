"""The marks that keep tests from each other: pytest-xdist reads them, and fails silently."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import ROOT

TESTS = """
import pytest

@pytest.mark.xdist_group("some-group")
@pytest.mark.parametrize("value", ["a@b", "c"])
def test_fails(value):
    assert value != "a@b"

def test_passes():
    pass
"""


@pytest.mark.xdist_group("groups")
@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="no workers: -n 0")
def test_the_tests_of_a_group_are_on_one_worker(request: pytest.FixtureRequest) -> None:
    # The scheduler of `--dist loadgroup` knows the group from the end of this name alone.
    assert request.node.nodeid.endswith("@groups")


def run(directory: Path, *arguments: str) -> str:
    """Return the last line of a run of tests that have this repository's settings."""
    command = [sys.executable, "-m", "pytest", "-q", *arguments, "tests"]
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.splitlines()[-1]


def test_a_failed_test_of_a_group_is_found_without_workers(tmp_path: Path) -> None:
    """`make test-again`, which would run all tests if it found none of the failed ones."""
    made = tmp_path / "tests"
    made.mkdir()
    shutil.copy(ROOT / "tests" / "conftest.py", made)
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    (made / "test_some.py").write_text(TESTS)
    assert run(tmp_path, "-n", "1").startswith("1 failed, 2 passed in ")
    assert run(tmp_path, "-n", "0", "--last-failed").startswith("1 failed in ")
