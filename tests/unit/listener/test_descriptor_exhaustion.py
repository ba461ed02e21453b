"""An acceptor whose process really has no descriptors left: it pauses, serves on, does not spin."""

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

from netutil.agent.listener import acceptor

CLIENTS = 30


@contextmanager
def exhausted_process(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """An echo server at `net.sock` in a process with descriptors for a few connections only."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.listener.exhausted_process", str(directory)],
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


def connect(directory: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(str(directory / "net.sock"))
    return client


def is_answered(client: socket.socket) -> bool:
    """Return whether a connection is answered; False if it was closed. A hang is an error."""
    try:
        client.sendall(b"?")
        return client.recv(1) == b"?"
    except ConnectionError:
        return False


def wait_until_answered(directory: Path) -> None:
    """Retry: the server may release the descriptors of earlier clients a moment later."""
    end = time.monotonic() + 20
    while True:
        with connect(directory) as client:
            if is_answered(client):
                return
        assert time.monotonic() < end, "no client is answered"


def counts_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = process.communicate(timeout=30)
    counts: dict[str, Any] = json.loads(output)
    return counts


def test_clients_wait_in_the_queue_while_descriptors_are_out(
    tmp_path: Path,
) -> None:
    with exhausted_process(tmp_path) as process, ExitStack() as stack:
        for client in [stack.enter_context(connect(tmp_path)) for _ in range(CLIENTS)]:
            assert is_answered(client)
            client.close()
        wait_until_answered(tmp_path)
        counts = counts_of(process)
    assert counts["accepted"] > CLIENTS
    assert counts["accept_failures"] >= 1


def test_the_acceptor_pauses_while_descriptors_are_out(tmp_path: Path) -> None:
    with exhausted_process(tmp_path) as process, ExitStack() as stack:
        clients = [stack.enter_context(connect(tmp_path)) for _ in range(CLIENTS)]
        clients[-1].settimeout(3 * acceptor._PAUSE_SECONDS)
        try:
            assert clients[-1].recv(1) == b""
        except TimeoutError:
            pass  # it waits in the queue, as it should
        counts = counts_of(process)
    attempts = counts["elapsed_seconds"] / acceptor._PAUSE_SECONDS + 1
    assert 1 <= counts["accept_failures"] <= attempts
    assert counts["used_seconds"] < counts["elapsed_seconds"] / 2
