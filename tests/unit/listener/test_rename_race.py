"""Two agents at one path, the older one checking without a pause: the newer keeps the path."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.listener.harness import start
from tests.unit.listener.test_rename import removed, replaced, stale

ROUNDS, CHECKS = 400, 20


@pytest.mark.parametrize("fault", [removed, replaced, stale])
def test_a_newer_agent_keeps_its_path_at_any_check_of_an_older(
    fault: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "net.sock"
    command = [sys.executable, "-m", "tests.unit.listener.fast_checks", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as older:
        try:
            assert older.stdout is not None and older.stdout.readline() == "checking\n"
            for number in range(ROUNDS):
                with contextlib.suppress(OSError):  # the older one may be faster
                    fault(path)
                for _ in range(number % 40):
                    os.getppid()
                newer = start(path)
                with newer.connection:
                    # The older one puts back what it moved in the microsecond after its check.
                    kept, until = 0, time.monotonic() + 5
                    while kept < CHECKS:
                        kept = kept + 1 if newer.still_ours() else 0
                        assert time.monotonic() < until, number
            assert older.poll() is None
        finally:
            older.kill()
