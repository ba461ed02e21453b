"""Aligned text for people. Pure: strings in, one string out.

Every cell is escaped by `netutil.client.text`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from netutil.client.text import columns, cut, cut_middle, escaped

_GAP = "  "
_NARROWEST_COLUMN = 20
_ROOMY_COLUMNS = 100


@dataclass(frozen=True, slots=True)
class Style:
    """How a table is shown. `width` is that of the terminal in columns, None without a terminal."""

    bold: bool = False
    width: int | None = None


def is_roomy(width: int | None) -> bool:
    """Whether all columns fit: a wide terminal, or no terminal."""
    return width is None or width >= _ROOMY_COLUMNS


@dataclass(frozen=True, slots=True)
class Table:
    """A table: a title, headers (none for a list of properties), rows, and notes below.

    Columns whose header is in `numeric` are aligned to the right; those in `shrinking` lose
    the middle of their cells if the terminal is too narrow. With `wraps` the last column is then
    wrapped, not cut.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    numeric: frozenset[str] = frozenset()
    shrinking: frozenset[str] = frozenset()
    wraps: bool = False


def render(tables: Sequence[Table], style: Style, *, headers: bool = True) -> str:
    """The tables one below the other, each line ended; without `headers` their rows alone."""
    return "\n".join(_render(table, style, headers=headers) for table in tables)


def _render(table: Table, style: Style, *, headers: bool) -> str:
    rows = [tuple(map(escaped, row)) for row in table.rows]
    headed = [table.headers, *rows] if table.headers else rows
    widths = [max(map(columns, cells)) for cells in zip(*headed, strict=True)]
    headed, widths = _shrunk(table, headed, widths, style)
    right = [header in table.numeric for header in table.headers] or [False] * len(widths)
    if table.wraps and style.width is not None:
        headed = [part for row in headed for part in _wrapped(row, widths, style.width)]
    lines = [_line(row, widths, right, style) for row in headed]
    if not headers:
        return "".join(f"{line}\n" for line in lines[bool(table.headers) :])
    if table.headers:
        lines[0] = _emphasized(lines[0], style)
    lines += [f"({escaped(note)})" for note in table.notes]
    return "".join(f"{line}\n" for line in (_emphasized(escaped(table.title), style), *lines))


def _shrunk(
    table: Table, rows: list[tuple[str, ...]], widths: list[int], style: Style
) -> tuple[list[tuple[str, ...]], list[int]]:
    """The rows and widths after shrinking the flexible columns, the widest first."""
    flexible = [i for i, header in enumerate(table.headers) if header in table.shrinking]
    if style.width is None or not flexible:
        return rows, widths
    widths = list(widths)
    gaps = len(_GAP) * (len(widths) - 1)
    while sum(widths) + gaps > style.width:
        widest = max(flexible, key=lambda i: widths[i])
        if widths[widest] <= _NARROWEST_COLUMN:
            break
        widths[widest] -= 1
    cut_rows = [
        tuple(cut_middle(cell, width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return cut_rows, widths


def _wrapped(row: tuple[str, ...], widths: Sequence[int], width: int) -> Iterator[tuple[str, ...]]:
    """The row as several lines, so that its last cell fits; other cells are in the first line."""
    space = max(_NARROWEST_COLUMN, width - sum(widths[:-1]) - len(_GAP) * (len(row) - 1))
    for index, piece in enumerate(textwrap.wrap(row[-1], space, break_on_hyphens=False) or [""]):
        yield (*row[:-1], piece) if index == 0 else (*("" for _ in row[:-1]), piece)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool], style: Style) -> str:
    padded = [
        " " * (width - columns(cell)) + cell if to_right else cell + " " * (width - columns(cell))
        for cell, width, to_right in zip(cells[:-1], widths[:-1], right[:-1], strict=True)
    ]
    last = cells[-1]
    if right[-1]:
        last = " " * (widths[-1] - columns(last)) + last
    if style.width is not None:
        before = sum(widths[:-1]) + len(_GAP) * len(padded)
        last = cut(last, max(_NARROWEST_COLUMN, style.width - before))
    return _GAP.join([*padded, last])


def _emphasized(text: str, style: Style) -> str:
    return f"\x1b[1m{text}\x1b[0m" if style.bold else text
