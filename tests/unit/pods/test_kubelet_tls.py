from __future__ import annotations

import datetime
import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from netutil.agent.errors import Unavailable
from netutil.agent.pods.sources.kubelet import (
    KubeletSettings,
    KubeletSource,
    KubeletTimeouts,
    Verify,
)

from tests.support.fakes import kubelet as double
from tests.support.fakes.certificates import context_of
from tests.support.fakes.kubelet import KubeletDouble, serving

Open = Callable[..., KubeletSource]


@pytest.fixture
def open_source(kubelet: KubeletDouble, ca_file: str) -> Iterator[Open]:
    opened: list[KubeletSource] = []

    def opening(**settings: object) -> KubeletSource:
        given = {
            "url": kubelet.url,
            "ca_file": ca_file,
            "timeouts": KubeletTimeouts(read_seconds=2.0),
            **settings,
        }
        source = KubeletSource(KubeletSettings(**given))  # type: ignore[arg-type]
        opened.append(source)
        return source

    yield opening
    for source in opened:
        source.close()


def failure_of(source: KubeletSource) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        source.fetch()
    return caught.value


def write_client(ca: trustme.CA, directory: Path) -> dict[str, str]:
    leaf = ca.issue_cert("agent@node")
    leaf.private_key_pem.write_to_path(str(directory / "key.pem"))
    leaf.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
    return {
        "client_cert": str(directory / "cert.pem"),
        "client_key": str(directory / "key.pem"),
    }


def test_the_cas_certificate_for_the_right_address_is_accepted(open_source: Open) -> None:
    assert [pod.full_name for pod in open_source().fetch()] == ["default/web"]


def test_a_certificate_of_another_ca_is_refused(
    open_source: Open, kubelet: KubeletDouble, good_context: ssl.SSLContext
) -> None:
    kubelet.context = context_of(trustme.CA().issue_cert("127.0.0.1"))
    source = open_source()
    failure = failure_of(source)
    assert failure.message == (
        "The kubelet's certificate is signed by a CA that is not in --kubelet-ca."
    )
    assert "--kubelet-ca" in failure.advice
    assert not kubelet.requests
    kubelet.context = good_context
    assert source.fetch()


def test_an_expired_certificate_differs_from_a_wrong_one(
    open_source: Open, kubelet: KubeletDouble, ca: trustme.CA, good_context: ssl.SSLContext
) -> None:
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    kubelet.context = context_of(ca.issue_cert("127.0.0.1", not_before=past, not_after=past))
    source = open_source()
    assert failure_of(source).message == "The kubelet's certificate has expired."
    kubelet.context = good_context
    assert source.fetch()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_another_name_is_refused_by_full_and_accepted_by_ca(
    host: str, open_source: Open, kubelet: KubeletDouble, ca: trustme.CA
) -> None:
    kubelet.context = context_of(ca.issue_cert("node-7.example"))
    url = kubelet.url.replace("127.0.0.1", host)
    failure = failure_of(open_source(url=url))
    assert failure.message.startswith("The kubelet's certificate is for another ")
    assert "--kubelet-verify ca" in failure.advice
    assert open_source(url=url, verify=Verify.CA).fetch()


def test_ca_still_demands_the_chain(open_source: Open, kubelet: KubeletDouble) -> None:
    kubelet.context = context_of(trustme.CA().issue_cert("127.0.0.1"))
    assert "signed by a CA" in failure_of(open_source(verify=Verify.CA)).message


def test_none_accepts_any_certificate_and_reads_no_ca(
    open_source: Open, kubelet: KubeletDouble
) -> None:
    kubelet.context = context_of(trustme.CA().issue_cert("node-7.example"))
    assert open_source(verify=Verify.NONE, ca_file="/nowhere/ca.crt").fetch()


def test_the_systems_cas_decide_without_a_ca_file(open_source: Open) -> None:
    assert "signed by a CA" in failure_of(open_source(ca_file=None)).message


def test_a_kubelet_that_demands_a_client_certificate_gets_it(
    open_source: Open, kubelet: KubeletDouble, ca: trustme.CA, tmp_path: Path
) -> None:
    context = context_of(ca.issue_cert("127.0.0.1"))
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    kubelet.context = context
    without = failure_of(open_source())
    # The alert may be overtaken by the end of the connection.
    assert "client certificate" in without.message or "broke off" in without.message
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    other = failure_of(open_source(**write_client(trustme.CA(), foreign)))
    assert "client certificate" in other.message or "broke off" in other.message
    assert open_source(**write_client(ca, tmp_path)).fetch()


def test_the_token_is_sent_and_read_again_when_it_is_rotated(
    open_source: Open, kubelet: KubeletDouble, tmp_path: Path
) -> None:
    volume = tmp_path / "projected"
    for number, token in enumerate(("first-token", "second-token")):
        (volume / f"..{number}").mkdir(parents=True)
        (volume / f"..{number}" / "token").write_text(token)
    (volume / "..data").symlink_to("..0")
    (volume / "token").symlink_to("..data/token")
    source = open_source(token_file=str(volume / "token"))
    source.fetch()
    (volume / "..new").symlink_to("..1")
    os.rename(volume / "..new", volume / "..data")
    source.fetch()
    sent = [headers["Authorization"] for _, headers in kubelet.requests]
    assert sent == ["Bearer first-token", "Bearer second-token"]
    assert len(kubelet.connections) == 1


def test_a_rotated_ca_is_read_again(
    open_source: Open, kubelet: KubeletDouble, ca: trustme.CA, tmp_path: Path
) -> None:
    other = trustme.CA()
    volume = tmp_path / "projected"
    for number, issuer in enumerate((ca, other)):
        (volume / f"..{number}").mkdir(parents=True)
        issuer.cert_pem.write_to_path(str(volume / f"..{number}" / "ca.crt"))
    (volume / "..data").symlink_to("..0")
    (volume / "ca.crt").symlink_to("..data/ca.crt")
    source = open_source(ca_file=str(volume / "ca.crt"))
    source.fetch()
    kubelet.context = context_of(other.issue_cert("127.0.0.1"))
    (volume / "..new").symlink_to("..1")
    os.rename(volume / "..new", volume / "..data")
    assert source.fetch()
    assert len(kubelet.connections) == 2


def test_a_missing_token_is_an_error_without_a_certificate(
    open_source: Open, ca: trustme.CA, tmp_path: Path
) -> None:
    nowhere = str(tmp_path / "nowhere")
    failure = failure_of(open_source(token_file=nowhere))
    assert failure.message == (
        f"The file of --kubelet-token, {nowhere}, cannot be used: No such file or directory."
    )
    assert failure.read == nowhere
    assert open_source(token_file=nowhere, **write_client(ca, tmp_path)).fetch()


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"top secret\n", b"top-secret\r\nHost: x", b"top-secret\xc3\xa9"]
)
def test_a_file_without_a_token_is_refused_and_not_quoted(
    content: bytes, open_source: Open, kubelet: KubeletDouble, token_file: str
) -> None:
    Path(token_file).write_bytes(content)
    failure = failure_of(open_source(token_file=token_file))
    assert "holds no bearer token" in failure.message
    assert "secret" not in f"{failure.message}{failure.advice}{failure.read}"
    assert not kubelet.requests


@pytest.mark.parametrize("answer", [double.status(401), double.status(302), double.truncated(b"{")])
def test_no_error_contains_a_token(
    answer: double.Answer,
    open_source: Open,
    kubelet: KubeletDouble,
    token_file: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    kubelet.answer = answer
    failure = failure_of(open_source(token_file=token_file))
    assert kubelet.requests[0][1]["Authorization"] == "Bearer first-token"
    texts = f"{failure.message}{failure.advice}{failure.read}{failure!r}{caplog.text}"
    assert "first-token" not in texts


def test_a_missing_ca_is_reported_and_read_when_it_comes(
    open_source: Open, ca: trustme.CA, tmp_path: Path
) -> None:
    path = tmp_path / "later.crt"
    source = open_source(ca_file=str(path))
    assert "--kubelet-ca" in failure_of(source).message
    path.write_text("no certificate")
    assert "no certificate or crl found" in failure_of(source).message
    ca.cert_pem.write_to_path(str(path))
    assert source.fetch()


def test_a_key_that_does_not_fit_is_reported(
    open_source: Open, ca: trustme.CA, tmp_path: Path
) -> None:
    files = write_client(ca, tmp_path)
    ca.issue_cert("other@node").private_key_pem.write_to_path(files["client_key"])
    assert "key values mismatch" in failure_of(open_source(**files)).message


def test_a_plain_server_behind_https_is_reported(open_source: Open, token_file: str) -> None:
    with serving(KubeletDouble(double.pods())) as plain:
        url = plain.url.replace("http:", "https:")
        failure = failure_of(open_source(url=url, token_file=token_file))
        assert failure.message == "What answers at the kubelet's address speaks no TLS."
        assert not plain.requests


def test_a_handshake_that_never_ends_is_a_timeout(open_source: Open) -> None:
    with serving(KubeletDouble(double.pods())) as plain:
        # The server waits for the end of a line that a TLS client never sends.
        url = plain.url.replace("http:", "https:")
        source = open_source(url=url, timeouts=KubeletTimeouts(connect_seconds=0.3))
        assert failure_of(source).message


def test_a_silent_kubelet_is_a_timeout_and_recovers(
    open_source: Open, kubelet: KubeletDouble
) -> None:
    good = kubelet.answer
    kubelet.answer = double.silent
    source = open_source(timeouts=KubeletTimeouts(read_seconds=0.3))
    assert failure_of(source).message == "The kubelet did not send anything in time."
    kubelet.answer = good
    assert source.fetch()


def test_a_drip_over_tls_ends_at_the_deadline(open_source: Open, kubelet: KubeletDouble) -> None:
    good = kubelet.answer
    kubelet.answer = double.dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
    source = open_source(timeouts=KubeletTimeouts(total_seconds=0.7))
    assert failure_of(source).message == "The kubelet did not finish its answer within 0.7 s."
    kubelet.answer = good
    assert source.fetch()


def without_a_certificate(context: ssl.SSLContext) -> ssl.SSLContext:
    """As a server in Go whose GetCertificate gives none: alert 80 in the handshake."""
    context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_error_names_a_certificate_that_awaits_approval(
    open_source: Open, kubelet: KubeletDouble, ca: trustme.CA, version: ssl.TLSVersion
) -> None:
    waiting = context_of(ca.issue_cert("127.0.0.1"))
    waiting.minimum_version = waiting.maximum_version = version
    kubelet.context = without_a_certificate(waiting)
    error = failure_of(open_source())
    assert error.message == (
        "The kubelet ended the TLS handshake with alert 80, internal_error: it probably has no"
        " serving certificate yet."
    )
    assert "`kubectl get csr`" in error.advice
    assert "`kubectl certificate approve NAME`" in error.advice
