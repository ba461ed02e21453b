"""Requests to the API server by the package `kubernetes`, with bounds on size and time."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from kubernetes.client.api_client import ApiClient
from kubernetes.client.configuration import Configuration
from kubernetes.client.exceptions import ApiException
from netutil.agent.errors import Unavailable
from netutil.agent.pods.http import errors
from netutil.agent.pods.http.apiserver_login import Login
from netutil.agent.pods.http.bounded import SocketDeadline
from netutil.agent.pods.model import PodListMalformed
from netutil.agent.pods.sources.listwatch import Expired, decode_status
from urllib3 import BaseHTTPResponse
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import HTTPError

JSON = "application/json"
_CONNECT_SECONDS = 5.0
_SAID_BYTES = 4096
# tcp(7): a peer that vanished is found within half a minute.
_SOCKET_OPTIONS: list[tuple[int, int, int | bytes]] = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
]


class ApiServerClient:
    """One connection for each request, so that the login is always that of now.

    Used by one thread; `abort` may be called from any. Follows no redirect, uses no proxy and never
    retries by itself.
    """

    def __init__(self, login: Login, path: str, advice: Mapping[int, str] | None = None) -> None:
        """`path` is the API that errors name, `advice` what is to be done about a status."""
        self._login = login
        words = login.messages
        status_advice = {**words.status_advice, **(advice or {})}
        self.messages = replace(words, status_advice=status_advice)
        self.url = f"{login.describe()}{path}" if "://" in login.describe() else login.describe()
        self._lock = threading.Lock()  # of the two below, held for no wait
        self._deadline: SocketDeadline | None = None
        self._closed = False

    @contextmanager
    def get(
        self,
        path: str,
        query: Mapping[str, str],
        *,
        read_seconds: float,
        whole_seconds: float,
        gzip: bool,
        accept: str = JSON,
    ) -> Iterator[BaseHTTPResponse]:
        """Within the block, read an answer that is 200.

        Raises `Expired`, and `Unavailable` for every failure, those in the block included. The
        time for the whole begins after the login, which has limits of its own.
        """
        if self._closed:  # starts no exec plugin
            raise errors.source_closed(self.url)
        with self._login.configuration() as configuration, SocketDeadline(whole_seconds) as limit:
            with self._lock:
                if self._closed:
                    raise errors.source_closed(self.url)
                self._deadline = limit
            headers = {"Accept": accept, "Accept-Encoding": "gzip" if gzip else "identity"}
            try:
                with closing(_api_client(configuration, limit)) as api:
                    request = api.param_serialize(
                        "GET",
                        path,
                        query_params=list(query.items()),
                        header_params=headers,
                        auth_settings=["BearerToken"],
                    )
                    timeout = (_CONNECT_SECONDS, read_seconds)
                    # Undecoded: the package decodes what its typed classes ask for.
                    answer = api.call_api(*request, _request_timeout=timeout).response
                    with closing(answer) as response:
                        if response.status != http.client.OK:
                            raise self._refused(response)
                        yield response
            except (ApiException, HTTPError, http.client.HTTPException) as error:
                raise self._why(error, limit, whole_seconds) from error
            except (OSError, PodListMalformed) as error:
                raise self._why(error, limit, whole_seconds) from error
            finally:
                with self._lock:
                    self._deadline = None

    def abort(self) -> None:
        """End the request that is under way. None succeeds afterwards."""
        with self._lock:
            self._closed = True
        self.interrupt()

    def interrupt(self) -> None:
        """End the request that is under way. Others may follow."""
        with self._lock:
            if self._deadline is not None:
                self._deadline.abort()

    def _refused(self, response: BaseHTTPResponse) -> Exception:
        said = decode_status(response.read1(_SAID_BYTES, decode_content=False))
        # 504: the version is newer than any that this API server knows (a database restored).
        too_new = response.status == http.client.GATEWAY_TIMEOUT and "resource version" in said
        if response.status == http.client.GONE or too_new:
            return Expired(said)
        if response.status == http.client.UNAUTHORIZED:
            self._login.rejected()
        error = errors.request_rejected(self.messages, response.status, said, self.url)
        pause = response.headers.get("Retry-After", "")
        if pause.isascii() and pause.isdigit():
            error.retry_after_seconds = float(pause[:6])
        return error

    def _why(self, error: Exception, deadline: SocketDeadline, whole_seconds: float) -> Unavailable:
        """Return what to say of it: a cut exchange may fail in any way, even as half a list."""
        server = self.messages
        if self._closed:
            return errors.source_closed(self.url)
        if deadline.passed:
            return errors.too_slow(server, whole_seconds, self.url)
        if isinstance(error, PodListMalformed):
            return errors.malformed(server, error, self.url)
        return errors.failed(server, error, self.url)


class _WatchedConnection(HTTPSConnection):
    """Hands its socket to a deadline."""

    def __init__(self, *arguments: Any, deadline: SocketDeadline, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._deadline = deadline

    def connect(self) -> None:
        """Connect, the TLS handshake included, within the time to connect."""
        super().connect()
        if self.sock is not None:
            self._deadline.watch(self.sock)


def _api_client(configuration: Configuration, deadline: SocketDeadline) -> ApiClient:
    configuration.socket_options = _SOCKET_OPTIONS
    api = ApiClient(configuration)
    api.user_agent = "netutil-agent"
    # The one pool of the one connection of this request. urllib3 calls it and does no more.
    pool = api.rest_client.pool_manager.connection_from_url(configuration.host)
    watched = partial(_WatchedConnection, deadline=deadline)
    pool.ConnectionCls = watched  # type: ignore[assignment]
    return api
