"""Clients call a server that ends meanwhile."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.interop.programs import Program
from tests.interop.serving import serving

UNAVAILABLE = 14
ENOUGH_CALLS = 50


@contextmanager
def started(client: Program, path: Path, case: str, line: str) -> Iterator[subprocess.Popen[str]]:
    """A client that has printed that it calls."""
    with client.start(client.command(str(path), case)) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == line
            yield process
        finally:
            process.kill()


def result(client: Program, process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the output of a client once its standard input ends."""
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    return client.result(output)


def has_enough(calls: int) -> bool:
    return calls >= ENOUGH_CALLS


def test_no_call_fails_while_one_server_after_another_takes_over(
    client: Program, tmp_path: Path
) -> None:
    path = tmp_path / "net.sock"
    with ExitStack() as stack:
        server = stack.enter_context(serving(path))
        calling = stack.enter_context(started(client, path, "load", "calling\n"))
        for _ in range(3):
            server.wait_for("CALLS", has_enough)
            previous, server = server, stack.enter_context(serving(path))
            previous.terminate()
        server.wait_for("CALLS", has_enough)
        found = result(client, calling)
    assert list(found["codes"]) == ["0"], found["errors"]


def test_no_waiting_call_fails_while_there_is_no_server(client: Program, tmp_path: Path) -> None:
    path = tmp_path / "net.sock"
    with ExitStack() as stack:
        server = stack.enter_context(serving(path))
        calling = stack.enter_context(started(client, path, "load_waiting", "calling\n"))
        server.wait_for("CALLS", has_enough)
        server.terminate()
        assert not path.exists()
        server = stack.enter_context(serving(path))
        server.wait_for("CALLS", has_enough)
        found = result(client, calling)
    assert list(found["codes"]) == ["0"], found["errors"]


def test_a_watch_that_outlives_the_grace_ends_as_unavailable(
    client: Program, tmp_path: Path
) -> None:
    path = tmp_path / "net.sock"
    with serving(path, grace=0.2) as server, started(client, path, "ended", "watching\n") as one:
        server.terminate()
        assert result(client, one) == {"code": UNAVAILABLE}
