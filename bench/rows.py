"""Measurements, as rows of one table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.bounds import BOUNDS, Bound

_HEADINGS = ("figure", "against", "value", "spread", "bound", "result", "note")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `value` is a ratio within the run, or a count; `least` and `most` its spread.

    `key` is how `bounds.py` and `recorded.json` name the row.
    """

    key: str
    what: str
    against: str
    value: float
    unit: str = "x"
    least: float | None = None
    most: float | None = None
    note: str = ""

    @property
    def bound(self) -> Bound | None:
        """Return what DESIGN section 9 allows, None without a bound."""
        return BOUNDS.get(self.key)

    @property
    def holds(self) -> bool | None:
        """Return whether the bound is met, None without one."""
        return None if self.bound is None else self.bound.met_by(self.value)

    def as_json(self) -> dict[str, Any]:
        """Return the row as `--json` keeps it."""
        bound = self.bound
        return asdict(self) | {
            "bound": bound.value if bound else None,
            "at_least": bound.at_least if bound else False,
            "holds": self.holds,
        }


def ratio(
    key: str,
    what: str,
    against: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    note: str = "",
) -> Row:
    """Return the median of the ratios of slices, measured alternately, with their spread."""
    found = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return Row(key, what, against, statistics.median(found), "x", found[0], found[-1], note)


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a table of Markdown whose columns are aligned."""
    lines = [_HEADINGS, *map(_cells, rows)]
    # Only the notes differ much in length; the last column is left as it is.
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)][:-1]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join([*map(str.ljust, line, widths), line[-1]]) + " |"
        for line in (lines[0], (*rule, "----"), *lines[1:])
    )


def summary(rows: Iterable[Row]) -> str:
    """Return how many bounds were met, of those that have one."""
    results = [row.holds for row in rows if row.holds is not None]
    return f"{sum(results)} of {len(results)} bounds are met"


def without_row(rows: Iterable[Row]) -> list[str]:
    """Return the keys of the bounds that no row is for."""
    return sorted(BOUNDS.keys() - {row.key for row in rows})


def _cells(row: Row) -> tuple[str, ...]:
    spread = f"{_text(row.least)} to {_text(row.most)}" if row.least is not None else ""
    result = {None: "", True: "pass", False: "MISS"}[row.holds]
    value = f"{_text(row.value)} {row.unit}".rstrip()
    bound = str(row.bound) if row.bound else ""
    return row.what, row.against, value, spread, bound, result, row.note


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
