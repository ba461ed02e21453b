"""What was measured, as rows of one table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `value` is a ratio within the run, or a count; `least` and `most` its spread.

    `bound` is what DESIGN section 9 allows ("" for none); `at_least` turns it round. `key` is how
    `recorded.json` names the row.
    """

    key: str
    what: str
    against: str
    value: float
    unit: str = "x"
    least: float | None = None
    most: float | None = None
    bound: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Return whether the bound is met, None without one."""
        if self.bound is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def ratio(
    key: str,
    what: str,
    against: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    bound: float | None = None,
    at_least: bool = False,
    note: str = "",
) -> Row:
    """Return the median of the ratios of slices that were measured in turns, with their spread."""
    found = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return Row(
        key,
        what,
        against,
        statistics.median(found),
        "x",
        found[0],
        found[-1],
        bound,
        at_least,
        note,
    )


def table(rows: Iterable[Row]) -> str:
    """Return the rows as a table of Markdown."""
    lines = [
        "| figure | against | value | spread | bound | note |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        spread = f"{_text(row.least)} to {_text(row.most)}" if row.least is not None else ""
        bound = ""
        if row.bound is not None:
            bound = f"{'≥' if row.at_least else '≤'} {_text(row.bound)}"
            bound += ": met" if row.holds else ": **not met**"
        value = f"{_text(row.value)} {row.unit}"
        lines.append(f"| {row.what} | {row.against} | {value} | {spread} | {bound} | {row.note} |")
    return "\n".join(lines)


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
