"""GET requests to the API server, bounded and cut from outside."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from netutil.agent.errors import Unavailable
from netutil.agent.pods import failures
from netutil.agent.pods.credentials import TlsFiles, Verify, read_token
from netutil.agent.pods.deadline import Deadline
from netutil.agent.pods.listwatch import Expired, decode_status
from netutil.agent.pods.model import PodListMalformed
from netutil.agent.pods.party import API_SERVER
from urllib3 import BaseHTTPResponse
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import HTTPError

_API = "/api/v1/"
_JSON = "application/json"
_METADATA = f"{_JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, {_JSON}"
"""Kubernetes API Concepts, "Alternate representations of resources": of pods their metadata."""
_SAID_BYTES = 4096
# tcp(7): a peer that is gone without a word is found within half a minute.
_SOCKET_OPTIONS: list[tuple[int, int, int | bytes]] = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
]


@dataclass(frozen=True, slots=True)
class ApiServerAddress:
    """Where the API server is, what it must prove, and what the agent shows it."""

    url: str
    ca_file: str
    token_file: str
    connect_timeout_seconds: float = 5.0


class Requests:
    """One connection for each request, so that token, CA and address are always those of now.

    Used by one thread; `cut` may be called from any. Follows no redirect, uses no
    proxy of the environment and never retries by itself.
    """

    def __init__(self, address: ApiServerAddress) -> None:
        """Raise ValueError for a URL that is not https, or names no host."""
        self._address = address
        parts = urlsplit(address.url)
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError("the API server's URL must be https://HOST:PORT")
        self._host, self._port = parts.hostname, parts.port
        self._path = f"{parts.path.rstrip('/')}{_API}"
        # Put together anew, so that no password and no query of the URL is ever shown.
        self.url = f"https://{parts.netloc.rpartition('@')[2]}{self._path}pods"
        self._tls = TlsFiles(Verify.FULL, address.ca_file, flags=API_SERVER.flags)
        self._lock = threading.Lock()  # of the two below, held for no wait
        self._deadline: Deadline | None = None
        self._closed = False

    @contextmanager
    def get(
        self,
        query: Mapping[str, str],
        *,
        read_seconds: float,
        whole_seconds: float,
        gzip: bool,
        namespace: str = "",
        metadata_only: bool = False,
    ) -> Iterator[BaseHTTPResponse]:
        """Within the block, read an answer that is 200: about the pods of a namespace, "" for all.

        Raises `Expired`, and `Unavailable` for every failure, those in the block included.
        """
        with Deadline(whole_seconds) as deadline:
            with self._lock:
                if self._closed:
                    raise failures.closed(self.url)
                self._deadline = deadline
            try:
                with closing(self._connected(deadline)) as connection:
                    connection.timeout = read_seconds
                    pods = f"namespaces/{namespace}/pods" if namespace else "pods"
                    target = f"{self._path}{pods}?{urlencode(query)}"
                    headers = {
                        "Accept": _METADATA if metadata_only else _JSON,
                        "Accept-Encoding": "gzip" if gzip else "identity",
                    }
                    with closing(self._answer(connection, target, headers)) as response:
                        yield response
            except (HTTPError, http.client.HTTPException, OSError, PodListMalformed) as error:
                raise self._why(error, deadline, whole_seconds) from error
            finally:
                with self._lock:
                    self._deadline = None

    def cut(self) -> None:
        """End the request that is under way. None succeeds afterwards."""
        with self._lock:
            self._closed = True
        self.interrupt()

    def interrupt(self) -> None:
        """End the request that is under way. Others may follow."""
        with self._lock:
            if self._deadline is not None:
                self._deadline.cut()

    def _connected(self, deadline: Deadline) -> HTTPSConnection:
        connection = HTTPSConnection(
            self._host,
            self._port,
            timeout=self._address.connect_timeout_seconds,
            ssl_context=self._tls.open_context(),
            socket_options=_SOCKET_OPTIONS,
        )
        try:
            connection.connect()
            assert connection.sock is not None  # noqa: S101 - it is connected
            deadline.watch(connection.sock)
        except BaseException:
            connection.close()
            raise
        return connection

    def _answer(
        self, connection: HTTPSConnection, target: str, headers: Mapping[str, str]
    ) -> BaseHTTPResponse:
        token = read_token(
            self._address.token_file, required=True, flag=f"{API_SERVER.flags}-token"
        )
        own = {"Authorization": f"Bearer {token}", "User-Agent": "netutil-agent"}
        connection.request("GET", target, headers={**headers, **own}, preload_content=False)
        response = connection.getresponse()
        if response.status != http.client.OK:
            with closing(response):
                raise self._refused(response)
        return response

    def _refused(self, response: BaseHTTPResponse) -> Exception:
        said = decode_status(response.read1(_SAID_BYTES, decode_content=False))
        # 504: the version is newer than any that this API server knows (a database restored).
        too_new = response.status == http.client.GATEWAY_TIMEOUT and "resource version" in said
        if response.status == http.client.GONE or too_new:
            return Expired(said)
        error = failures.refused(API_SERVER, response.status, said, self.url)
        pause = response.headers.get("Retry-After", "")
        if pause.isascii() and pause.isdigit():
            error.retry_after_seconds = float(pause[:6])
        return error

    def _why(self, error: Exception, deadline: Deadline, whole_seconds: float) -> Unavailable:
        """Return what to say of it: a cut exchange may fail in any way, even as half a list."""
        if self._closed:
            return failures.closed(self.url)
        if deadline.passed:
            return failures.too_slow(API_SERVER, whole_seconds, self.url)
        if isinstance(error, PodListMalformed):
            return failures.malformed(API_SERVER, error, self.url)
        return failures.failed(API_SERVER, error, self.url)
