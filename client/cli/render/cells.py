"""The text of one cell of a table. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from netutil.client.documents import rfc3339
from netutil.client.models.core import PartError
from netutil.client.text import NOTHING

_UNITS = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


def size(size_bytes: int | None) -> str:
    """A size in the largest unit that it is a whole number of ("2 MiB"), "-" for None."""
    if size_bytes is None:
        return NOTHING
    for unit, name in _UNITS:
        if size_bytes and size_bytes % unit == 0:
            return f"{size_bytes // unit} {name}"
    return f"{size_bytes} B"


def listed(items: Iterable[object]) -> str:
    """The items that are not empty, separated by blanks."""
    return " ".join(filter(None, map(str, items))) or NOTHING


def or_nothing(value: str | int | None) -> str:
    """The value, "-" if there is none."""
    return NOTHING if value in (None, "") else str(value)


def yes_no(flag: bool | None) -> str:
    """A flag, "-" if it is not known."""
    return NOTHING if flag is None else "yes" if flag else "no"


def observed(time: datetime | None) -> list[str]:
    """A note with the time of the reading."""
    return [] if time is None else [f"observed at {rfc3339(time)}"]


def unknown(what: str, error: PartError | None) -> list[str]:
    """A note of what is not known, and why."""
    return [] if error is None else [f"{what} not known: {error.message} [{error.reason}]"]
