"""curl, nghttp and h2load: HTTP/2 clients that know nothing of gRPC."""

from __future__ import annotations

import re
import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.interop.programs import needs
from tests.interop.server import ENVIRONMENT_BYTES, POD_NAME
from tests.interop.serving import ServerProcess, serving

GET_POD, GET_ENV = (f"http://localhost/v1alpha.NetUtil/{name}" for name in ("GetPod", "GetEnv"))
GRPC = ("-H", "content-type: application/grpc", "-H", "te: trailers")
CALLS = 1000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("tools") / "net.sock") as running:
        yield running


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A file with a prefixed message that is empty."""
    path = tmp_path / "empty"
    path.write_bytes(bytes(5))
    return path


def output(*command: str | Path) -> bytes:
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def curl(server: ServerProcess, *words: str | Path) -> bytes:
    needs("curl")
    known = ("--silent", "--http2-prior-knowledge", "--unix-socket", server.path)
    return output("curl", *known, *words)


def status(server: ServerProcess, *words: str) -> str:
    """The HTTP version and status that curl is answered with."""
    written = ("--output", "/dev/null", "--write-out", "%{http_version} %{http_code}")
    return curl(server, *written, *words).decode()


def test_curl_learns_that_only_post_is_a_call(server: ServerProcess) -> None:
    assert status(server, GET_POD) == status(server, "-X", "PUT", GET_POD) == "2 405"
    assert status(server, "--head", GET_POD) == "2 405"


def test_curl_learns_that_a_form_is_no_call(server: ServerProcess) -> None:
    # Without a body: curl 7.88 fails, now and then, on an answer that comes before it has sent all.
    assert status(server, "-X", "POST", GET_POD) == "2 415"
    json = ("-X", "POST", "-H", "content-type: application/json")
    assert status(server, *json, GET_POD) == "2 415"


def test_curl_is_answered_when_it_sends_a_call(server: ServerProcess, empty: Path) -> None:
    shown = curl(server, *GRPC, "--data-binary", f"@{empty}", "--dump-header", "-", GET_POD)
    assert shown.startswith(b"HTTP/2 200") and POD_NAME.encode() in shown
    assert b"grpc-status: 0" in shown


def test_curl_gets_a_large_answer_whole(server: ServerProcess, empty: Path) -> None:
    found = curl(server, *GRPC, "--data-binary", f"@{empty}", GET_ENV)
    assert int.from_bytes(found[1:5], "big") == len(found) - 5 > ENVIRONMENT_BYTES


@pytest.mark.parametrize("option", ["--http1.1", "--http2"])
def test_curl_that_speaks_http_1_is_disconnected(server: ServerProcess, option: str) -> None:
    needs("curl")
    command = ["curl", "--silent", option, "--unix-socket", str(server.path), "--max-time", "30"]
    done = subprocess.run([*command, GET_POD], capture_output=True, check=False)
    assert done.returncode not in (0, 28)  # 28: curl's time is over


def succeeded(text: bytes) -> int:
    """Return the number of h2load's requests that succeeded; none has failed."""
    found = re.search(rb"(\d+) succeeded, 0 failed, 0 errored, 0 timeout", text)
    assert found is not None, text
    return int(found[1])


@pytest.mark.parametrize(("url", "calls"), [(GET_POD, CALLS), (GET_ENV, 32)])
def test_h2load_has_every_call_answered(
    server: ServerProcess, empty: Path, url: str, calls: int
) -> None:
    needs("h2load")
    words = ("-n", str(calls), "-c", "4", "-m", "8", "-d", empty, *GRPC)
    shown = output("h2load", *words, f"--base-uri=unix:{server.path}", url)
    assert succeeded(shown) == calls
    assert f"{calls} 2xx".encode() in shown


@contextmanager
def relayed(path: Path) -> Iterator[int]:
    """A port of the loopback whose first connection goes on to a Unix socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = threading.Thread(target=_relay, args=(listener, path))
        relay.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            relay.join()


def _relay(listener: socket.socket, path: Path) -> None:
    with suppress(OSError), socket.socket(socket.AF_UNIX) as there:
        here, _ = listener.accept()
        there.connect(str(path))
        other = {here: there, there: here}
        with here:
            while True:
                readable, _, _ = select.select(other, [], [])
                for one in readable:
                    data = one.recv(65_536)
                    if not data:
                        return
                    other[one].sendall(data)


def nghttp(server: ServerProcess, method: str, *words: str | Path) -> str:
    needs("nghttp")
    with relayed(server.path) as port:
        url = f"http://127.0.0.1:{port}/v1alpha.NetUtil/{method}"
        return output("nghttp", "--verbose", *words, url).decode(errors="replace")


def test_nghttp_is_answered_when_it_sends_a_call(server: ServerProcess, empty: Path) -> None:
    shown = nghttp(server, "GetPod", "--data", empty, *GRPC)
    assert ":status: 200" in shown and "grpc-status: 0" in shown
    assert POD_NAME in shown and "error_code=NO_ERROR" in shown  # of its own GOAWAY


def test_nghttp_gets_a_large_answer_by_its_windows(server: ServerProcess, empty: Path) -> None:
    shown = nghttp(server, "GetEnv", "--null-out", "--window-bits=14", "--data", empty, *GRPC)
    assert "grpc-status: 0" in shown and shown.count("recv DATA frame") > ENVIRONMENT_BYTES / 2**14


def test_nghttp_learns_that_get_is_no_call(server: ServerProcess) -> None:
    assert ":status: 405" in nghttp(server, "GetPod")
