"""How often one question is asked, and when it is given up.

Every call of the API only reads, so asking twice is safe. UNAVAILABLE is asked
again, and a limit of the pod where the agent says when (RetryInfo), and only while
the caller's own deadline leaves time for it; all other answers would be the same
again. Pure but for a look at the socket: the synchronous and the asynchronous
client sleep in their own ways.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from netutil.client.connection import Settings
from netutil.client.diagnosis import why_unreachable
from netutil.client.errors import (
    DeadlineExceeded,
    LimitReached,
    NetUtilError,
    Unavailable,
    Unreachable,
)
from netutil.client.translation import Failure, error_of

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5
_SHORTEST_ATTEMPT_SECONDS = 0.001


_FIRST_RECONNECT_SECONDS = 0.5
_LONGEST_RECONNECT_SECONDS = 3.0
_LEAST_RECONNECT_SECONDS = 0.01


class Reconnects:
    """The pauses between the streams of one watcher, which goes on for ever.

    They double from 0.5 s to 3 s, and each is a random part of that: all watchers of a node
    lose their agent at one moment, and are not to come back at one moment.
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
        self._longest_seconds = min(2 * longest, _LONGEST_RECONNECT_SECONDS)
        return max(_LEAST_RECONNECT_SECONDS, longest * self._jitter())


class Attempts:
    """The attempts at one question, from now until the timeout of the settings.

    Ask with a timeout of `remaining_seconds()`; after a failure sleep for
    `pause_seconds_after(failure)` and ask again. That raises what the caller is
    to get as soon as there is no use, or no time, in asking again.
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
        self._said_by_agent: NetUtilError | None = None

    def remaining_seconds(self) -> float:
        """Time that is left, never nothing: gRPC reports the deadline of an attempt itself."""
        return max(_SHORTEST_ATTEMPT_SECONDS, self._deadline - self._clock())

    def pause_seconds_after(self, failure: Failure) -> float:
        """Time to sleep before the next attempt; raises the error if there is to be none."""
        failed = error_of(failure)
        error = self._understood(failed)
        if isinstance(failed, DeadlineExceeded) or isinstance(error, Unreachable):
            raise error from None
        limited = isinstance(error, LimitReached) and error.retry_after_seconds is not None
        if not (limited or isinstance(error, Unavailable)):
            raise error from None
        pause = self._next_pause_seconds(error)
        if self._clock() + pause >= self._deadline:
            raise error from None
        return pause

    def _next_pause_seconds(self, error: NetUtilError) -> float:
        """The doubling back-off, up to half of it by chance, on top of what the agent asks for."""
        back_off = self._pause_seconds
        self._pause_seconds = min(2 * back_off, _LONGEST_PAUSE_SECONDS)
        if error.retry_after_seconds is not None:
            return error.retry_after_seconds + back_off * self._jitter()
        return back_off * (0.5 + self._jitter() / 2)

    def _understood(self, error: NetUtilError) -> NetUtilError:
        if error.reason or not isinstance(error, Unavailable | DeadlineExceeded):
            self._said_by_agent = error
            return error
        if isinstance(error, DeadlineExceeded) and self._said_by_agent is not None:
            return why_unreachable(self._settings.path, self._settings.place) or self._said_by_agent
        return explained(error, self._settings)


def explained(error: NetUtilError, settings: Settings) -> NetUtilError:
    """The error with its cause, where gRPC itself made it up and the agent said nothing."""
    if error.reason or not isinstance(error, Unavailable | DeadlineExceeded):
        return error
    path = settings.path
    if (cause := why_unreachable(path, settings.place)) is not None:
        return cause
    if isinstance(error, Unavailable):
        sentence = f"the agent at {path} closed the connection: {error.message}"
        return Unavailable(sentence, error.code, reason="CONNECTION_LOST", read=path)
    sentence = f"the agent at {path} did not answer in {settings.timeout_seconds:g} s"
    return DeadlineExceeded(sentence, error.code, reason="NO_ANSWER", read=path)
