"""How often one question is asked, and when it is given up.

Every call of the API only reads, so asking twice is safe. Only UNAVAILABLE is
asked again, and only while the caller's own deadline leaves time for it; all
other answers would be the same again. Pure but for a look at the socket: the
synchronous and the asynchronous client sleep in their own ways.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from netutil.client.connection import Settings
from netutil.client.diagnosis import why_unreachable
from netutil.client.errors import DeadlineExceeded, NetUtilError, Unavailable, Unreachable
from netutil.client.translation import Failure, error_of

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5
_SHORTEST_ATTEMPT_SECONDS = 0.001


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
        if not isinstance(error, Unavailable):
            raise error from None
        pause = self._next_pause_seconds(error)
        if self._clock() + pause >= self._deadline:
            raise error from None
        return pause

    def _next_pause_seconds(self, error: Unavailable) -> float:
        """The doubling back-off, up to half of it by chance, on top of what the agent asks for."""
        back_off = self._pause_seconds
        self._pause_seconds = min(2 * back_off, _LONGEST_PAUSE_SECONDS)
        if error.retry_after_seconds is not None:
            return error.retry_after_seconds + back_off * self._jitter()
        return back_off * (0.5 + self._jitter() / 2)

    def _understood(self, error: NetUtilError) -> NetUtilError:
        """The error with its cause, where gRPC itself made it up and the agent said nothing."""
        if error.reason or not isinstance(error, Unavailable | DeadlineExceeded):
            self._said_by_agent = error
            return error
        path, place = self._settings.path, self._settings.place
        if (cause := why_unreachable(path, place)) is not None:
            return cause
        if isinstance(error, Unavailable):
            sentence = f"the agent at {path} closed the connection: {error.sentence}"
            return Unavailable(sentence, error.code, reason="CONNECTION_LOST", read=path)
        if self._said_by_agent is not None:
            return self._said_by_agent
        sentence = f"the agent at {path} did not answer in {self._settings.timeout_seconds:g} s"
        return DeadlineExceeded(sentence, error.code, reason="NO_ANSWER", read=path)
