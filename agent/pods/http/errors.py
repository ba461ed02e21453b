"""Errors of the kubelet's API and of the API server, each with an advice."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace

from netutil.agent.errors import Unavailable
from netutil.agent.pods.model import PodListMalformed
from netutil.agent.pods.sources.base import unavailable
from urllib3.exceptions import NameResolutionError, ReadTimeoutError
from urllib3.exceptions import TimeoutError as UrllibTimeoutError

_APPROVE = (
    "A kubelet with serverTLSBootstrap has none until its request is approved, which Kubernetes"
    " does not do by itself: `kubectl get csr` shows what is pending (signer"
    " kubernetes.io/kubelet-serving), `kubectl certificate approve NAME` approves it. Else look at"
    " the kubelet's log."
)
_NO_CLIENT_CERTIFICATE = (
    "The agent shows its service account's token and no certificate: look at --apiserver-url and"
    " at each proxy in front of the API server."
)
# Codes of OpenSSL's x509_vfy.h, by what the verifier says.
_NOT_SIGNED = "is signed by a CA that is not in {ca}"
_CERTIFICATE_PROBLEMS = {
    9: "is not valid yet",
    10: "has expired",
    18: "is self-signed and not in {ca}",
    19: _NOT_SIGNED,
    20: _NOT_SIGNED,
    21: _NOT_SIGNED,
    62: "is for another host name",
    64: "is for another address",
}


@dataclass(frozen=True, slots=True)
class CertificateAdvice:
    """What to do about the certificate of a server, or about that of the agent as its client."""

    ca: str
    clock: str
    host_name: str
    no_client: str
    bad_client: str


@dataclass(frozen=True, slots=True)
class ServerMessages:
    """Words about a server: `name` begins a sentence, `name_inside` is inside a sentence.

    `url_flag` is the flag of its address, `ca_flag` that of the CA of its certificate.
    """

    name: str
    name_inside: str
    url_flag: str
    ca_flag: str
    status_advice: Mapping[int, str]
    certificates: CertificateAdvice
    internal_error: tuple[str, str]
    """What probably is behind the TLS alert internal_error, and what to do; "" for not known."""

    @property
    def own(self) -> str:
        """Return its genitive, inside a sentence."""
        return f"{self.name_inside}'s"

    @property
    def again(self) -> str:
        """Return what to look at where nothing more is known."""
        return f"Look at {self.url_flag} and at {self.name_inside}; the agent tries again."


KUBELET = ServerMessages(
    name="The kubelet",
    name_inside="the kubelet",
    url_flag="--kubelet-url",
    ca_flag="--kubelet-ca",
    status_advice={
        401: "The kubelet accepts neither the token nor the client certificate: look at"
        " --kubelet-token, --kubelet-client-cert, and the kubelet's webhook authentication.",
        403: "Give the agent's service account the ClusterRole in manifests/ (get on"
        " nodes/pods); for kubelets before 1.33, which ask for nodes/proxy:"
        " kubectl apply -f manifests/nodes-proxy.yaml.",
        404: "Look at --kubelet-url: what answers there has no /pods.",
    },
    certificates=CertificateAdvice(
        ca="Name the CA of the kubelets' serving certificates in --kubelet-ca.",
        clock="Let the kubelet renew its certificate (serverTLSBootstrap), and compare the clocks.",
        host_name="The certificate does not have the name or address of --kubelet-url. If the"
        " kubelets' certificates never do, --kubelet-verify ca checks the chain only.",
        no_client="Name one in --kubelet-client-cert and --kubelet-client-key.",
        bad_client="Look at --kubelet-client-cert and at the kubelet's clientCAFile.",
    ),
    internal_error=("it probably has no serving certificate yet", _APPROVE),
)


API_SERVER = ServerMessages(
    name="The API server",
    name_inside="the API server",
    url_flag="--apiserver-url",
    ca_flag="--apiserver-ca",
    status_advice={
        401: "The API server does not accept the token of --apiserver-token, which is read again"
        " each time: look whether it has expired, and whether it is of this cluster.",
        403: "Give the agent's service account list and watch on pods: the component"
        " manifests/apiserver does.",
        404: "Look at --apiserver-url: what answers there has no /api/v1/pods.",
        429: "The API server is overloaded, or its priority and fairness holds the agents back;"
        " the agent retries after the time in the response.",
    },
    certificates=CertificateAdvice(
        ca="Name the CA of the API server's certificate in --apiserver-ca.",
        clock="Let the API server's certificate be renewed, and compare the clocks.",
        host_name="The certificate does not have the name or address of --apiserver-url.",
        no_client=_NO_CLIENT_CERTIFICATE,
        bad_client=_NO_CLIENT_CERTIFICATE,
    ),
    internal_error=("", "Look at its log and at each proxy in front of it; the agent tries again."),
)
_USER_CERTIFICATE = (
    "Look at the client certificate of the user in --kubeconfig, and at the API server's"
    " --client-ca-file."
)
KUBECONFIG_SERVER = replace(
    API_SERVER,
    url_flag="--kubeconfig",
    ca_flag="--kubeconfig",
    status_advice={
        **API_SERVER.status_advice,
        401: "The API server does not accept the user of --kubeconfig: look whether its token or"
        " client certificate has expired, and whether it is of this cluster.",
        403: "Give the user of --kubeconfig list and watch on pods: manifests/apiserver has the"
        " ClusterRole.",
        404: "Look at the server in --kubeconfig: what answers there has no /api/v1/pods.",
    },
    certificates=replace(
        API_SERVER.certificates,
        ca="Name the CA of the API server's certificate in --kubeconfig.",
        host_name="The certificate does not have the name or address of the server in"
        " --kubeconfig; tls-server-name names another one to check.",
        no_client=_USER_CERTIFICATE,
        bad_client=_USER_CERTIFICATE,
    ),
)
"""The API server as a kubeconfig names it."""


def request_rejected(server: ServerMessages, status: int, said: str, url: str) -> Unavailable:
    """Return the error of an answer that is not 200. `said` is the beginning of its body, or ""."""
    if 300 <= status < 400:  # noqa: PLR2004 - the class of redirects, RFC 9110
        advice = (
            f"A redirect is not followed, since the token would go with it: name {server.own} own"
            f" address in {server.url_flag}."
        )
    else:
        other = f"{server.name} has a problem of its own; the agent tries again."
        advice = server.status_advice.get(status, other)
    words = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    tail = f": {words:.200}" if words else ""
    return unavailable(f"{server.name} answered with HTTP status {status}{tail}.", url, advice)


def too_slow(server: ServerMessages, seconds: float, url: str) -> Unavailable:
    """Return the error of an answer that did not end within the time for all of it."""
    return unavailable(
        f"{server.name} did not finish its answer within {seconds:g} s.",
        url,
        f"{server.name} is overloaded or stuck; the agent tries again.",
    )


def malformed(server: ServerMessages, error: PodListMalformed, url: str) -> Unavailable:
    """Return the error of an answer that is no pod list."""
    return unavailable(
        f"{server.name}'s answer cannot be used: {error}.",
        url,
        f"Look at what answers at {server.url_flag}; the agent tries again.",
    )


def source_closed(url: str) -> Unavailable:
    """Return the error of a source that was closed."""
    return unavailable("The pod source was closed.", url, "The agent is stopping.")


def failed(server: ServerMessages, error: Exception, url: str) -> Unavailable:
    """Return the error of an exchange that failed below HTTP, or broke off."""
    sentence, advice = _explained(server, error)
    return unavailable(sentence, url, advice)


def _explained(server: ServerMessages, error: Exception) -> tuple[str, str]:
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _certificate(server, cause)
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            return _tls(server, cause)
    if isinstance(error, NameResolutionError):
        return f"{server.name}'s host name {error._host!r} cannot be resolved.", server.again
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        refused_it = f"{server.name} refused the connection: nothing listens at that address."
        whether = f"whether {server.name_inside} runs; the agent tries again."
        return refused_it, f"Look at {server.url_flag} and {whether}"
    if any(isinstance(cause, TimeoutError | UrllibTimeoutError) for cause in causes):
        connected = isinstance(error, ReadTimeoutError | TimeoutError)
        what = "send anything" if connected else "accept the connection"
        return f"{server.name} did not {what} in time.", server.again
    for cause in causes:
        if isinstance(cause, http.client.IncompleteRead | ConnectionError | ssl.SSLEOFError):
            broke_off = "broke off the connection before its answer was whole"
            return f"{server.name} {broke_off}.", server.again
    text = " ".join(str(causes[-1]).split())[:300]
    return f"{server.name} cannot be asked: {text}.", server.again


def _causes(error: BaseException) -> list[BaseException]:
    """Return the error and what it was raised from: urllib3 wraps what the socket raised."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        context = None if cause.__suppress_context__ else cause.__context__
        cause = cause.__cause__ or context
    return causes


def _certificate(server: ServerMessages, error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    other = f"does not verify: {error.verify_message}"
    problem = _CERTIFICATE_PROBLEMS.get(error.verify_code, other)
    match error.verify_code:
        case 9 | 10:
            advice = server.certificates.clock
        case 62 | 64:
            advice = server.certificates.host_name
        case _:
            advice = server.certificates.ca
    return f"{server.name}'s certificate {problem.replace('{ca}', server.ca_flag)}.", advice


def _tls(server: ServerMessages, error: ssl.SSLError) -> tuple[str, str]:
    reason = error.reason or str(error)
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return (
            f"{server.name} asks for a client certificate, and there is none.",
            server.certificates.no_client,
        )
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return (
            f"{server.name} does not accept the client certificate ({reason}).",
            server.certificates.bad_client,
        )
    if "ALERT_INTERNAL_ERROR" in reason:
        # RFC 8446, 6.2: what has nothing to do with the client or its request. A server in Go
        # sends it where GetCertificate has none to give.
        why, advice = server.internal_error
        why = f": {why}" if why else ""
        return f"{server.name} ended the TLS handshake with alert 80, internal_error{why}.", advice
    if "NO_CERTIFICATE_OR_CRL_FOUND" in reason:
        return f"The CA bundle of {server.ca_flag} holds no certificate.", server.certificates.ca
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
        return (
            f"What answers at {server.own} address speaks no TLS.",
            f"Look at {server.url_flag}: is it an http:// address?",
        )
    return f"TLS with {server.name_inside} failed: {reason}.", server.again
