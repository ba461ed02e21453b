from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The place of the kubelet's socket."""
    return tmp_path / "pods-api.sock"
