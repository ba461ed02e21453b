"""When a call is retried, and when it is given up.

Every call of the API only reads, so a retry is safe. UNAVAILABLE is retried, and
RESOURCE_EXHAUSTED with a RetryInfo, while the caller's deadline leaves time for it.
Other statuses would be the same again. Pure except for the check of the socket: the
synchronous and the asynchronous client sleep in their own ways.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from netutil.client.errors import (
    DeadlineExceeded,
    NetUtilError,
    ResourceExhausted,
    Unavailable,
    Unreachable,
)
from netutil.client.rpc.diagnose import why_unreachable
from netutil.client.rpc.endpoint import Settings
from netutil.client.rpc.status import Failure, error_from_status

_FIRST_PAUSE_SECONDS = 0.05
_MAX_PAUSE_SECONDS = 0.5
_MIN_ATTEMPT_SECONDS = 0.001


_UNIMPLEMENTED = "UNIMPLEMENTED"
_UNKNOWN = "UNKNOWN"
"""gRPC's code for a socket path that is too long, among others."""
_FIRST_RECONNECT_SECONDS = 0.5
_MAX_RECONNECT_SECONDS = 3.0
_MIN_RECONNECT_SECONDS = 0.01


class Reconnects:
    """The pauses between the streams of one watcher, which has no deadline.

    The pauses double from 0.5 s to 3 s, and each is a random part of that: all watchers of a node
    lose their agent at the same moment, and must not reconnect at the same moment.
    """

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._longest_seconds = _FIRST_RECONNECT_SECONDS

    def succeeded(self) -> None:
        """A stream gave a snapshot: the next pause is a first one."""
        self._longest_seconds = _FIRST_RECONNECT_SECONDS

    def pause_seconds(self) -> float:
        """Time to sleep before the next stream."""
        longest = self._longest_seconds
        self._longest_seconds = min(2 * longest, _MAX_RECONNECT_SECONDS)
        return max(_MIN_RECONNECT_SECONDS, longest * self._jitter())


class Attempts:
    """The attempts at one call, from now until the timeout of the settings.

    Call with a timeout of `remaining_seconds()`; after a failure sleep for
    `pause_seconds_after(failure)` and call again. That method raises the error for
    the caller as soon as a retry is of no use, or there is no time for it.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._jitter = jitter
        self._deadline = clock() + settings.timeout_seconds
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._from_agent: NetUtilError | None = None

    def remaining_seconds(self) -> float:
        """Time that is left, never nothing: gRPC reports the deadline of an attempt itself."""
        return max(_MIN_ATTEMPT_SECONDS, self._deadline - self._clock())

    def pause_seconds_after(self, failure: Failure) -> float:
        """Time to sleep before the next attempt; raises the error if there is to be none."""
        failed = error_from_status(failure)
        error = self._understood(failed)
        if isinstance(failed, DeadlineExceeded) or isinstance(error, Unreachable):
            raise error from None
        limited = isinstance(error, ResourceExhausted) and error.retry_after_seconds is not None
        if not (limited or isinstance(error, Unavailable)):
            raise error from None
        pause = self._next_pause_seconds(error)
        if self._clock() + pause >= self._deadline:
            raise error from None
        return pause

    def _next_pause_seconds(self, error: NetUtilError) -> float:
        """The doubling back-off, up to half of it by chance, on top of what the agent asks for."""
        back_off = self._pause_seconds
        self._pause_seconds = min(2 * back_off, _MAX_PAUSE_SECONDS)
        if error.retry_after_seconds is not None:
            return error.retry_after_seconds + back_off * self._jitter()
        return back_off * (0.5 + self._jitter() / 2)

    def _understood(self, error: NetUtilError) -> NetUtilError:
        if error.reason or not _is_explained(error):
            self._from_agent = error
            return error
        if isinstance(error, DeadlineExceeded) and self._from_agent is not None:
            return why_unreachable(self._settings.path, self._settings.endpoint) or self._from_agent
        return explained(error, self._settings)


def _is_explained(error: NetUtilError) -> bool:
    """Whether the cause of an error without a reason can be found out here."""
    return isinstance(error, Unavailable | DeadlineExceeded) or error.code in (
        _UNIMPLEMENTED,
        _UNKNOWN,
    )


def explained(error: NetUtilError, settings: Settings) -> NetUtilError:
    """The error with its cause, where gRPC itself made it up and the agent said nothing."""
    if error.reason or not _is_explained(error):
        return error
    path = settings.path
    if error.code == _UNIMPLEMENTED:
        sentence = f"the server at {path} does not have this method"
        advice = settings.endpoint.if_unimplemented
        return NetUtilError(sentence, error.code, reason="METHOD_MISSING", read=path, advice=advice)
    if (cause := why_unreachable(path, settings.endpoint)) is not None:
        return cause
    if error.code == _UNKNOWN:
        return error
    if isinstance(error, Unavailable):
        sentence = f"the agent at {path} closed the connection: {error.message}"
        return Unavailable(sentence, error.code, reason="CONNECTION_LOST", read=path)
    sentence = f"the agent at {path} did not answer in {settings.timeout_seconds:g} s"
    return DeadlineExceeded(sentence, error.code, reason="NO_ANSWER", read=path)
