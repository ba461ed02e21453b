"""Token, client certificate and CA are rotated under a running agent, well and badly.

As the kubelet does it in a projected volume: a new directory, and one rename of the link `..data`.
"""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from tests.faults.faulty import PodClient, asking, probe
from tests.support.fakes import kubelet
from tests.support.fakes.certificates import context_of
from tests.support.fakes.kubelet import Handler, KubeletDouble, serving
from tests.support.lab import Lab, LabAgent
from tests.support.nodes.measures import metric
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("faults-rotation")]
FILES = {
    "token": "--kubelet-token",
    "ca.crt": "--kubelet-ca",
    "tls.crt": "--kubelet-client-cert",
    "tls.key": "--kubelet-client-key",
}
FAILURES, FETCHES = "netutil_pod_list_failures_total", "netutil_pod_list_fetches_total"


class Projected:
    """A projected volume."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._written = 0

    def write(self, files: dict[str, bytes]) -> None:
        """Replace all files at one moment."""
        self._written += 1
        name = f"..{self._written}"
        (self.directory / name).mkdir(parents=True)
        for file, content in files.items():
            (self.directory / name / file).write_bytes(content)
            if not (self.directory / file).is_symlink():
                (self.directory / file).symlink_to(f"..data/{file}")
        (self.directory / "..tmp").symlink_to(name)
        os.rename(self.directory / "..tmp", self.directory / "..data")


class Guard:
    """A kubelet's access control: the tokens that it accepts, and the certificates that it saw."""

    def __init__(self, answer: kubelet.Answer) -> None:
        self._answer = answer
        self.tokens = {"first"}
        self.came: list[tuple[str, int]] = []

    def __call__(self, handler: Handler) -> None:
        token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            handler.send(b"Unauthorized", 401)
            return
        connection = handler.connection
        assert isinstance(connection, ssl.SSLSocket)
        certificate = connection.getpeercert() or {}
        self.came.append((token, int(str(certificate["serialNumber"]), 16)))
        self._answer(handler)


@dataclass
class Node:
    agent: LabAgent
    web: PodClient
    volume: Projected
    guard: Guard
    double: KubeletDouble
    servers: list[trustme.CA]
    clients: list[trustme.CA]
    files: dict[str, bytes]

    def rotate(self, **changed: bytes) -> None:
        self.files |= {name.replace("_", "."): content for name, content in changed.items()}
        self.volume.write(self.files)

    def asked_until(self, done: Callable[[], object]) -> None:
        """The pod asks on and on until it is done, and gets each answer."""

        def asked() -> bool:
            for what in ("pod", "cpu"):
                answer = self.web.ask(what)
                assert "said" in answer, answer
            return bool(done())

        eventually(asked)


def serving_context(server: trustme.CA, *clients: trustme.CA) -> ssl.SSLContext:
    """A kubelet's context: its certificate is of one CA, those of its clients of others."""
    context = context_of(server.issue_cert("127.0.0.1"))
    context.verify_mode = ssl.CERT_REQUIRED
    for client in clients:
        client.configure_trust(context)
    return context


def pair(client: trustme.CA) -> tuple[dict[str, bytes], int]:
    """A client certificate with its key, and its serial number."""
    leaf = client.issue_cert("agent@node")
    pem = leaf.cert_chain_pems[0].bytes()
    serial = x509.load_pem_x509_certificate(pem).serial_number
    return {"tls_crt": pem, "tls_key": leaf.private_key_pem.bytes()}, serial


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    server, client = trustme.CA(), trustme.CA()
    files, _ = pair(client)
    volume = Projected(tmp_path_factory.mktemp("rotation") / "volume")
    with Lab() as lab:
        web = lab.pod("web").container("app")
        guard = Guard(kubelet.pods(*lab.pod_list()["items"]))
        with serving(KubeletDouble(guard, serving_context(server, client))) as double:
            content = {"token": b"first", "ca.crt": server.cert_pem.bytes()}
            content |= {name.replace("_", "."): pem for name, pem in files.items()}
            volume.write(content)
            flags = [f"{flag}={volume.directory / name}" for name, flag in FILES.items()]
            agent = lab.agent(
                f"--kubelet-url={double.url}", "--pod-refresh=0.2", *flags, pod_source="kubelet"
            )
            with asking(web) as asks:
                eventually(lambda: guard.came)
                yield Node(agent, asks, volume, guard, double, [server], [client], content)
                assert agent.running
                assert "Traceback" not in agent.stderr_text()


@pytest.fixture
def failures(node: Node) -> float:
    """Return the number of failed fetches so far; the last fetch succeeded."""
    came = len(node.guard.came)
    node.asked_until(lambda: len(node.guard.came) > came)
    return metric(node.agent, FAILURES)


def test_a_token_that_is_rotated_is_used_at_the_next_request(node: Node, failures: float) -> None:
    second = "another-token"
    node.guard.tokens.add(second)
    node.rotate(token=second.encode())
    node.asked_until(lambda: node.guard.came[-1][0] == second)
    node.guard.tokens = {second}
    fetched = metric(node.agent, FETCHES)
    node.asked_until(lambda: metric(node.agent, FETCHES) > fetched + 3)
    assert metric(node.agent, FAILURES) == failures
    assert second not in node.agent.stderr_text()


def test_a_rotated_client_certificate_is_used_at_once(node: Node, failures: float) -> None:
    files, serial = pair(node.clients[0])
    node.rotate(**files)
    node.asked_until(lambda: node.guard.came[-1][1] == serial)
    assert metric(node.agent, FAILURES) == failures


def test_a_ca_that_is_rotated_is_trusted_at_the_next_request(node: Node, failures: float) -> None:
    other = trustme.CA()
    both = node.servers[0].cert_pem.bytes() + other.cert_pem.bytes()
    node.rotate(ca_crt=both)
    fetched = metric(node.agent, FETCHES)
    node.asked_until(lambda: metric(node.agent, FETCHES) > fetched + 2)
    node.double.context, node.servers = serving_context(other, *node.clients), [other]
    connections = len(node.double.connections)
    node.rotate(ca_crt=other.cert_pem.bytes())
    node.guard.came.clear()
    node.asked_until(lambda: len(node.double.connections) > connections and node.guard.came)
    assert metric(node.agent, FAILURES) == failures


def test_certificates_that_change_on_both_sides_work_together(node: Node) -> None:
    server, client = trustme.CA(), trustme.CA()
    files, serial = pair(client)
    node.double.context = serving_context(server, client)
    node.servers, node.clients = [server], [client]
    node.rotate(ca_crt=server.cert_pem.bytes(), **files)
    node.double.drop_connections()
    node.asked_until(lambda: node.guard.came[-1][1] == serial)


def half_written(path: Path, good: bytes) -> None:
    path.unlink()
    path.write_bytes(good[: len(good) // 2])


def missing(path: Path, good: bytes) -> None:
    del good
    path.unlink()


def unreadable(path: Path, good: bytes) -> None:
    """Root may read any file, but no user can read a link to itself."""
    del good
    path.unlink()
    path.symlink_to(path.name)


BROKEN = [
    ("token", half_written, "HTTP status 401"),
    ("token", missing, "HTTP status 401"),
    ("ca.crt", half_written, "--kubelet-ca"),
    ("ca.crt", unreadable, "--kubelet-ca"),
    ("tls.crt", half_written, "--kubelet-client-cert"),
    ("tls.crt", missing, "--kubelet-client-cert"),
    ("tls.key", half_written, "--kubelet-client-cert"),
    ("tls.key", unreadable, "--kubelet-client-key"),
]


@pytest.mark.parametrize(("name", "broken", "flag"), BROKEN)
def test_an_unusable_file_takes_nothing_away(
    node: Node, name: str, broken: Callable[[Path, bytes], None], flag: str, failures: float
) -> None:
    path, log = node.volume.directory / name, len(node.agent.stderr_text())
    try:
        broken(path, node.files[name])
        node.asked_until(lambda: metric(node.agent, FAILURES) >= failures + 2)
        more = metric(node.agent, FAILURES) - failures
    finally:
        path.unlink(missing_ok=True)
        path.symlink_to(f"..data/{name}")
    lines = node.agent.stderr_text()[log:].splitlines()
    said = [line for line in lines if "WARNING pod list: " in line]
    # One that lasts is said again after 2, 4, 8 failures: it is the same sentence.
    assert 1 <= len(said) <= math.log2(more) + 2
    assert len({line.partition("pod list: ")[2].partition(" (read ")[0] for line in said}) == 1
    assert flag in said[0]
    came = len(node.guard.came)
    node.asked_until(lambda: len(node.guard.came) > came)
    eventually(lambda: "answers again" in node.agent.stderr_text()[log:])
    assert probe(node.agent, "/readyz") == (200, "ok")
