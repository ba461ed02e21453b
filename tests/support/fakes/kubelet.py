"""A kubelet's API server as far as GET /pods goes, with every way to misbehave."""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["Handler"], None]


def pod_json(
    name: str = "web",
    uid: str = "11111111-2222-3333-4444-555555555555",
    containers: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    namespace: str = "default",
) -> dict[str, Any]:
    """A pod as the kubelet prints it. `containers` are IDs by name."""
    statuses = [
        {"name": key, "containerID": f"containerd://{value}", "state": {"running": {}}}
        for key, value in (containers or {}).items()
    ]
    metadata = {"name": name, "namespace": namespace, "uid": uid, "annotations": annotations}
    return {"metadata": metadata, "status": {"containerStatuses": statuses}}


def list_json(*pods: dict[str, Any]) -> bytes:
    return json.dumps({"kind": "PodList", "apiVersion": "v1", "items": pods}).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: KubeletDouble

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers.items())))
        self.server.answer(self)

    def send(
        self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as inherited
        pass


class KubeletDouble(ThreadingHTTPServer):
    """Serves on loopback. `answer` and `context` may be set at any time."""

    daemon_threads = True

    def __init__(
        self,
        answer: Answer,
        context: ssl.SSLContext | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        super().__init__(address, Handler)
        self.answer = answer
        self.context = context
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.connections: list[socket.socket] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        scheme = "https" if self.context else "http"
        return "{}://{}:{}".format(scheme, *self.server_address[:2])

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.context is not None:
            connection = self.context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        self.connections.append(connection)
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that refuses the certificate is what is tested."""

    def drop_connections(self) -> None:
        for connection in self.connections:
            try:
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            except OSError:
                pass


@contextmanager
def serving(double: KubeletDouble) -> Iterator[KubeletDouble]:
    thread = threading.Thread(target=double.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield double
    finally:
        double.released.set()
        double.shutdown()
        thread.join()
        double.drop_connections()
        double.server_close()
        for connection in double.connections:
            connection.close()


def pods(*items: dict[str, Any]) -> Answer:
    return lambda handler: handler.send(list_json(*items))


def body(content: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    return lambda handler: handler.send(content, headers=headers)


def status(code: int, content: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
    return lambda handler: handler.send(content, code, headers)


def zipped(content: bytes) -> Answer:
    return body(gzip.compress(content), {"Content-Encoding": "gzip"})


def chunked(chunks: Sequence[bytes], *, whole: bool = True) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for chunk in chunks:
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        handler.wfile.write(b"0\r\n\r\n" if whole else b"")
        handler.close_connection = not whole

    return answer


def truncated(content: bytes) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send(content[: len(content) // 2], headers={"Content-Length": str(len(content))})
        handler.close_connection = True

    return answer


def gzip_bomb(size: int) -> Answer:
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(1024 * 1024)
    packed = b"".join(packer.compress(zeros) for _ in range(size // len(zeros))) + packer.flush()
    return body(packed, {"Content-Encoding": "gzip"})


def silent(handler: Handler) -> None:
    """Read the request and never answer."""
    handler.server.released.wait()


def dripping(head: bytes, every_seconds: float = 0.1) -> Answer:
    """Send the head, then one byte now and then, for ever."""

    def answer(handler: Handler) -> None:
        handler.wfile.write(head)
        try:
            while not handler.server.released.wait(every_seconds):
                handler.wfile.write(b" ")
        except OSError:
            pass
        handler.close_connection = True

    return answer
