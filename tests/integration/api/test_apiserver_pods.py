"""An agent whose pods come from the API server, in its container as the manifests make it."""

from __future__ import annotations

import base64
import json
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.fakes.apiserver import NODE, ApiServer, serving_api
from tests.support.fakes.kubeconfigs import answer, kubeconfig, plugin, runs
from tests.support.lab import Lab
from tests.support.lab.confined import CONFINED

FIRST = "first-token"


@pytest.fixture
def server(lab: Lab, tmp_path: Path) -> Iterator[ApiServer]:
    """One that has the lab's pods, and takes either its token or a client certificate."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    leaf = authority.issue_cert("agent@node")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "agent.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    with serving_api(ApiServer(context)) as made:
        yield made


def user_of(how: str, directory: Path) -> dict[str, Any]:
    if how == "token":
        return {"token": FIRST}
    if how == "plugin":
        return plugin(directory, answer(token=FIRST))
    pem = base64.b64encode((directory / "agent.pem").read_bytes()).decode()
    return {"client-certificate-data": pem, "client-key-data": pem}


@pytest.mark.parametrize("how", ["token", "certificate", "plugin"])
def test_a_pod_is_answered_by_each_login(
    lab: Lab, server: ApiServer, tmp_path: Path, how: str
) -> None:
    container = lab.pod("web", namespace="shop").container("app")
    server.needs_token = how != "certificate"
    for made in lab.pod_list()["items"]:
        server.put(made)
    path = kubeconfig(tmp_path, server.url, user_of(how, tmp_path))
    lab.agent(f"--kubeconfig={path}", f"--node-name={NODE}", pod_source="apiserver")
    done = container.run([sys.executable, "-m", "netutil.client", "whoami", "-o", "json"])
    if how == "plugin" and CONFINED:  # its seccomp profile starts no program
        assert b"exec plugin of --kubeconfig failed" in done.stderr
        assert runs(tmp_path) == 0
        return
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["namespace"], found["name"]) == ("shop", "web")
