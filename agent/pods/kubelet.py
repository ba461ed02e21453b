"""The pod list from the kubelet's own API, GET /pods.

Documented in the Kubernetes documentation under "Kubelet authentication/authorization".
The agent is authorised for nodes/pods (KEP-2862) or, on older kubelets, nodes/proxy.
"""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import urllib3
from netutil.agent.errors import Unavailable
from netutil.agent.pods.model import Pod, decode_pod_list
from netutil.agent.pods.source import Signature, signature, unavailable
from urllib3.exceptions import HTTPError, MaxRetryError

LARGEST_BYTES = 64 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024


class Verify(StrEnum):
    """How the kubelet's serving certificate is checked."""

    FULL = "full"
    CA = "ca"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class KubeletSettings:
    """Where the kubelet is, what it must prove, and what the agent shows it."""

    url: str
    verify: Verify = Verify.FULL
    ca_file: str | None = None
    token_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    connect_timeout_seconds: float = 2.0
    read_timeout_seconds: float = 5.0
    total_timeout_seconds: float = 10.0


class KubeletSource:
    """Keeps one connection; makes it anew when a certificate on disk has changed."""

    def __init__(self, settings: KubeletSettings) -> None:
        self._settings = settings
        self._url = f"{settings.url.rstrip('/')}/pods"
        self._pool: urllib3.PoolManager | None = None
        self._files: tuple[Signature | None, ...] = ()

    def describe(self) -> str:
        """Return the address."""
        return self._url

    def fetch(self) -> tuple[Pod, ...]:
        """Return the pods. Raises `Unavailable` that names the cause and what to do about it."""
        body = self._get()
        try:
            return decode_pod_list(body)
        except ValueError as error:
            raise unavailable(
                f"The kubelet's answer cannot be used: {error}.",
                self._url,
                "Look at what answers at --kubelet-url; the agent tries again.",
            ) from error

    def close(self) -> None:
        """Drop the connection."""
        if self._pool is not None:
            self._pool.clear()

    def _get(self) -> bytes:
        settings = self._settings
        deadline = time.monotonic() + settings.total_timeout_seconds
        try:
            response = self._connected().request(
                "GET",
                self._url,
                headers=self._headers(),
                timeout=urllib3.Timeout(
                    connect=settings.connect_timeout_seconds, read=settings.read_timeout_seconds
                ),
                preload_content=False,
                redirect=False,
                retries=False,
            )
            try:
                self._ensure_ok(response.status)
                body = self._body(response, deadline)
            except BaseException:
                response.close()
                raise
            response.release_conn()
            return body
        except (HTTPError, OSError) as error:
            raise self._failed(error) from error

    def _body(self, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
        chunks: list[bytes] = []
        size = 0
        for chunk in response.stream(_CHUNK_BYTES, decode_content=True):
            chunks.append(chunk)
            size += len(chunk)
            if size > LARGEST_BYTES:
                raise unavailable(
                    f"The kubelet's answer is larger than {LARGEST_BYTES} bytes.",
                    self._url,
                    "Look at what answers at --kubelet-url.",
                )
            if time.monotonic() > deadline:
                raise unavailable(
                    f"The kubelet did not finish its answer within"
                    f" {self._settings.total_timeout_seconds:g} s.",
                    self._url,
                    "The kubelet is overloaded or stuck; the agent tries again.",
                )
        return b"".join(chunks)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip"}
        token_file = self._settings.token_file
        if token_file and self._url.startswith("https:"):
            # Read each time: the kubelet rotates a projected token about once an hour.
            try:
                token = Path(token_file).read_text(encoding="ascii").strip()
            except FileNotFoundError:
                # A client certificate may be all there is; the kubelet says if not.
                return headers
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _connected(self) -> urllib3.PoolManager:
        files = self._signatures()
        if self._pool is None or files != self._files:
            self.close()
            self._pool = self._new_pool()
            self._files = files
        return self._pool

    def _signatures(self) -> tuple[Signature | None, ...]:
        settings = self._settings
        names = (settings.ca_file, settings.client_cert, settings.client_key)
        return tuple(signature(name) if name and self._uses(name) else None for name in names)

    def _uses(self, name: str) -> bool:
        if not self._url.startswith("https:"):
            return False
        return name != self._settings.ca_file or self._settings.verify is not Verify.NONE

    def _new_pool(self) -> urllib3.PoolManager:
        settings = self._settings
        if not self._url.startswith("https:"):
            return urllib3.PoolManager(num_pools=1, maxsize=1, retries=False)
        context = ssl.create_default_context(
            cafile=settings.ca_file if settings.verify is not Verify.NONE else None
        )
        context.check_hostname = settings.verify is Verify.FULL
        if settings.verify is Verify.NONE:
            context.verify_mode = ssl.CERT_NONE
        if settings.client_cert:
            context.load_cert_chain(settings.client_cert, settings.client_key)
        return urllib3.PoolManager(
            num_pools=1,
            maxsize=1,
            retries=False,
            ssl_context=context,
            assert_hostname=None if settings.verify is Verify.FULL else False,
        )

    def _ensure_ok(self, status: int) -> None:
        if status == 200:  # noqa: PLR2004 - OK
            return
        advice = {
            401: "The kubelet accepts neither the token nor the client certificate: look at"
            " --kubelet-token, --kubelet-client-cert, and the kubelet's webhook authentication.",
            403: "Give the agent's service account the ClusterRole in manifests/ (get on"
            " nodes/pods, or on nodes/proxy for kubelets before 1.33).",
            404: "Look at --kubelet-url: what answers there has no /pods.",
        }.get(status, "The kubelet has a problem of its own; the agent tries again.")
        raise unavailable(
            f"The kubelet answered the request for its pods with HTTP status {status}.",
            self._url,
            advice,
        )

    def _failed(self, error: HTTPError | OSError) -> Unavailable:
        cause: BaseException = error
        if isinstance(error, MaxRetryError) and error.reason is not None:
            cause = error.reason
        text = " ".join(str(cause).split())[:300]
        advice = "Look at --kubelet-url and at the kubelet; the agent tries again."
        if "doesn't match" in text or "not valid for" in text or "mismatch" in text.lower():
            advice = (
                "The certificate does not bear the name or address of --kubelet-url. If the"
                " kubelet's certificates never do, --kubelet-verify ca checks the chain only."
            )
        elif "CERTIFICATE_VERIFY_FAILED" in text:
            advice = (
                "The certificate is not signed by --kubelet-ca, or has expired. Name the CA of"
                " the kubelets' serving certificates there."
            )
        return unavailable(f"The kubelet cannot be asked for its pods: {text}.", self._url, advice)
