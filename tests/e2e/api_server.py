"""A real API server on loopback, with etcd behind it and no node: for what only it can say."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import trustme
import urllib3
import yaml
from kubernetes.client import ApiClient, Configuration

from tests.e2e.control_plane import variable
from tests.e2e.namespaces import NODE_ADDRESS

ADMIN, AGENT = "token-of-the-admin", "token-of-the-agent"
ACCOUNT = "system:serviceaccount:netutil:netutil-agent"
_SECONDS = 120


class Daemon:
    """A command that writes to a log; it can be started again, with the same words."""

    def __init__(self, log: Path, *command: str) -> None:
        self.log = log
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, to go on in its log."""
        with self.log.open("ab") as said:
            self._process = subprocess.Popen(self._command, stdout=said, stderr=said)

    def kill(self) -> None:
        """End it with SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End it with SIGTERM, and with SIGKILL after 20 s."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    @property
    def code(self) -> int | None:
        """Return its exit code, None while it runs."""
        return self._process.poll() if self._process is not None else None


@dataclass(frozen=True, slots=True)
class RealApiServer:
    """Its address, and the files that an agent would have of its service account.

    `certificate` is a PEM file with a client certificate of the account and its key, `etcd` the
    address of the database, and `process` the server itself.
    """

    url: str
    ca_file: Path
    token_file: Path
    certificate: Path
    etcd: str
    process: Daemon

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Within the block, the API server does not run: it was killed. Its database goes on.

        After the block it answers again, at the same address and with empty caches.
        """
        self.process.kill()
        try:
            yield
        finally:
            self.process.start()
            _wait(self)

    def call(
        self, method: str, path: str, body: object = None, kind: str = "application/json"
    ) -> dict[str, Any]:
        """Ask as the administrator."""
        status, content = self._ask(ADMIN, method, path, body, kind)
        if status >= HTTPStatus.BAD_REQUEST:
            raise OSError(f"{method} {path}: {status} {content[:300]!r}")
        found: dict[str, Any] = json.loads(content)
        return found

    def status(self, path: str, token: str) -> int:
        """Return the status of a GET with a token."""
        return self._ask(token, "GET", path)[0]

    def _ask(
        self, token: str, method: str, path: str, body: object = None, kind: str = ""
    ) -> tuple[int, bytes]:
        configuration = Configuration(
            host=self.url,
            api_key={"BearerToken": f"Bearer {token}"},
            ssl_ca_cert=str(self.ca_file),
            retries=False,
            proxy="",
        )
        with ApiClient(configuration) as api:
            request = api.param_serialize(
                method,
                path,
                body=body,
                header_params={"Content-Type": kind} if kind else {},
                auth_settings=["BearerToken"],
            )
            answer = api.call_api(*request, _request_timeout=10)
            return answer.status, answer.read()

    def apply(self, file: Path) -> None:
        """Create the ClusterRoles and bindings of a manifest."""
        for made in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            path = f"/apis/rbac.authorization.k8s.io/v1/{made['kind'].lower()}s"
            self.call("POST", path, made)


@contextlib.contextmanager
def real_api_server(directory: Path) -> Iterator[RealApiServer]:
    """Start both, and end both; everything they write is below the directory."""
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    ca, certificate, key = (directory / name for name in ("ca.crt", "tls.crt", "tls.key"))
    authority.cert_pem.write_to_path(str(ca))
    leaf.cert_chain_pems[0].write_to_path(str(certificate))
    leaf.private_key_pem.write_to_path(str(key))
    # Go rejects one without any name: trustme marks their list as critical.
    client = authority.issue_cert(
        "agent.netutil.test", common_name=ACCOUNT, organization_name="system:authenticated"
    )
    agent = directory / "agent.pem"
    client.private_key_and_cert_chain_pem.write_to_path(str(agent))
    tokens = directory / "tokens.csv"
    tokens.write_text(
        f'{ADMIN},admin,1,"system:masters"\n'
        f'{AGENT},{ACCOUNT},2,"system:serviceaccounts,system:authenticated"\n'
    )
    token = directory / "token"
    token.write_text(AGENT)
    of_etcd, peer, port = _free_ports(3)
    etcd = f"http://127.0.0.1:{of_etcd}"
    peers = f"http://127.0.0.1:{peer}"
    database = Daemon(
        directory / "etcd.log",
        os.environ[variable("etcd")],
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={etcd}",
        f"--advertise-client-urls={etcd}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
    )
    process = Daemon(
        directory / "api.log",
        os.environ[variable("kube-apiserver")],
        f"--etcd-servers={etcd}",
        "--bind-address=127.0.0.1",
        f"--advertise-address={NODE_ADDRESS}",  # a place has no route to guess it by
        f"--secure-port={port}",
        f"--cert-dir={directory}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        f"--token-auth-file={tokens}",
        f"--client-ca-file={ca}",
        "--authorization-mode=RBAC",
        "--disable-admission-plugins=ServiceAccount",
        "--service-account-issuer=https://netutil.example",
        f"--service-account-signing-key-file={key}",
        f"--service-account-key-file={key}",
        "--service-cluster-ip-range=10.96.0.0/16",
    )
    with contextlib.ExitStack() as stack:
        for one in (database, process):
            one.start()
            stack.callback(one.stop)
        server = RealApiServer(f"https://127.0.0.1:{port}", ca, token, agent, etcd, process)
        _wait(server)
        yield server


def _wait(server: RealApiServer) -> None:
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            server.call("GET", "/api/v1/namespaces/default")
            return
        except (OSError, urllib3.exceptions.HTTPError) as error:
            code = server.process.code
            if code is not None or time.monotonic() > deadline:
                said = server.process.log.read_text(errors="replace")[-2000:]
                raise TimeoutError(f"exit code {code}: {said}") from error
            time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [one.getsockname()[1] for one in sockets]
