"""The library `h2` as the client, on a real socket."""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from netutil.agent.grpcserver import framing
from netutil.v1alpha import netutil_pb2 as api

from tests.interop import cases
from tests.interop.server import ENVIRONMENT_BYTES, POD_NAME
from tests.interop.serving import TIMEOUT_SECONDS, ServerProcess, serving

OK, DEADLINE_EXCEEDED, NOT_FOUND, UNIMPLEMENTED = "0", "4", "5", "12"
GET_POD, GET_ENV, WATCH = (f"/v1alpha.NetUtil/{name}" for name in ("GetPod", "GetEnv", "Watch"))
CHECK = "/grpc.health.v1.Health/Check"
Fields = tuple[tuple[str, str], ...]


@dataclass
class Answer:
    """The frames of one stream. `fields` are of the headers and the trailers."""

    fields: list[tuple[str, str]] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> str:
        return self.value("grpc-status")

    def value(self, name: str) -> str:
        return dict(self.fields)[name]

    @property
    def message(self) -> bytes:
        """The one message of a unary answer."""
        assert self.data[0] == 0 and int.from_bytes(self.data[1:5], "big") == len(self.data) - 5
        return bytes(self.data[5:])


class H2Client:
    """One connection. Flow control is h2's own."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_SECONDS)
        self._socket.connect(str(path))
        # h2 would not send a request without :authority.
        config = H2Configuration(validate_outbound_headers=False, header_encoding="utf-8")
        self._h2 = H2Connection(config)
        self._h2.initiate_connection()
        self._answers: dict[int, Answer] = {}
        self._flush()

    def __enter__(self) -> H2Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    @property
    def open_streams(self) -> int:
        return self._h2.open_outbound_streams

    def ask(
        self, path: str, body: bytes, more: Fields = (), authority: str | None = "localhost"
    ) -> int:
        """Send a whole request; return its stream."""
        stream = self._h2.get_next_available_stream_id()
        head = [(":method", "POST"), (":scheme", "http"), (":path", path)]
        head += [] if authority is None else [(":authority", authority)]
        head += [("content-type", "application/grpc"), ("te", "trailers"), *more]
        self._answers[stream] = Answer()
        self._h2.send_headers(stream, head)
        self._h2.send_data(stream, body, end_stream=True)
        self._flush()
        return stream

    def reset(self, stream: int) -> None:
        self._h2.reset_stream(stream, ErrorCodes.CANCEL)
        self._flush()

    def read(self) -> None:
        """Take what comes next."""
        received = self._socket.recv(65_536)
        assert received, "the connection ended"
        for event in self._h2.receive_data(received):
            self._take(event)
        self._flush()

    def data(self, stream: int) -> bytes:
        """Return the first data of a stream."""
        answer = self._answers[stream]
        while not answer.data:
            self.read()
        return bytes(answer.data)

    def answer(self, stream: int) -> Answer:
        """Return the answer of a stream, once it has ended."""
        answer = self._answers[stream]
        while not answer.ended:
            self.read()
        return answer

    def call(
        self, path: str, body: bytes, more: Fields = (), authority: str | None = "localhost"
    ) -> Answer:
        return self.answer(self.ask(path, body, more, authority))

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())

    def _take(self, event: Event) -> None:
        if isinstance(event, ResponseReceived | TrailersReceived):
            assert event.stream_id is not None and event.headers is not None
            fields = [(str(name), str(value)) for name, value in event.headers]
            self._answers[event.stream_id].fields += fields
        elif isinstance(event, DataReceived):
            assert event.stream_id is not None and event.data is not None
            assert event.flow_controlled_length is not None
            self._answers[event.stream_id].data += event.data
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            assert event.stream_id is not None
            self._answers[event.stream_id].ended = True
        elif isinstance(event, StreamReset):
            assert event.stream_id is not None
            self._answers[event.stream_id].ended = True
            self._answers[event.stream_id].reset = event.error_code


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("h2") / "net.sock") as running:
        yield running


@pytest.fixture
def client(server: ServerProcess) -> Iterator[H2Client]:
    with connected(server) as one:
        yield one


@contextmanager
def connected(server: ServerProcess) -> Iterator[H2Client]:
    with H2Client(server.path) as one:
        yield one


def request(message: api.PodRequest | api.EnvRequest | api.WatchRequest | None = None) -> bytes:
    return framing.message(b"" if message is None else message.SerializeToString())


@pytest.mark.parametrize(
    "authority",
    [None, "", "localhost", "localhost:80", "/path", "unix:/path", "path%2Fto.sock", "x.sock"],
)
def test_a_call_is_answered_by_whatever_authority(client: H2Client, authority: str | None) -> None:
    found = client.call(GET_POD, request(), authority=authority)
    assert found.status == OK
    assert api.PodResponse.FromString(found.message).name == POD_NAME


def test_an_error_comes_without_data_and_with_its_details(client: H2Client) -> None:
    found = client.call(GET_ENV, request(api.EnvRequest(key="NOT_SET")))
    assert found.status == NOT_FOUND and not found.data
    (raw,) = framing.decode_binary(found.value("grpc-status-details-bin").encode())
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(raw).details[0].Unpack(info)
    assert info.reason == "VARIABLE_NOT_SET"


def test_an_answer_of_a_megabyte_comes_as_the_windows_allow(client: H2Client) -> None:
    found = client.call(GET_ENV, request())
    assert found.status == OK
    environment = api.EnvResponse.FromString(found.message).envs
    assert sum(len(key) + len(value) for key, value in environment.items()) == ENVIRONMENT_BYTES


def test_a_small_answer_overtakes_a_large_one(client: H2Client) -> None:
    large = client.ask(GET_ENV, request())
    assert client.call(GET_POD, request()).status == OK
    assert client.answer(large).status == OK


def test_a_watch_that_is_reset_ends_at_the_server(client: H2Client, server: ServerProcess) -> None:
    stream = client.ask(WATCH, request())
    client.data(stream)
    assert server.variable("OPEN_WATCHES") == 1
    client.reset(stream)
    server.wait_for("OPEN_WATCHES", lambda count: count == 0)
    assert client.call(GET_POD, request()).status == OK


def test_a_thousand_calls_succeed_at_the_servers_concurrency(client: H2Client) -> None:
    assert client.call(GET_POD, request()).status == OK  # the server's SETTINGS are known now
    streams = []
    for _ in range(cases.MANY):
        while client.open_streams == 64:
            client.read()
        streams.append(client.ask(GET_POD, request()))
    assert {client.answer(stream).status for stream in streams} == {OK}


def test_a_compressed_request_is_answered(client: H2Client) -> None:
    body = gzip.compress(api.EnvRequest(key="NOT_SET").SerializeToString())
    prefixed = b"\1" + len(body).to_bytes(4, "big") + body
    found = client.call(GET_ENV, prefixed, (("grpc-encoding", "gzip"),))
    assert found.status == NOT_FOUND


def test_a_compression_that_the_server_does_not_know_is_named(client: H2Client) -> None:
    found = client.call(GET_POD, b"\1\0\0\0\1x", (("grpc-encoding", "snappy"),))
    assert found.status == UNIMPLEMENTED
    assert found.value("grpc-accept-encoding") == "identity,deflate,gzip"


def test_the_server_itself_ends_a_call_at_its_deadline(
    client: H2Client, server: ServerProcess
) -> None:
    found = client.call(WATCH, request(), (("grpc-timeout", "50m"),))
    assert (found.status, found.reset) == (DEADLINE_EXCEEDED, None)
    server.wait_for("OPEN_WATCHES", lambda count: count == 0)


@pytest.mark.parametrize("sent", ["AP8B", "AP8BAg", "AP8BAg=="])
def test_bytes_in_metadata_may_be_padded_and_come_back_unpadded(
    client: H2Client, sent: str
) -> None:
    found = client.call(GET_POD, request(), (("echo-x-bin", sent),))
    assert found.value("echo-x-bin") == found.value("initial-echo-x-bin") == sent.rstrip("=")


@pytest.mark.parametrize(("service", "status"), [("", OK), ("not.There", NOT_FOUND)])
def test_health_is_answered(client: H2Client, service: str, status: str) -> None:
    asked = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    assert client.call(CHECK, framing.message(asked)).status == status
