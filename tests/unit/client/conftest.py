from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest
from netutil.client.cli.main import main

from tests.support.fakes.agent import FakeAgent, serving
from tests.unit.client.command import Ended, Netutil


@pytest.fixture
def directory() -> Iterator[str]:
    """A directory with a path that is short enough for a Unix socket."""
    path = tempfile.mkdtemp(prefix="netutil-", dir="/tmp")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def socket_path(directory: str) -> str:
    return f"{directory}/net.sock"


@pytest.fixture
def agent(socket_path: str) -> Iterator[FakeAgent]:
    """A listening fake agent."""
    fake = FakeAgent(socket_path)
    with serving(fake):
        yield fake


@pytest.fixture
def netutil(
    agent: FakeAgent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Netutil:
    """Runs the command against the fake agent."""
    monkeypatch.setenv("NETUTIL_SOCKET", agent.path)
    monkeypatch.setenv("NETUTIL_ADMIN_SOCKET", agent.path)

    def run(*arguments: str) -> Ended:
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run
