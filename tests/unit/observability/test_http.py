"""The address of metrics and probes."""

from __future__ import annotations

import errno
import http.client
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import TCPServer
from typing import NoReturn

import pytest
from netutil.agent.observability.probes import _PAUSE_SECONDS, ProbeServer
from prometheus_client import CollectorRegistry


@contextmanager
def served(port: int = 0) -> Iterator[ProbeServer]:
    server = ProbeServer(f"127.0.0.1:{port}", CollectorRegistry(), lambda: "", lambda: "not yet")
    server.start()
    try:
        yield server
    finally:
        server.close()


def status_of(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_probes_are_distinguished() -> None:
    with served() as server:
        assert status_of(server.port, "/healthz") == 200
        assert status_of(server.port, "/readyz") == 503
        assert status_of(server.port, "/metrics") == 200
        assert status_of(server.port, "/other") == 404


def test_an_address_with_connections_in_time_wait_can_be_bound() -> None:
    """As after a SIGKILL: the kernel closes the agent's side first (tcp(7), TIME_WAIT)."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)) as client:
        accepted, _ = listener.accept()
        accepted.close()
        listener.close()
        assert client.recv(1) == b""
    with served(port) as server:
        assert status_of(server.port, "/healthz") == 200


def test_an_address_at_which_another_agent_listens_is_not_taken() -> None:
    with served() as server, pytest.raises(OSError, match="in use"), served(server.port):
        pass


def test_a_queue_that_accept_fails_on_is_tried_twice_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries = list[float]()

    def fail(_: object) -> NoReturn:
        tries.append(time.monotonic())
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with served() as server:
        with monkeypatch.context() as patched:
            patched.setattr(TCPServer, "get_request", fail)
            with socket.create_connection(("127.0.0.1", server.port)):
                time.sleep(3 * _PAUSE_SECONDS)
        assert 1 <= len(tries) <= (tries[-1] - tries[0]) / _PAUSE_SECONDS + 1.5
        assert status_of(server.port, "/healthz") == 200
