"""The settings of all tests, and the node of one."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.lab import Lab

# gRPC's C core writes a line for each GOAWAY with an error, which many tests cause: silent, as the
# agent and the command make it (grpc/doc/environment_variables.md).
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# A loaded machine takes half a second for what takes a millisecond: no example has a deadline.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")


_GROUP = re.compile(r"@[\w-]+$")
"""What pytest-xdist appends to the name of a test that has the mark `xdist_group`."""


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep the names of failed tests without groups, so that a run without workers finds them.

    With names that it does not find, `--last-failed` runs all tests.
    """
    cache = getattr(session.config, "cache", None)  # -p no:cacheprovider
    if cache is not None and not hasattr(session.config, "workerinput"):
        failed = cache.get("cache/lastfailed", {})
        cache.set("cache/lastfailed", {_GROUP.sub("", name): True for name in failed})


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A node without pods and agent."""
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with Lab() as made:
        yield made


@pytest.fixture(autouse=True)
def no_error_left() -> Iterator[None]:
    """No error is the thread's after a test: code that mypyc compiled can leave one behind."""
    yield
    assert sys.exc_info() == (None, None, None)
