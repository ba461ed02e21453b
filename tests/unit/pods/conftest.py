from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from netutil.agent.pods.directory import PodDirectory
from netutil.agent.pods.http.apiserver_login import ServiceAccount

from tests.support.fakes.apiserver import NODE, ApiServer, api_server
from tests.support.fakes.certificates import context_of
from tests.support.fakes.kubelet import KubeletDouble, pod_json, pods, serving
from tests.support.fakes.pushing_source import Clock, Pauses, PushingSource


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.crt"
    ca.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text("first-token\n")
    return str(path)


@pytest.fixture(scope="session")
def good_context(ca: trustme.CA) -> ssl.SSLContext:
    return context_of(ca.issue_cert("127.0.0.1"))


@pytest.fixture
def kubelet(good_context: ssl.SSLContext) -> Iterator[KubeletDouble]:
    with serving(KubeletDouble(pods(pod_json()), good_context)) as double:
        yield double


@pytest.fixture
def plain_kubelet() -> Iterator[KubeletDouble]:
    with serving(KubeletDouble(pods(pod_json()))) as double:
        yield double


@pytest.fixture
def api(good_context: ssl.SSLContext) -> Iterator[ApiServer]:
    with api_server(good_context) as made:
        yield made


@pytest.fixture
def api_settings(api: ApiServer, ca_file: str, token_file: str) -> dict[str, Any]:
    login = ServiceAccount(api.url, ca_file, token_file)
    return {"login": login, "node_name": NODE, "silence_seconds": 30.0}


@pytest.fixture
def pushing() -> PushingSource:
    return PushingSource()


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def pushed(
    pushing: PushingSource, pauses: Pauses, clock: Clock
) -> AsyncIterator[PodDirectory]:
    made = PodDirectory(pushing, 10, clock, pauses)
    yield made
    await made.close()
