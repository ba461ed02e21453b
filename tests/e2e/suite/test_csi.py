"""The CSI driver on a kubelet without an API server, which has no CSI volumes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.deploy import static_pod
from tests.e2e.node import Node, wait_for
from tests.support.manifests.documents import MANIFESTS, read

_NAME = "netutil-csi"


@pytest.fixture(scope="module")
def driver(node: Node) -> Iterator[None]:
    """The driver as a static pod."""
    pod = static_pod(read(MANIFESTS / "csi" / "daemonset.yaml"), _NAME)
    node.add(pod)
    yield
    node.remove(_NAME)


@pytest.mark.usefixtures("driver")
def test_a_driver_that_is_not_registered_says_why() -> None:
    wait_for(lambda: "did not register csi.netutil" in _log(), "the driver's log", 90)
    (line, *_) = [line for line in _log().splitlines() if "did not register" in line]
    assert "kube client" in line
    wait_for(lambda: _log().count("serves") > 1, "the next start of the driver", 90)


def _log() -> str:
    """The logs of all starts of the container that the kubelet keeps."""
    text = ""
    for path in Path("/var/log/pods").glob(f"netutil_{_NAME}-*/csi/*.log"):
        with contextlib.suppress(FileNotFoundError):  # the kubelet removes old logs
            text += path.read_text(encoding="utf-8")
    return text
