"""Callers with the host's root user, outside of pods, are admitted during any attack."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.security.stage import OLD_KERNEL, USER, Stage, stage
from tests.support.attacks.commands import ATTACKS
from tests.support.lab.observing import needs_lab

pytestmark = [pytest.mark.root, needs_lab, pytest.mark.xdist_group("hostile-host-root")]
CHECKS = 5


@pytest.fixture(scope="module")
def on() -> Iterator[Stage]:
    # Linux 6.16 and later name the pod of a process that has exited, and its pod pays then.
    with stage(command=[sys.executable, "-c", OLD_KERNEL]) as made:
        yield made


@contextmanager
def every_unidentified_place_taken(on: Stage) -> Iterator[None]:
    """Let a pod keep connections of processes that have exited, and wait until no more get in."""
    command = ATTACKS["exit-and-keep"]
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    attack = on.hostile.spawn(command, env=env, stdout=None, stderr=None)
    try:
        wait_until_no_place_is_free(on)
        yield
        wait_until_no_place_is_free(on)
        assert attack.poll() is None, "the attack ended early"
    finally:
        attack.kill()
        attack.wait()


def wait_until_no_place_is_free(on: Stage) -> None:
    deadline = time.monotonic() + 20
    while not another_user_is_closed(on):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def another_user_is_closed(on: Stage) -> bool:
    """Return whether a user of the host, who shares the places of unidentified peers, is closed."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        os.seteuid(USER)
        try:
            connection.connect(str(on.agent.socket))
        finally:
            os.seteuid(0)
        return not connection.recv(1)


def check(on: Stage) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "netutil.agent", "--check", f"--socket={on.agent.socket}"]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_a_pod_with_all_unidentified_places_blocks_no_check(on: Stage) -> None:
    with every_unidentified_place_taken(on):
        done = [check(on) for _ in range(CHECKS)]
    assert [(each.returncode, each.stderr) for each in done] == [(0, "")] * CHECKS
