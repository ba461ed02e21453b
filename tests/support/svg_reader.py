"""Reads an SVG of the map: rectangles and lines of text with their extents."""

from __future__ import annotations

import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

SVG = "{http://www.w3.org/2000/svg}"
# No monospaced font of the map's list is wider, higher or deeper (DejaVu Sans Mono, bold:
# 0.602, 0.93 with accents, 0.24; the map draws ASCII, whose highest glyph is at 0.78).
WIDTH_EM, ASCENT_EM, DESCENT_EM = 0.61, 0.8, 0.24


@dataclass(frozen=True)
class Extent:
    left: float
    top: float
    right: float
    bottom: float
    what: str

    def holds(self, other: Extent) -> bool:
        return (
            self.left <= other.left
            and self.top <= other.top
            and other.right <= self.right
            and other.bottom <= self.bottom
        )

    def meets(self, other: Extent) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


@dataclass(frozen=True)
class Thing:
    """A group: its rectangle, its lines, and what the page knows of it."""

    kinds: frozenset[str]
    rectangle: Extent
    lines: tuple[Extent, ...]
    keys: frozenset[str]
    name: str | None
    title: str

    @property
    def text(self) -> str:
        return "\n".join(line.what for line in self.lines)


@dataclass(frozen=True)
class Drawn:
    page: Extent
    things: tuple[Thing, ...]
    loose: tuple[Extent, ...]

    def of(self, kind: str) -> list[Thing]:
        return [t for t in self.things if kind in t.kinds and "legend" not in t.kinds]

    def pod(self, name: str) -> Thing:
        (found,) = (thing for thing in self.things if thing.name == name)
        return found


def read(text: str) -> Drawn:
    root = ET.fromstring(text)  # noqa: S314 - this project's own output
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    assert {child.tag for child in root} <= {SVG + tag for tag in ("title", "style", "g", "text")}
    return Drawn(
        Extent(left, top, left + width, top + height, "page"),
        tuple(map(_thing, root.iter(f"{SVG}g"))),
        tuple(map(_line, root.findall(f"{SVG}text"))),
    )


def _thing(group: ET.Element) -> Thing:
    (rect,) = group.findall(f"{SVG}rect")
    x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
    kind = group.attrib["class"]
    return Thing(
        frozenset(kind.split()),
        Extent(x, y, x + width, y + height, kind),
        tuple(map(_line, group.findall(f"{SVG}text"))),
        frozenset(group.get("data-keys", "").split()),
        group.get("data-name"),
        group.findtext(f"{SVG}title") or "",
    )


def _line(element: ET.Element) -> Extent:
    x, y, size = (float(element.attrib[name]) for name in ("x", "y", "font-size"))
    text = element.text or ""
    assert text.isascii() and text.isprintable()
    return Extent(
        x, y - ASCENT_EM * size, x + len(text) * WIDTH_EM * size, y + DESCENT_EM * size, text
    )


def faults(drawn: Drawn) -> Iterator[str]:
    """Yield the unreadable parts: text beyond its box or over other text, boxes that cut boxes."""
    lines = [*drawn.loose, *(line for thing in drawn.things for line in thing.lines)]
    for one in (*lines, *(thing.rectangle for thing in drawn.things)):
        if not drawn.page.holds(one):
            yield f"{one} is not on the page"
    for thing in drawn.things:
        for line in thing.lines:
            if not thing.rectangle.holds(line):
                yield f"{line} is not within {thing.rectangle}"
    yield from (f"{a} overlaps {b}" for a, b in combinations(lines, 2) if a.meets(b))
    for outer, inner in combinations(drawn.things, 2):
        if outer.rectangle.meets(inner.rectangle):
            yield from _faults_of_nesting(outer, inner.rectangle)


def _faults_of_nesting(outer: Thing, inner: Extent) -> Iterator[str]:
    if not outer.rectangle.holds(inner):
        yield f"{outer.rectangle} cuts {inner}"
    yield from (f"{inner} covers {line}" for line in outer.lines if line.meets(inner))


def drawn_share(png: bytes) -> float:
    """The share of the picture's bytes that differ from their neighbour's (PNG, 9: filters)."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    data, place = b"", 8
    while place < len(png):
        length = int.from_bytes(png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            data += png[place + 8 : place + 8 + length]
        place += 12 + length
    raw = zlib.decompress(data)
    return 1 - raw.count(0) / len(raw)
