"""The text and the tables of the repository's documents."""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.repository import ROOT


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every line of a table, without code marks."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            yield [cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")]
