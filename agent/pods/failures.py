"""From what went wrong with the kubelet to one sentence and what to do about it. Pure."""

from __future__ import annotations

import http.client
import ssl

from netutil.agent.errors import Unavailable
from netutil.agent.pods.model import PodListMalformed
from netutil.agent.pods.source import unavailable
from urllib3.exceptions import NameResolutionError, ReadTimeoutError
from urllib3.exceptions import TimeoutError as UrllibTimeoutError

_AGAIN = "Look at --kubelet-url and at the kubelet; the agent tries again."
_CA = "Name the CA of the kubelets' serving certificates in --kubelet-ca."
_NAME = (
    "The certificate does not bear the name or address of --kubelet-url. If the kubelets'"
    " certificates never do, --kubelet-verify ca checks the chain only."
)
_CLOCK = "Let the kubelet renew its certificate (serverTLSBootstrap), and compare the clocks."
# Codes of OpenSSL's x509_vfy.h, by what the verifier says.
_CERTIFICATE_PROBLEMS = {
    9: ("is not valid yet", _CLOCK),
    10: ("has expired", _CLOCK),
    18: ("is self-signed and not in --kubelet-ca", _CA),
    19: ("is signed by a CA that is not in --kubelet-ca", _CA),
    20: ("is signed by a CA that is not in --kubelet-ca", _CA),
    21: ("is signed by a CA that is not in --kubelet-ca", _CA),
    62: ("is for another host name", _NAME),
    64: ("is for another address", _NAME),
}
_STATUS_ADVICE = {
    401: "The kubelet accepts neither the token nor the client certificate: look at"
    " --kubelet-token, --kubelet-client-cert, and the kubelet's webhook authentication.",
    403: "Give the agent's service account the ClusterRole in manifests/ (get on"
    " nodes/pods, or on nodes/proxy for kubelets before 1.33).",
    404: "Look at --kubelet-url: what answers there has no /pods.",
}


def refused(status: int, said: str, url: str) -> Unavailable:
    """Return the error of an answer that is not 200. `said` is the beginning of its body, or ""."""
    if 300 <= status < 400:  # noqa: PLR2004 - the class of redirects, RFC 9110
        advice = (
            "A redirect is not followed, since the token would go with it: name the kubelet's"
            " own address in --kubelet-url."
        )
    else:
        other = "The kubelet has a problem of its own; the agent tries again."
        advice = _STATUS_ADVICE.get(status, other)
    words = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    tail = f": {words:.200}" if words else ""
    return unavailable(f"The kubelet answered with HTTP status {status}{tail}.", url, advice)


def too_slow(seconds: float, url: str) -> Unavailable:
    """Return the error of an answer that did not end within the time for all of it."""
    return unavailable(
        f"The kubelet did not finish its answer within {seconds:g} s.",
        url,
        "The kubelet is overloaded or stuck; the agent tries again.",
    )


def malformed(error: PodListMalformed, url: str) -> Unavailable:
    """Return the error of an answer that is no pod list."""
    return unavailable(
        f"The kubelet's answer cannot be used: {error}.",
        url,
        "Look at what answers at --kubelet-url; the agent tries again.",
    )


def closed(url: str) -> Unavailable:
    """Return the error of a source that was closed."""
    return unavailable("The pod source was closed.", url, "The agent is stopping.")


def failed(error: Exception, url: str) -> Unavailable:
    """Return the error of an exchange that failed below HTTP, or broke off."""
    sentence, advice = _explained(error)
    return unavailable(sentence, url, advice)


def _explained(error: Exception) -> tuple[str, str]:
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _certificate(cause)
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            return _tls(cause)
    if isinstance(error, NameResolutionError):
        return f"The kubelet's host name {error._host!r} cannot be resolved.", _AGAIN
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return (
            "The kubelet refused the connection: nothing listens at that address.",
            "Look at --kubelet-url and whether the kubelet runs; the agent tries again.",
        )
    if any(isinstance(cause, TimeoutError | UrllibTimeoutError) for cause in causes):
        connected = isinstance(error, ReadTimeoutError | TimeoutError)
        what = "send anything" if connected else "accept the connection"
        return f"The kubelet did not {what} in time.", _AGAIN
    for cause in causes:
        if isinstance(cause, http.client.IncompleteRead | ConnectionError | ssl.SSLEOFError):
            return "The kubelet broke off the connection before its answer was whole.", _AGAIN
    text = " ".join(str(causes[-1]).split())[:300]
    return f"The kubelet cannot be asked for its pods: {text}.", _AGAIN


def _causes(error: BaseException) -> list[BaseException]:
    """Return the error and what it was raised from: urllib3 wraps what the socket raised."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__
    return causes


def _certificate(error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    problem, advice = _CERTIFICATE_PROBLEMS.get(
        error.verify_code, (f"does not verify: {error.verify_message}", _CA)
    )
    return f"The kubelet's certificate {problem}.", advice


def _tls(error: ssl.SSLError) -> tuple[str, str]:
    reason = error.reason or str(error)
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return (
            "The kubelet asks for a client certificate, and there is none.",
            "Name one in --kubelet-client-cert and --kubelet-client-key.",
        )
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return (
            f"The kubelet does not accept the client certificate ({reason}).",
            "Look at --kubelet-client-cert and at the kubelet's clientCAFile.",
        )
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
        return (
            "What answers at the kubelet's address speaks no TLS.",
            "Look at --kubelet-url: is it an http:// address?",
        )
    return f"TLS with the kubelet failed: {reason}.", _AGAIN
