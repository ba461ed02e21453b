"""What stands in one cell of a table. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from netutil.client.devices import DeviceSource
from netutil.client.results import CgroupLevel, PartError

NOTHING = "-"
_UNITS = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


def rfc3339(time: datetime) -> str:
    """A time in UTC as text ("2026-01-31T12:00:00Z")."""
    return time.isoformat().replace("+00:00", "Z")


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
    """A note of when the agent learned it."""
    return [] if time is None else [f"observed at {rfc3339(time)}"]


_LEVELS = {
    CgroupLevel.CONTAINER: "container",
    CgroupLevel.POD: "pod",
    CgroupLevel.QOS_CLASS: "QoS class",
    CgroupLevel.KUBEPODS: "kubepods",
    CgroupLevel.ABOVE: "above kubepods",
}


def level_name(level: CgroupLevel | None) -> str:
    """Whose cgroup it is, in the words of Kubernetes; "-" for None or what is not known here."""
    return NOTHING if level is None else _LEVELS.get(level, NOTHING)


def container_name(name: str) -> str:
    """The name of a container, or that the pod list does not tell it."""
    return name or "(name not known)"


def unknown(what: str, error: PartError | None) -> list[str]:
    """A note of what is not known, and why."""
    return [] if error is None else [f"{what} not known: {error.message} [{error.reason}]"]


def mark(source: DeviceSource) -> str:
    """What is said beside a device that is no fact, "" of one that is."""
    return " (inferred)" if source.is_inferred else " (guess)" if source.is_guessed else ""
