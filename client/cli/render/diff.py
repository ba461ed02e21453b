"""Differences between two snapshots, value by value. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from netutil.client.models.devices import All
from netutil.client.models.observation import lasting
from netutil.client.text import NOTHING

_NAMES = ("name", "interface", "id", "container_name", "page_size_bytes")
"""The first of these fields that an item of a list has identifies the item."""
_IDENTITIES = {
    "pod_claim": ("pod_claim", "extended_resource", "request", "driver"),
    "pool": ("pool", "device", "share_id"),
    "status": ("type",),
}
"""Of an item with the field on the left, these fields together: claims, devices, conditions."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One value: its path ("cpu.cpuset"), what it was and is; "-" for none."""

    path: str
    before: str
    now: str


def differences(before: All, now: All) -> tuple[Difference, ...]:
    """The differences in the order of the API, without values that change all the time."""
    old, new = (dict(_values(lasting(facts), "")) for facts in (before, now))
    paths = dict.fromkeys((*new, *old))
    return tuple(
        Difference(path, old.get(path, NOTHING), new.get(path, NOTHING))
        for path in paths
        if old.get(path, NOTHING) != new.get(path, NOTHING)
    )


def _values(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield each value that is no object, with its path. A list of plain values is one value."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _values(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        seen: Counter[object] = Counter()
        for number, item in enumerate(value):
            name = _name(item, number)
            seen[name] += 1
            # A request may have devices of two sources: the second is no change of the first.
            again = f"#{seen[name]}" if seen[name] > 1 else ""
            yield from _values(item, f"{path}[{name}{again}]")
    else:
        yield path, _text(value)


def _name(item: Any, number: int) -> object:
    if isinstance(item, dict):
        for field in _NAMES:
            if item.get(field) not in (None, ""):
                return item[field]
        if isinstance(item.get("address"), str):
            return item["address"]
        for mark, fields in _IDENTITIES.items():
            if mark in item and (named := "/".join(filter(None, map(item.get, fields)))):
                return named
    return number


def _text(value: Any) -> str:
    match value:
        case None | "" | []:
            return NOTHING
        case bool():
            return "yes" if value else "no"
        case list():
            return " ".join(map(str, value))
        case _:
            return str(value)
