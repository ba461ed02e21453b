"""The marks that keep tests from each other: pytest-xdist reads them, and fails silently."""

from __future__ import annotations

import os

import pytest


@pytest.mark.xdist_group("groups")
@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="no workers: -n 0")
def test_the_tests_of_a_group_are_on_one_worker(request: pytest.FixtureRequest) -> None:
    # The scheduler of `--dist loadgroup` knows the group from the end of this name alone.
    assert request.node.nodeid.endswith("@groups")
