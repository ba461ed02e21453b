"""HTTPS requests to the kubelet and the API server, with bounds on size and time."""

from __future__ import annotations

import http.client
import socket
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlencode, urlsplit

from netutil.agent.errors import Unavailable
from netutil.agent.pods.http import errors
from netutil.agent.pods.http.errors import API_SERVER
from netutil.agent.pods.http.tls import TlsFiles, Verify, read_token
from netutil.agent.pods.model import PodListMalformed
from netutil.agent.pods.sources.listwatch import Expired, decode_status
from urllib3 import BaseHTTPResponse
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import HTTPError

_API = "/api/v1/"
_JSON = "application/json"
_METADATA = f"{_JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, {_JSON}"
"""Kubernetes API Concepts, "Alternate representations of resources": of pods their metadata."""
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
_CHUNK_BYTES = 64 * 1024
_GZIP = 16 + zlib.MAX_WBITS  # zlib.h, inflateInit2: gzip only


@dataclass(frozen=True, slots=True)
class ApiServerAddress:
    """Where the API server is, what it must prove, and what the agent shows it."""

    url: str
    ca_file: str
    token_file: str
    connect_timeout_seconds: float = 5.0


class HttpsClient:
    """One connection for each request, so that token, CA and address are always those of now.

    Used by one thread; `abort` may be called from any. Follows no redirect, uses no
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
        # Put together again, so that no password and no query of the URL is ever shown.
        self.url = f"https://{parts.netloc.rpartition('@')[2]}{self._path}pods"
        self._tls = TlsFiles(Verify.FULL, address.ca_file, flags=API_SERVER.flags)
        self._lock = threading.Lock()  # of the two below, held for no wait
        self._deadline: SocketDeadline | None = None
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
        with SocketDeadline(whole_seconds) as deadline:
            with self._lock:
                if self._closed:
                    raise errors.source_closed(self.url)
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

    def _connected(self, deadline: SocketDeadline) -> HTTPSConnection:
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
        error = errors.request_rejected(API_SERVER, response.status, said, self.url)
        pause = response.headers.get("Retry-After", "")
        if pause.isascii() and pause.isdigit():
            error.retry_after_seconds = float(pause[:6])
        return error

    def _why(self, error: Exception, deadline: SocketDeadline, whole_seconds: float) -> Unavailable:
        """Return what to say of it: a cut exchange may fail in any way, even as half a list."""
        if self._closed:
            return errors.source_closed(self.url)
        if deadline.passed:
            return errors.too_slow(API_SERVER, whole_seconds, self.url)
        if isinstance(error, PodListMalformed):
            return errors.malformed(API_SERVER, error, self.url)
        return errors.failed(API_SERVER, error, self.url)


def read_body(response: BaseHTTPResponse, largest_bytes: int) -> bytearray:
    """Return the whole body, decompressed.

    Raises `PodListMalformed` for one that is larger, and for gzip that is broken
    or ends early; what urllib3 and the socket raise passes through. Never holds more
    than `largest_bytes` and a chunk, however well the body is compressed.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise PodListMalformed(f"it is encoded as {encoding[:32]!r}, which was not asked for")
    gunzip = zlib.decompressobj(_GZIP) if encoding != "identity" else None
    body = bytearray()
    # read1 gives what has come; read would wait until a chunk is full.
    while chunk := response.read1(_CHUNK_BYTES, decode_content=False):
        body += _inflated(gunzip, chunk, largest_bytes + 1 - len(body)) if gunzip else chunk
        if len(body) > largest_bytes:
            raise PodListMalformed(f"it is larger than {largest_bytes} bytes")
    if gunzip and not gunzip.eof:
        raise PodListMalformed(f"its gzip ends early, after {len(body)} bytes decompressed")
    return body


def _inflated(gunzip: zlib._Decompress, chunk: bytes, most_bytes: int) -> bytes:
    try:
        found = gunzip.decompress(chunk, most_bytes)
    except zlib.error as error:
        raise PodListMalformed(f"its gzip is broken: {error}") from None
    if gunzip.unused_data:
        raise PodListMalformed("something stands after its gzip")
    return found


class SocketDeadline:
    """Shuts the watched socket down after a time, or at once when `abort` is called.

    A socket's own timeout starts again with each byte, so a server that sends one byte now and
    then would block the reader for ever. After the shutdown the blocked call fails or finds the
    end of the stream; `passed` says that the deadline is the cause.
    """

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self.abort)
        self._timer.name = "pod-source-deadline"
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._socket = None

    def watch(self, connected: socket.socket) -> None:
        """Watch this socket: shut it down at the deadline, now if the deadline has passed."""
        self._socket = connected
        if self.passed:
            self.abort()

    def abort(self) -> None:
        """End the exchange. May be called from any thread. Does not block."""
        self.passed = True
        watched = self._socket
        if watched is not None:
            with suppress(OSError):
                # Not SSLSocket.shutdown: it would change the object under its reader.
                socket.socket.shutdown(watched, socket.SHUT_RDWR)
