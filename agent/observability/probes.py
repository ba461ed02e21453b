"""Serves /metrics, /healthz and /readyz over HTTP, on bounded threads.

The kubelet's gRPC probes cannot reach a Unix socket, so probes are HTTP.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

_LOG = logging.getLogger(__name__)
_REQUEST_SECONDS = 5.0
_MAX_REQUESTS = 16
_PAUSE_SECONDS = 0.5

Check = Callable[[], str]
"""Returns "" if all is well, else one sentence."""


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        _LOG.debug("http: %s", format % args)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    _slots = threading.BoundedSemaphore(_MAX_REQUESTS)

    def server_bind(self) -> None:
        # An agent that was killed leaves connections in TIME_WAIT, which would keep the next
        # one from its address for a minute. One that listens keeps it all the same.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # WSGIServer would look its own address up in DNS here.
        socket.socket.bind(self.socket, self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])
        self.setup_environ()

    def get_request(self) -> Any:
        try:
            return super().get_request()
        except OSError:
            # Out of descriptors: the connection stays queued, and `serve_forever` would spin.
            time.sleep(_PAUSE_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()


class ProbeServer:
    """Serves from `start` to `close`. The checks run on its threads."""

    def __init__(
        self, address: str, registry: CollectorRegistry, live: Check, ready: Check
    ) -> None:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        metrics = make_wsgi_app(registry)

        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            path = environ["PATH_INFO"]
            if path == "/metrics":
                return cast("Iterable[bytes]", metrics(environ, start_response))
            checks = {"/healthz": live, "/readyz": ready}
            if path not in checks:
                return _respond(start_response, "404 Not Found", "/metrics, /healthz, /readyz")
            problem = checks[path]()
            status = "503 Service Unavailable" if problem else "200 OK"
            return _respond(start_response, status, problem or "ok")

        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = type("_FamilyServer", (_Server,), {"address_family": family})
        self._server: _Server = server((host, int(port)), _Handler)
        self._server.set_app(app)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="ops-http", daemon=True
        )

    @property
    def port(self) -> int:
        """Return the port that is served."""
        return self._server.server_port

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def _respond(start_response: Any, status: str, text: str) -> list[bytes]:
    body = f"{text}\n".encode()
    start_response(
        status,
        [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))],
    )
    return [body]
