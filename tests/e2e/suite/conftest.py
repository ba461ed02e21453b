"""One node for all tests, and one API server without a node."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from netutil.agent.pods.sources.listwatch import Expired, decode_event

from tests.e2e.api_server import RealApiServer, real_api_server
from tests.e2e.claims import RIGHTS, define, publish
from tests.e2e.claims_feed import Refusals, refused
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


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealApiServer]:
    """A server on which the agent's account has no right, but what other fixtures gave it."""
    with real_api_server(tmp_path_factory.mktemp("control-plane")) as made:
        yield made


@pytest.fixture(scope="session")
def claims_refusals(api_server: RealApiServer) -> Refusals:
    """Let the server have claims and a slice; what an agent got before it had the right."""
    define(api_server)
    publish(api_server)
    return asyncio.run(refused(api_server))


@pytest.fixture(scope="session")
def claims_server(api_server: RealApiServer, claims_refusals: Refusals) -> RealApiServer:
    """The same with the right that the component gives."""
    del claims_refusals  # they were asked for before
    api_server.apply(RIGHTS)
    return api_server


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the events of watches of this process by their type, and "EXPIRED"."""
    counted = Counter[str]()

    def counting(*given: Any) -> Any:
        try:
            event = decode_event(*given)
        except Expired:
            counted["EXPIRED"] += 1
            raise
        counted[event.type.name] += 1
        return event

    monkeypatch.setattr("netutil.agent.pods.sources.reflector.decode_event", counting)
    return counted


def images() -> list[bytes | Path]:
    """The images of the pods. In the virtual machine containerd's disk has it already."""
    if os.environ.get("NETUTIL_IMAGES_THERE"):
        return []
    return [pause_image(), caller_image(), Path(os.environ["NETUTIL_AGENT_IMAGE"])]
