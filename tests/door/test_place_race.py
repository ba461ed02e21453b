"""Two agents at one path, the older one's keeper looking all the time: the newer keeps the path."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.door.test_place import dead, gone, replaced, start

ROUNDS, LOOKS = 400, 20


@pytest.mark.parametrize("fault", [gone, replaced, dead])
def test_a_newer_agent_keeps_its_path_at_whatever_moment_an_older_one_looks(
    fault: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "net.sock"
    command = [sys.executable, "-m", "tests.door.looking", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as older:
        try:
            assert older.stdout is not None and older.stdout.readline() == "looking\n"
            for number in range(ROUNDS):
                with contextlib.suppress(OSError):  # the older one is quick
                    fault(path)
                for _ in range(number % 40):
                    os.getppid()
                newer = start(path)
                with newer.connection:
                    # What the older one took within the microsecond after its look it puts back.
                    kept, until = 0, time.monotonic() + 5
                    while kept < LOOKS:
                        kept = kept + 1 if newer.still_ours() else 0
                        assert time.monotonic() < until, number
            assert older.poll() is None
        finally:
            older.kill()
