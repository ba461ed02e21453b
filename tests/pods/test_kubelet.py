"""The kubelet's API over real TLS: what is refused, what is said of it, and recovery."""

from __future__ import annotations

import datetime
import os
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from netutil.agent.errors import Reason, Unavailable
from netutil.agent.pods.kubelet import KubeletSettings, KubeletSource, Verify

from tests.pods.kubelet_double import (
    Answer,
    KubeletDouble,
    drip,
    hang,
    pod_list,
    redirect,
    send,
)

Start = Callable[..., KubeletDouble]


@pytest.fixture
def start() -> Iterator[Start]:
    doubles: list[KubeletDouble] = []

    def begin(context: ssl.SSLContext | None = None) -> KubeletDouble:
        doubles.append(KubeletDouble(context))
        return doubles[-1]

    yield begin
    for double in doubles:
        double.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def serving(
    authority: trustme.CA, *names: str, not_after: datetime.datetime | None = None
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("127.0.0.1",)), not_after=not_after).configure_cert(context)
    return context


def bundle(authority: trustme.CA, folder: Path) -> str:
    path = folder / "ca.crt"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def source(double: KubeletDouble, scheme: str = "https", **settings: object) -> KubeletSource:
    quick: dict[str, object] = {
        "connect_timeout_seconds": 2.0,
        "read_timeout_seconds": 0.5,
        "total_timeout_seconds": 1.0,
    }
    url = f"{scheme}://127.0.0.1:{double.port}"
    return KubeletSource(KubeletSettings(url=url, **{**quick, **settings}))  # type: ignore[arg-type]


def names(of: KubeletSource) -> list[str]:
    return [pod.metadata.name for pod in of.fetch()]


def refusal(of: KubeletSource) -> Unavailable:
    with pytest.raises(Unavailable) as refused:
        of.fetch()
    assert refused.value.reason is Reason.POD_LIST_UNAVAILABLE
    assert refused.value.advice
    return refused.value


def test_a_kubelet_with_a_certificate_of_the_ca_is_believed(
    start: Start, authority: trustme.CA, tmp_path: Path
) -> None:
    double = start(serving(authority))
    kubelet = source(double, ca_file=bundle(authority, tmp_path))
    assert names(kubelet) == ["web"]
    kubelet.close()


def test_a_certificate_of_another_ca_is_refused(
    start: Start, authority: trustme.CA, tmp_path: Path
) -> None:
    kubelet = source(start(serving(trustme.CA())), ca_file=bundle(authority, tmp_path))
    assert "--kubelet-ca" in refusal(kubelet).advice


def test_an_expired_certificate_is_refused(
    start: Start, authority: trustme.CA, tmp_path: Path
) -> None:
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    kubelet = source(start(serving(authority, not_after=past)), ca_file=bundle(authority, tmp_path))
    assert "expired" in refusal(kubelet).sentence


def test_a_wrong_host_name_is_refused_in_full_mode_and_taken_in_ca_mode(
    start: Start, authority: trustme.CA, tmp_path: Path
) -> None:
    double, ca = start(serving(authority, "other.example")), bundle(authority, tmp_path)
    assert "--kubelet-verify ca" in refusal(source(double, ca_file=ca)).advice
    lenient = source(double, ca_file=ca, verify=Verify.CA)
    assert names(lenient) == ["web"]
    lenient.close()


def test_ca_mode_still_refuses_another_ca(
    start: Start, authority: trustme.CA, tmp_path: Path
) -> None:
    double = start(serving(trustme.CA()))
    refusal(source(double, ca_file=bundle(authority, tmp_path), verify=Verify.CA))


def test_none_mode_takes_any_certificate(start: Start) -> None:
    kubelet = source(start(serving(trustme.CA())), verify=Verify.NONE)
    assert names(kubelet) == ["web"]
    kubelet.close()


def test_a_client_certificate_is_shown_where_it_is_asked_for(
    start: Start, authority: trustme.CA, tmp_path: Path
) -> None:
    context = serving(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    double, ca = start(context), bundle(authority, tmp_path)
    refusal(source(double, ca_file=ca))
    client = authority.issue_cert("agent@example.org")
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    client.cert_chain_pems[0].write_to_path(str(cert))
    client.private_key_pem.write_to_path(str(key))
    kubelet = source(double, ca_file=ca, client_cert=str(cert), client_key=str(key))
    assert names(kubelet) == ["web"]
    kubelet.close()


def test_a_rotated_token_is_read_again_through_the_switched_link(
    start: Start, authority: trustme.CA, tmp_path: Path
) -> None:
    double = start(serving(authority))
    for number in ("1", "2"):
        (tmp_path / f"v{number}").mkdir()
        (tmp_path / f"v{number}" / "token").write_text(f"secret-{number}\n")
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "token").symlink_to("..data/token")
    kubelet = source(
        double, ca_file=bundle(authority, tmp_path), token_file=str(tmp_path / "token")
    )
    kubelet.fetch()
    (tmp_path / "..new").symlink_to("v2")
    os.replace(tmp_path / "..new", tmp_path / "..data")
    kubelet.fetch()
    kubelet.close()
    sent = [request["Authorization"] for request in double.requests]
    assert sent == ["Bearer secret-1", "Bearer secret-2"]


def test_a_rotated_ca_is_used_without_a_restart(
    start: Start, authority: trustme.CA, tmp_path: Path
) -> None:
    double = start(serving(authority))
    kubelet = source(double, ca_file=bundle(trustme.CA(), tmp_path))
    refusal(kubelet)
    bundle(authority, tmp_path)
    assert names(kubelet) == ["web"]
    kubelet.close()


def test_the_plain_port_is_read_without_a_token(start: Start, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    double = start()
    kubelet = source(double, "http", token_file=str(tmp_path / "token"))
    assert names(kubelet) == ["web"]
    kubelet.close()
    assert "Authorization" not in double.requests[0]


def test_a_zipped_answer_is_read(start: Start) -> None:
    double = start()
    double.answer = send(pod_list("zipped"), zipped=True)
    kubelet = source(double, "http")
    assert names(kubelet) == ["zipped"]
    kubelet.close()


FAULTS: dict[str, tuple[Callable[[KubeletDouble], Answer], str]] = {
    "401": (lambda _: send(b"Unauthorized", 401), "401"),
    "403": (lambda _: send(b"Forbidden", 403), "403"),
    "404": (lambda _: send(b"", 404), "404"),
    "500": (lambda _: send(b"oops", 500), "500"),
    "a truncated body": (lambda _: send(pod_list("web")[:50], length=1000), "asked"),
    "half a JSON document": (lambda _: send(pod_list("web")[:-20]), "no PodList"),
    "not JSON": (lambda _: send(b"<html>"), "no PodList"),
    "another kind": (lambda _: send(b'{"kind": "Status", "items": []}'), "'Status'"),
    "broken gzip": (
        lambda _: lambda handler: send(b"\x1f\x8bnonsense")(_claiming_gzip(handler)),
        "asked",
    ),
    "a redirect": (lambda _: redirect("http://127.0.0.1:1/"), "302"),
    "no answer": (hang, "timed out"),
    "a byte now and then": (drip, "did not finish"),
    "a bomb": (lambda _: send(b" " * (65 * 1024 * 1024), zipped=True), "larger"),
}


def _claiming_gzip(handler):  # type: ignore[no-untyped-def]
    original = handler.end_headers

    def end_headers() -> None:
        handler.send_header("Content-Encoding", "gzip")
        original()

    handler.end_headers = end_headers
    return handler


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_the_next_fetch_recovers(start: Start, fault: str) -> None:
    double = start()
    make, said = FAULTS[fault]
    double.answer = make(double)
    kubelet = source(double, "http")
    began = time.monotonic()
    refused = refusal(kubelet)
    assert said in refused.sentence
    assert refused.read == f"http://127.0.0.1:{double.port}/pods"
    assert time.monotonic() - began < 10
    double.answer = send(pod_list("back"))
    assert names(kubelet) == ["back"]
    kubelet.close()


def test_a_kubelet_that_is_not_there_is_named() -> None:
    kubelet = KubeletSource(KubeletSettings(url="http://127.0.0.1:1"))
    assert "refused" in refusal(kubelet).sentence
