"""From what went wrong with an HTTPS server to one sentence and what to do about it. Pure."""

from __future__ import annotations

import http.client
import ssl

from netutil.agent.errors import Unavailable
from netutil.agent.pods.model import PodListMalformed
from netutil.agent.pods.party import Party
from netutil.agent.pods.source import unavailable
from urllib3.exceptions import NameResolutionError, ReadTimeoutError
from urllib3.exceptions import TimeoutError as UrllibTimeoutError

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


def refused(party: Party, status: int, said: str, url: str) -> Unavailable:
    """Return the error of an answer that is not 200. `said` is the beginning of its body, or ""."""
    if 300 <= status < 400:  # noqa: PLR2004 - the class of redirects, RFC 9110
        advice = (
            f"A redirect is not followed, since the token would go with it: name {party.own} own"
            f" address in {party.url_flag}."
        )
    else:
        other = f"{party.name} has a problem of its own; the agent tries again."
        advice = party.status_advice.get(status, other)
    words = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    tail = f": {words:.200}" if words else ""
    return unavailable(f"{party.name} answered with HTTP status {status}{tail}.", url, advice)


def too_slow(party: Party, seconds: float, url: str) -> Unavailable:
    """Return the error of an answer that did not end within the time for all of it."""
    return unavailable(
        f"{party.name} did not finish its answer within {seconds:g} s.",
        url,
        f"{party.name} is overloaded or stuck; the agent tries again.",
    )


def malformed(party: Party, error: PodListMalformed, url: str) -> Unavailable:
    """Return the error of an answer that is no pod list."""
    return unavailable(
        f"{party.name}'s answer cannot be used: {error}.",
        url,
        f"Look at what answers at {party.url_flag}; the agent tries again.",
    )


def closed(url: str) -> Unavailable:
    """Return the error of a source that was closed."""
    return unavailable("The pod source was closed.", url, "The agent is stopping.")


def failed(party: Party, error: Exception, url: str) -> Unavailable:
    """Return the error of an exchange that failed below HTTP, or broke off."""
    sentence, advice = _explained(party, error)
    return unavailable(sentence, url, advice)


def _explained(party: Party, error: Exception) -> tuple[str, str]:
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _certificate(party, cause)
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
            return _tls(party, cause)
    if isinstance(error, NameResolutionError):
        return f"{party.name}'s host name {error._host!r} cannot be resolved.", party.again
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        refused_it = f"{party.name} refused the connection: nothing listens at that address."
        whether = f"whether {party.name_inside} runs; the agent tries again."
        return refused_it, f"Look at {party.url_flag} and {whether}"
    if any(isinstance(cause, TimeoutError | UrllibTimeoutError) for cause in causes):
        connected = isinstance(error, ReadTimeoutError | TimeoutError)
        what = "send anything" if connected else "accept the connection"
        return f"{party.name} did not {what} in time.", party.again
    for cause in causes:
        if isinstance(cause, http.client.IncompleteRead | ConnectionError | ssl.SSLEOFError):
            broke_off = "broke off the connection before its answer was whole"
            return f"{party.name} {broke_off}.", party.again
    text = " ".join(str(causes[-1]).split())[:300]
    return f"{party.name} cannot be asked for its pods: {text}.", party.again


def _causes(error: BaseException) -> list[BaseException]:
    """Return the error and what it was raised from: urllib3 wraps what the socket raised."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__
    return causes


def _certificate(party: Party, error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    other = f"does not verify: {error.verify_message}"
    problem = _CERTIFICATE_PROBLEMS.get(error.verify_code, other)
    match error.verify_code:
        case 9 | 10:
            advice = party.clock_advice
        case 62 | 64:
            advice = party.host_name_advice
        case _:
            advice = party.ca_advice
    return f"{party.name}'s certificate {problem.replace('{ca}', party.ca_flag)}.", advice


def _tls(party: Party, error: ssl.SSLError) -> tuple[str, str]:
    reason = error.reason or str(error)
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return (
            f"{party.name} asks for a client certificate, and there is none.",
            party.no_certificate_advice,
        )
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return (
            f"{party.name} does not accept the client certificate ({reason}).",
            party.bad_certificate_advice,
        )
    if "ALERT_INTERNAL_ERROR" in reason:
        # RFC 8446, 6.2: what has nothing to do with the client or its request. A server in Go
        # sends it where GetCertificate has none to give.
        why, advice = party.internal_error
        why = f": {why}" if why else ""
        return f"{party.name} ended the TLS handshake with alert 80, internal_error{why}.", advice
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
        return (
            f"What answers at {party.own} address speaks no TLS.",
            f"Look at {party.url_flag}: is it an http:// address?",
        )
    return f"TLS with {party.name_inside} failed: {reason}.", party.again
