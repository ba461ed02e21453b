"""One node for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.images import caller_image, pause_image
from tests.e2e.node import Node, running_node
from tests.e2e.settings import RESULTS


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """A node. Tests say which agent they want on it (`deploy`)."""
    kubelet = Path(os.environ["NETUTIL_KUBELET"])
    RESULTS.mkdir()
    RESULTS.chmod(0o777)  # pods of any user write there
    with running_node(kubelet, *images()) as running:
        yield running


def images() -> list[bytes | Path]:
    """The images of the pods. In the virtual machine containerd's disk has it already."""
    if os.environ.get("NETUTIL_IMAGES_THERE"):
        return []
    return [pause_image(), caller_image(), Path(os.environ["NETUTIL_AGENT_IMAGE"])]
