from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from netutil.agent.errors import Reason, Unavailable
from netutil.agent.pods.sources import kubelet as module
from netutil.agent.pods.sources.kubelet import KubeletSettings, KubeletSource, KubeletTimeouts

from tests.support.fakes import kubelet as double
from tests.support.fakes.kubelet import Answer, KubeletDouble, list_json, pod_json

LIST = list_json(pod_json())
MEBIBYTE = 1024 * 1024


@pytest.fixture
def source(plain_kubelet: KubeletDouble) -> Iterator[KubeletSource]:
    settings = KubeletSettings(
        plain_kubelet.url, timeouts=KubeletTimeouts(read_seconds=0.5, total_seconds=1)
    )
    found = KubeletSource(settings)
    yield found
    found.close()


def failure_of(source: KubeletSource) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        source.fetch()
    assert caught.value.reason is Reason.POD_LIST_UNAVAILABLE
    assert caught.value.read == source.describe()
    assert caught.value.advice
    return caught.value


def names(source: KubeletSource) -> list[str]:
    return [pod.full_name for pod in source.fetch()]


@pytest.mark.parametrize(
    "answer",
    [
        double.body(LIST),
        double.zipped(LIST),
        double.body(gzip.compress(LIST), {"Content-Encoding": "X-GZIP"}),
        double.chunked([LIST[:7], LIST[7:]]),
        double.body(LIST, {"Connection": "close"}),
        double.body(list_json(*(pod_json(f"pod-{n}", f"u{n}") for n in range(5000)))[:-2] + b"]}"),
    ],
    ids=["plain", "gzip", "x-gzip", "chunked", "connection closed", "larger than a chunk"],
)
def test_a_pod_list_is_read_however_it_is_sent(
    answer: Answer, source: KubeletSource, plain_kubelet: KubeletDouble
) -> None:
    plain_kubelet.answer = answer
    assert names(source)[0] in ("default/web", "default/pod-0")
    assert names(source)


def test_one_connection_serves_many_fetches(
    source: KubeletSource, plain_kubelet: KubeletDouble
) -> None:
    for _ in range(3):
        source.fetch()
    assert len(plain_kubelet.connections) == 1
    assert [path for path, _ in plain_kubelet.requests] == ["/pods"] * 3


def test_a_connection_that_the_kubelet_closed_is_reopened(
    source: KubeletSource, plain_kubelet: KubeletDouble
) -> None:
    source.fetch()
    plain_kubelet.drop_connections()
    assert names(source) == ["default/web"]


def test_the_path_of_the_url_is_kept(plain_kubelet: KubeletDouble) -> None:
    url = f"{plain_kubelet.url}/api/v1/nodes/n/proxy/"
    source = KubeletSource(KubeletSettings(url))
    source.fetch()
    source.close()
    assert plain_kubelet.requests[0][0] == "/api/v1/nodes/n/proxy/pods"


BAD_ANSWERS: dict[str, tuple[Answer, str]] = {
    "401": (double.status(401, b"Unauthorized"), "HTTP status 401."),
    "403": (
        double.status(403, b"Forbidden (user=system:serviceaccount:a:b, verb=get)\n"),
        "HTTP status 403: Forbidden (user=system:serviceaccount:a:b, verb=get)",
    ),
    "404": (double.status(404), "HTTP status 404"),
    "500": (double.status(500, b"a stack trace"), "HTTP status 500."),
    "redirect": (double.status(302, headers={"Location": "/elsewhere"}), "HTTP status 302"),
    "no JSON": (double.body(b"<html>"), "it is no PodList: JSON is malformed"),
    "empty": (double.body(b""), "it is no PodList: Input data was truncated"),
    "another kind": (double.body(b'{"kind":"Status","items":[]}'), "it is a 'Status'"),
    "half a list": (double.body(LIST[:-9]), "truncated (of "),
    "truncated": (double.truncated(LIST), "broke off"),
    "truncated chunks": (double.chunked([LIST[:50]], whole=False), "broke off"),
    "truncated gzip": (
        double.body(gzip.compress(LIST)[:-12], {"Content-Encoding": "gzip"}),
        "its gzip ends early",
    ),
    "broken gzip": (double.body(LIST, {"Content-Encoding": "gzip"}), "its gzip is broken"),
    "more than gzip": (
        double.body(gzip.compress(LIST) + b"!", {"Content-Encoding": "gzip"}),
        "data follows its gzip",
    ),
    "brotli": (double.body(LIST, {"Content-Encoding": "br"}), "encoded as 'br'"),
    "silent": (double.silent, "did not send anything in time"),
    "dripping body": (
        double.dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"),
        "did not finish its answer within 1 s",
    ),
    "dripping body without length": (
        double.dripping(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"),
        "did not finish its answer within 1 s",
    ),
    "dripping header": (
        double.dripping(b"HTTP/1.1 200 OK\r\nX: "),
        "did not finish its answer within 1 s",
    ),
}


@pytest.mark.parametrize(("answer", "sentence"), BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_a_bad_answer_is_one_sentence_and_the_next_is_read(
    answer: Answer, sentence: str, source: KubeletSource, plain_kubelet: KubeletDouble
) -> None:
    good = plain_kubelet.answer
    plain_kubelet.answer = answer
    started = time.monotonic()
    assert sentence in failure_of(source).message
    assert time.monotonic() - started < 5
    plain_kubelet.answer = good
    assert names(source) == ["default/web"]


@pytest.mark.parametrize(
    ("code", "advice"), [(401, "--kubelet-token"), (403, "nodes/pods"), (404, "--kubelet-url")]
)
def test_a_refusal_says_what_to_do(
    code: int, advice: str, source: KubeletSource, plain_kubelet: KubeletDouble
) -> None:
    plain_kubelet.answer = double.status(code)
    assert advice in failure_of(source).advice


def test_a_redirect_is_not_followed(source: KubeletSource, plain_kubelet: KubeletDouble) -> None:
    plain_kubelet.answer = double.status(
        307, headers={"Location": f"{plain_kubelet.url}/elsewhere"}
    )
    assert "not followed" in failure_of(source).advice
    assert [path for path, _ in plain_kubelet.requests] == ["/pods"]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip bomb"])
def test_an_answer_past_the_bound_is_refused(
    packed: bool,
    source: KubeletSource,
    plain_kubelet: KubeletDouble,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", MEBIBYTE)
    plain_kubelet.answer = (
        double.gzip_bomb(64 * MEBIBYTE) if packed else double.body(bytes(2 * MEBIBYTE))
    )
    assert f"larger than {MEBIBYTE} bytes" in failure_of(source).message


def test_the_error_says_that_no_kubelet_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    source = KubeletSource(KubeletSettings(url))
    assert "nothing listens" in failure_of(source).message


def test_a_full_backlog_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        url = f"http://127.0.0.1:{address[1]}"
        source = KubeletSource(KubeletSettings(url, timeouts=KubeletTimeouts(0.2, 0.2)))
        assert "in time" in failure_of(source).message
        for filler in fillers:
            filler.close()


def test_a_token_is_never_sent_over_plain_http(
    plain_kubelet: KubeletDouble, token_file: str
) -> None:
    source = KubeletSource(KubeletSettings(plain_kubelet.url, token_file=token_file))
    source.fetch()
    source.close()
    assert "Authorization" not in plain_kubelet.requests[0][1]


def test_a_proxy_of_the_environment_is_not_used(
    plain_kubelet: KubeletDouble, source: KubeletSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert names(source) == ["default/web"]
    assert plain_kubelet.requests


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "https://", "127.0.0.1:10250", "http://a:b"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|Port"):
        KubeletSource(KubeletSettings(url))


def test_a_password_in_the_url_is_never_shown() -> None:
    source = KubeletSource(KubeletSettings("http://admin:secret@[::1]:10255/?key=secret"))
    assert source.describe() == "http://[::1]:10255/pods"


def on_a_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "answer", [double.silent, double.dripping(b"HTTP/1.1 200 OK\r\n\r\n")], ids=["silent", "drip"]
)
def test_closing_ends_a_fetch_that_hangs(answer: Answer, plain_kubelet: KubeletDouble) -> None:
    asked = threading.Event()

    def answering(handler: double.Handler) -> None:
        asked.set()
        answer(handler)

    plain_kubelet.answer = answering
    source = KubeletSource(
        KubeletSettings(
            plain_kubelet.url, timeouts=KubeletTimeouts(read_seconds=60, total_seconds=60)
        )
    )
    failures: list[Unavailable] = []
    thread = on_a_thread(lambda: failures.append(failure_of(source)))
    assert asked.wait(10)
    source.close()
    thread.join(10)
    assert [failure.message for failure in failures] == ["The pod source was closed."]
    assert failure_of(source).message == "The pod source was closed."
    source.close()


def test_no_descriptor_is_left_behind(source: KubeletSource, plain_kubelet: KubeletDouble) -> None:
    source.fetch()
    good = plain_kubelet.answer

    def mine() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    def failing_fetches() -> int:
        for answer in (double.status(500), double.truncated(LIST)):
            plain_kubelet.answer = answer
            failure_of(source)
        plain_kubelet.answer = good
        source.fetch()
        # The double's own ends close when their handlers see that the client's are closed.
        plain_kubelet.drop_connections()
        for connection in plain_kubelet.connections:
            connection.close()
        plain_kubelet.connections.clear()
        source.fetch()
        return mine()

    before = failing_fetches()
    for _ in range(5):
        after = failing_fetches()
    assert after <= before + 1
