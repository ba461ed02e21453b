"""A kubelet's API as far as /pods goes: real HTTP and TLS, with faults to switch on."""

from __future__ import annotations

import gzip
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


def pod_list(*names: str) -> bytes:
    """Return a PodList of running pods, as GET /pods prints it."""
    items = [
        {
            "metadata": {"name": name, "namespace": "default", "uid": f"{number:032x}"},
            "spec": {"nodeName": "node", "containers": [{"name": "app"}]},
            "status": {
                "phase": "Running",
                "containerStatuses": [
                    {"name": "app", "containerID": f"containerd://{number:064x}"}
                ],
            },
        }
        for number, name in enumerate(names, start=1)
    ]
    return json.dumps({"kind": "PodList", "apiVersion": "v1", "items": items}).encode()


class KubeletDouble:
    """Serves on a free port of 127.0.0.1; `answer` may be replaced at any time."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answer: Answer = send(pod_list("web"))
        self.requests: list[dict[str, str]] = []
        self.release = threading.Event()
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                double.requests.append(dict(self.headers))
                double.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self) -> Any:
                connection, address = super().get_request()
                connection.settimeout(10)
                if context is None:
                    return connection, address
                return context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                ), address

            def handle_error(self, *_: Any) -> None:
                pass  # clients that refuse the certificate break off

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """End it, and whatever hangs in it."""
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def send(
    body: bytes, status: int = 200, *, length: int | None = None, zipped: bool = False
) -> Answer:
    """Answer with a body; with another `length` it is cut short on the way."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        sent = gzip.compress(body) if zipped else body
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        if zipped:
            handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(sent) if length is None else length))
        handler.end_headers()
        handler.wfile.write(sent)
        if length is not None:
            handler.close_connection = True

    return answer


def redirect(location: str) -> Answer:
    """Answer that the pods are elsewhere."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def drip(double: KubeletDouble) -> Answer:
    """Answer with one byte at a time, for ever."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while not double.release.wait(0.02):
            handler.wfile.write(b" ")

    return answer


def hang(double: KubeletDouble) -> Answer:
    """Accept the request and never answer."""
    return lambda _: double.release.wait(30) and None
