"""Limits of connections and of their cost, and the errors beyond them."""

from __future__ import annotations

from dataclasses import dataclass

from netutil.agent.errors import QuotaExceeded, Reason, ResourceExhausted

MAX_CLOSING_CONNECTIONS = 256
"""Connections, of all pods, that wait for the thread that closes what their peers have passed. Past
it nothing is accepted for a moment: those that ended before they were accepted are no pod's."""
MAX_DEFERRED_CONNECTIONS = 256
"""Accepted connections, of all pods, whose identification waits with the work of their pod. What is
accepted beyond is identified at once, in the order in which it was accepted."""
MAX_HOST_ROOT_CONNECTIONS = 16
"""Connections of all processes of the host's root outside of pods. No pod can take these, so
that a health check and an operator's tool connect while unidentified peers hold all of theirs."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections may be open: in all, and of one pod."""

    total: int
    per_pod: int

    def exceeded(self, held_by_pod: int, held: int) -> QuotaExceeded | None:
        """Return why a pod may open no further connection now, None if it may."""
        if held_by_pod >= self.per_pod:
            return QuotaExceeded(
                Reason.TOO_MANY_CONNECTIONS_OF_POD,
                f"The caller's pod holds {held_by_pod} connections; one pod may hold"
                f" {self.per_pod}.",
                read="the agent's connection table",
                advice="Keep one connection per process and close it; --max-connections-per-pod"
                " sets the limit.",
            )
        if held >= self.total:
            return QuotaExceeded(
                Reason.TOO_MANY_CONNECTIONS,
                f"The agent holds {held} connections; it may hold {self.total}.",
                read="the agent's connection table",
                advice="--max-connections sets the limit; `netutil node pods` shows the holders.",
            )
        return None


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Of one pod: calls in a second, and at once after a pause; and the cost of overhead.

    Overhead is what a pod makes the agent do beside answering calls: frames that bring nothing,
    refused calls, connections without a call. `cost_per_second` is in units of one such frame.
    """

    calls_per_second: float = 1000.0
    call_burst: float = 2000.0
    cost_per_second: float = 10_000.0


def too_many_calls(wait_seconds: float) -> QuotaExceeded:
    """Return the error of a call past the limit of calls in a second."""
    error = QuotaExceeded(
        Reason.TOO_MANY_CALLS_PER_SECOND,
        "The caller's pod calls more often than it may.",
        read="the agent's table of calls",
        advice="Ask once and keep the answer, or Watch; --max-calls-per-second-per-pod sets the"
        " limit.",
    )
    error.retry_after_seconds = wait_seconds
    return error


def too_much_overhead(pause_seconds: float) -> QuotaExceeded:
    """Return why a pod's connections are not served for a time."""
    return QuotaExceeded(
        Reason.TOO_MUCH_OVERHEAD_OF_POD,
        "The pod's connections cost more than its calls account for: frames that bring nothing,"
        f" refused calls or connections without a call. For {pause_seconds:.2f} s nothing is read"
        " of them, and responses of more than 64 KiB do not go on.",
        read="the frames of the pod's connections",
        advice="Look for a client that retries without a pause; --pod-cost-per-second sets the"
        " limit.",
    )


def headers_too_large(most_bytes: int) -> ResourceExhausted:
    """Return the error of a call whose metadata is too large. Calling again does not help."""
    return ResourceExhausted(
        Reason.TOO_MANY_HEADER_BYTES,
        f"The metadata of the call is larger than {most_bytes} bytes.",
        read="the call's header block, as decoded",
        advice="Send less metadata with the call; --max-header-bytes sets the limit.",
    )


def message_too_large(most_bytes: int) -> ResourceExhausted:
    """Return the error of a call whose message is too large. Calling again does not help."""
    return ResourceExhausted(
        Reason.REQUEST_TOO_LARGE,
        f"The call's message is larger than {most_bytes} bytes.",
        read="the length that precedes the message",
        advice="No request of this API is that large: send what the API defines.",
    )
