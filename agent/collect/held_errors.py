"""Holds errors, so that equal errors are one object. Used on the event loop."""

from __future__ import annotations

from cachetools import LRUCache
from netutil.agent.errors import AgentError, Reason

MAX_ERRORS = 256
_Key = tuple[type[AgentError], Reason, str, str, str, float | None]


class HeldErrors:
    """The errors that were answered last.

    An error that is made anew for each answer differs from the one before, although it says the
    same: errors are compared by identity. What is encoded of an answer is held with the values that
    it was made of, so such an answer would be encoded each time.
    """

    def __init__(self) -> None:
        self._held: LRUCache[_Key, AgentError] = LRUCache(MAX_ERRORS)

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, error: AgentError) -> AgentError:
        """Return the error of the same content that is held, else this one without its traceback.

        Of more than `MAX_ERRORS` the one that was answered least lately is released.
        """
        key = (
            type(error),
            error.reason,
            error.message,
            error.read,
            error.advice,
            error.retry_after_seconds,
        )
        held: AgentError = self._held.setdefault(key, error.with_traceback(None))
        return held
