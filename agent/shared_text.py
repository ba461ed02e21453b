"""Texts that several parts of the agent keep, as one string."""

from __future__ import annotations

import sys

_HAS_LOCK = getattr(sys, "_is_gil_enabled", lambda: True)()
_IS_RELEASED = _HAS_LOCK and not (3, 12) <= sys.version_info < (3, 12, 7)
"""Whether Python releases an interned string that nothing refers to any more. Python 3.12 kept
them for ever at first, and Python without its lock still does
(github.com/python/cpython/issues/113993). Pods come and go."""


def shared(text: str) -> str:
    """Return the one string of this text, or `text` where that string would stay for ever."""
    return sys.intern(text) if _IS_RELEASED else text
