"""Holds errors, so that equal errors are one object. Used on the event loop."""

from __future__ import annotations

from netutil.agent.errors import AgentError, Reason
from netutil.agent.recent_cache import RecentCache

MAX_ERRORS = 256
_CALLS_PER_PERIOD = 6
_Key = tuple[type[AgentError], Reason, str, str, str, float | None]


class HeldErrors:
    """The errors that were answered of late, until one to two minutes after their last use.

    An error that is made again for each answer differs from the one before, although it says the
    same: errors are compared by identity. What is encoded of an answer is held with the values that
    it was made of, so such an answer would be encoded each time.
    """

    def __init__(self) -> None:
        self._held: RecentCache[_Key, AgentError] = RecentCache(MAX_ERRORS, _CALLS_PER_PERIOD)

    def __len__(self) -> int:
        return len(self._held)

    def age(self) -> None:
        """Release what was not used of late; called every ten seconds."""
        self._held.age()

    def hold(self, error: AgentError) -> AgentError:
        """Return the error of the same content that is held, else this one without its traceback.

        There are at most `MAX_ERRORS`.
        """
        key = (
            type(error),
            error.reason,
            error.message,
            error.read,
            error.advice,
            error.retry_after_seconds,
        )
        return self._held.setdefault(key, error.with_traceback(None))
