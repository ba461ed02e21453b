"""Pod source: the kubelet's own API, GET /pods.

Documented in the Kubernetes documentation under "Kubelet authentication/authorization".
The agent is authorised for nodes/pods (KEP-2862) or, on older kubelets, nodes/proxy.
"""

from __future__ import annotations

import http.client
import ssl
import threading
from contextlib import closing
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from netutil.agent.errors import Unavailable
from netutil.agent.pods.flaws import Flaws
from netutil.agent.pods.http.bounded import SocketDeadline, read_body
from netutil.agent.pods.http.errors import (
    KUBELET,
    failed,
    malformed,
    request_rejected,
    source_closed,
    too_slow,
)
from netutil.agent.pods.http.tls import TlsFiles, Verify, read_token
from netutil.agent.pods.model import Pod, PodListMalformed, decode_pod_list
from netutil.agent.pods.sources.base import MAX_BYTES, Signature, SourceKind
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

__all__ = ["KubeletSettings", "KubeletSource", "KubeletTimeouts", "Verify"]

_SAID_BYTES = 512


@dataclass(frozen=True, slots=True)
class KubeletTimeouts:
    """How long the kubelet may take. `read_seconds` is for each wait, `total_seconds` for all."""

    connect_seconds: float = 2.0
    read_seconds: float = 5.0
    total_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class KubeletSettings:
    """Where the kubelet is, what it must prove, and what the agent shows it.

    `url` may have a path (an API server's …/nodes/<name>/proxy).
    """

    url: str
    verify: Verify = Verify.FULL
    ca_file: str | None = None
    token_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    timeouts: KubeletTimeouts = field(default_factory=KubeletTimeouts)


class KubeletSource:
    """Keeps one connection; makes it again when it was lost or a file of TLS has changed.

    Follows no redirect, uses no proxy of the environment and never retries by
    itself. Over plain http no token is sent.
    """

    kind = SourceKind("The kubelet")

    def __init__(self, settings: KubeletSettings, flaws: Flaws | None = None) -> None:
        """Raise ValueError for a URL that is not http or https, or names no host.

        `flaws` counts what of the pods is not understood.
        """
        self._settings = settings
        self._flaws = flaws or Flaws()
        parts = urlsplit(settings.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the kubelet's URL must be http://HOST:PORT or https://HOST:PORT")
        self._host, self._port = parts.hostname, parts.port
        self._secure = parts.scheme == "https"
        self._path = f"{parts.path.rstrip('/')}/pods"
        # Put together again, so that no password and no query of the URL is ever shown.
        self._url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{self._path}"
        self._tls = TlsFiles(
            settings.verify, settings.ca_file, settings.client_cert, settings.client_key
        )
        self._signatures: tuple[Signature, ...] | None = None
        self._context: ssl.SSLContext | None = None
        self._connection: HTTPConnection | None = None
        self._lock = threading.Lock()  # of the two below, held for no wait
        self._deadline: SocketDeadline | None = None
        self._closed = False

    def describe(self) -> str:
        """Return the address."""
        return self._url

    def fetch(self) -> tuple[Pod, ...]:
        """Return the pods. Raises `Unavailable` that names the cause and what to do about it."""
        with SocketDeadline(self._settings.timeouts.total_seconds) as deadline:
            with self._lock:
                if self._closed:
                    raise source_closed(self._url)
                self._deadline = deadline
            whole = False
            try:
                pods = decode_pod_list(self._exchange(deadline), self._flaws)
                whole = True
            except (HTTPError, http.client.HTTPException, OSError, PodListMalformed) as error:
                raise self._why(error, deadline) from error
            finally:
                with self._lock:
                    self._deadline = None
                    if self._closed or not whole:
                        self._drop()
            return pods

    def close(self) -> None:
        """End a fetch that is under way, and the connection. No fetch succeeds afterwards."""
        with self._lock:
            self._closed = True
            if self._deadline is None:
                self._drop()
            else:
                self._deadline.abort()

    def _exchange(self, deadline: SocketDeadline) -> bytearray:
        headers = self._headers()
        connection = self._connected()
        assert connection.sock is not None  # noqa: S101 - it is connected
        deadline.watch(connection.sock)
        connection.timeout = self._settings.timeouts.read_seconds
        connection.request("GET", self._path, headers=headers, preload_content=False)
        with closing(connection.getresponse()) as response:
            if response.status != http.client.OK:
                said = b""
                if response.status == http.client.FORBIDDEN:
                    # The kubelet says which user may not do what.
                    said = response.read1(_SAID_BYTES, decode_content=False)
                text = said.decode("ascii", "replace")
                shown = text if text.startswith("Forbidden (user=") else ""
                raise request_rejected(KUBELET, response.status, shown, self._url)
            return read_body(response, MAX_BYTES)

    def _headers(self) -> dict[str, str]:
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "User-Agent": "netutil-agent",
        }
        settings = self._settings
        if not (self._secure and settings.token_file):
            return headers
        # With a client certificate the token's default place may well be empty.
        token = read_token(settings.token_file, required=not settings.client_cert)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _connected(self) -> HTTPConnection:
        """Return the connection, created again if need be."""
        if self._secure and (signatures := self._tls.signatures()) != self._signatures:
            self._drop()
            # The signatures are older than what is read: a change in between is seen next time.
            self._context = self._tls.open_context()
            self._signatures = signatures
        connection = self._connection
        if connection is None or not connection.is_connected:
            self._drop()
            connection = self._connection = self._new_connection()
            connection.connect()
        return connection

    def _new_connection(self) -> HTTPConnection:
        timeout = self._settings.timeouts.connect_seconds
        if not self._secure:
            return HTTPConnection(self._host, self._port, timeout=timeout)
        return HTTPSConnection(
            self._host,
            self._port,
            timeout=timeout,
            ssl_context=self._context,
            assert_hostname=None if self._settings.verify is Verify.FULL else False,
        )

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _why(self, error: Exception, deadline: SocketDeadline) -> Unavailable:
        """Return what to say of it: a cut exchange may fail in any way, even as half a list."""
        if self._closed:
            return source_closed(self._url)
        if deadline.passed:
            return too_slow(KUBELET, self._settings.timeouts.total_seconds, self._url)
        if isinstance(error, PodListMalformed):
            return malformed(KUBELET, error, self._url)
        return failed(KUBELET, error, self._url)
