from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.pods.kubelet_server import KubeletDouble, pod_json, pods, serving


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


def context_of(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


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
