"""The node that the tests of one module share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.nodes.agent_node import Node, agent_node


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A running agent and two pods."""
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    with agent_node() as made:
        yield made
