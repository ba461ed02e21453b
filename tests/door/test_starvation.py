"""A door whose process has no descriptors left, really: it pauses, serves on, and does not spin."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from netutil.agent.door import accepting as room

CLIENTS = 30


@contextmanager
def starved(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A door at `net.sock` in a process that can hold a few connections only."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.door.starved", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def dial(folder: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(str(folder / "net.sock"))
    return client


def served(client: socket.socket) -> bool:
    """Whether a connection is answered; False if the door ended it. It hangs in no case."""
    try:
        client.sendall(b"?")
        return client.recv(1) == b"?"
    except ConnectionError:
        return False


def wait_until_served(folder: Path) -> None:
    """Connect again and again: what earlier clients held may be let go a moment later."""
    end = time.monotonic() + 20
    while True:
        with dial(folder) as client:
            if served(client):
                return
        assert time.monotonic() < end, "nobody is served any more"


def counts_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = process.communicate(timeout=30)
    counts: dict[str, Any] = json.loads(output)
    return counts


def test_out_of_descriptors_everyone_is_served_or_ended_and_then_all_is_as_before(
    tmp_path: Path,
) -> None:
    with starved(tmp_path) as process, ExitStack() as stack:
        for client in [stack.enter_context(dial(tmp_path)) for _ in range(CLIENTS)]:
            served(client)
            client.close()
        wait_until_served(tmp_path)
        counts = counts_of(process)
    assert counts["accepted"] > CLIENTS
    assert counts["accept_failures"] >= 1


def test_out_of_descriptors_the_door_does_not_spin(tmp_path: Path) -> None:
    with starved(tmp_path) as process, ExitStack() as stack:
        clients = [stack.enter_context(dial(tmp_path)) for _ in range(CLIENTS)]
        clients[-1].settimeout(3 * room._PAUSE_SECONDS)
        try:
            assert clients[-1].recv(1) == b""
        except TimeoutError:
            pass  # it waits in the queue, as it should
        counts = counts_of(process)
    tries = counts["elapsed_seconds"] / room._PAUSE_SECONDS + 1
    assert 1 <= counts["accept_failures"] <= tries
    assert counts["used_seconds"] < counts["elapsed_seconds"] / 2
