"""The pod that asks."""

from __future__ import annotations

import pytest

from tests.support.lab import Lab, LabContainer


@pytest.fixture
def container(lab: Lab) -> LabContainer:
    """The only container of a node whose agent runs."""
    found = lab.pod("web").container("app")
    lab.agent("--pod-resources=/nonexistent/kubelet.sock")
    return found
