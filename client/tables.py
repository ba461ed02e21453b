"""Aligned text for people. Pure: strings in, one string out.

Cells are other people's text (an environment, an annotation), so nothing that
could steer a terminal leaves this module: whatever str.isprintable() refuses
(control and format characters, exotic blanks, line ends) is written as a Python
escape, and in cells a backslash is doubled, so that each text is told apart.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_GAP = "  "
_CUT = "..."
_NARROWEST_COLUMN = 20
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ZERO_WIDTH = frozenset({"Mn", "Me"})


@dataclass(frozen=True, slots=True)
class Style:
    """How a table is shown. `width` is the terminal's in columns, None where there is none."""

    bold: bool = False
    width: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table: a title, headers (none for a list of properties), rows, and notes below."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def escaped(text: str) -> str:
    """The text on one line, reversibly, with printable characters only."""
    return "".join(map(_escape, text.replace("\\", "\\\\")))


def harmless(text: str) -> str:
    """The text with its newlines and tabs, but without anything that steers a terminal."""
    return "".join(char if char in "\n\t" else _escape(char) for char in text)


def _escape(char: str) -> str:
    if char.isprintable():
        return char
    return _SHORT_ESCAPES.get(char) or char.encode("unicode_escape").decode("ascii")


def columns(text: str) -> int:
    """Columns that printable text takes on a terminal (Unicode Standard Annex 11)."""
    return len(text) if text.isascii() else sum(map(_columns_of, text))


def _columns_of(char: str) -> int:
    if unicodedata.category(char) in _ZERO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, width: int) -> str:
    """Printable text within so many columns, with "..." for what was cut off."""
    if columns(text) <= width:
        return text
    kept, used = [], len(_CUT)
    for char in text:
        used += _columns_of(char)
        if used > width:
            break
        kept.append(char)
    return "".join(kept) + _CUT


def render(tables: Sequence[Table], style: Style) -> str:
    """The tables one below the other, each line ended."""
    return "\n".join(_render(table, style) for table in tables)


def _render(table: Table, style: Style) -> str:
    rows = [tuple(map(escaped, row)) for row in table.rows]
    headed = [table.headers, *rows] if table.headers else rows
    widths = [max(map(columns, cells)) for cells in zip(*headed, strict=True)]
    lines = [_line(row, widths, style) for row in headed]
    if table.headers:
        lines[0] = _emphasized(lines[0], style)
    lines += [f"({escaped(note)})" for note in table.notes]
    return "".join(f"{line}\n" for line in (_emphasized(table.title, style), *lines))


def _line(cells: Sequence[str], widths: Sequence[int], style: Style) -> str:
    padded = [
        cell + " " * (width - columns(cell))
        for cell, width in zip(cells[:-1], widths[:-1], strict=True)
    ]
    last = cells[-1]
    if style.width is not None:
        before = sum(widths[:-1]) + len(_GAP) * len(padded)
        last = cut(last, max(_NARROWEST_COLUMN, style.width - before))
    return _GAP.join([*padded, last])


def _emphasized(text: str, style: Style) -> str:
    return f"\x1b[1m{text}\x1b[0m" if style.bold else text
