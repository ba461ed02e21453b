from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest

from tests.client.double import Double, serving


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
def agent(socket_path: str) -> Iterator[Double]:
    """A listening double."""
    double = Double(socket_path)
    with serving(double):
        yield double
