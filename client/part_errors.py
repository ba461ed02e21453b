"""The error of one part of an answer, as the error that a call of its own would have raised."""

from __future__ import annotations

from netutil.client.errors import KINDS, NetUtilError
from netutil.client.results import PartError


def error_of(part: PartError) -> NetUtilError:
    """The error to raise where that part is needed."""
    kind = KINDS.get(part.code, NetUtilError)
    return kind(part.message, part.code, reason=part.reason, read=part.read, advice=part.advice)
