"""Boxes and lines of text with their positions, and how text fits a box. Pure.

All text is monospaced, so its width is known without its font.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from netutil.client.text import cut_middle, escaped

GLYPH_EM = 0.62
"""Width of a glyph by its size. Monospaced fonts have 0.55 to 0.61."""
GAP = 8.0


@dataclass(frozen=True, slots=True)
class Label:
    """A line of text; `y` is its base line, `size` in pixels."""

    x: float
    y: float
    text: str
    size: float = 11.0
    kind: str = "text"


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with the text inside it. `title` is shown when it is pointed at.

    Boxes with a key in common belong together: "p7" is pod 7, "sA" pool A, "f1" a
    physical function, "c3" a core that several pods use. `name` is a pod's.
    """

    x: float
    y: float
    width: float
    height: float
    kind: str
    labels: tuple[Label, ...] = ()
    keys: tuple[str, ...] = ()
    title: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """The whole drawing; later boxes cover earlier boxes."""

    width: float
    height: float
    title: str
    boxes: tuple[Box, ...]
    labels: tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A part of the drawing, and its height."""

    boxes: tuple[Box, ...]
    labels: tuple[Label, ...]
    height: float


def shown(text: str) -> str:
    """Text of workloads as it is drawn: printable ASCII of known width, reversible."""
    return escaped(text).encode("ascii", "backslashreplace").decode("ascii")


def counted(number: int, what: str) -> str:
    """1 CPU, 2 CPUs."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def fitted(text: str, space: float, size: float = 11.0) -> str:
    """Drawn text within that many pixels; longer text loses its middle."""
    return cut_middle(text, max(4, int(space / (size * GLYPH_EM))))


def width_of(text: str, size: float = 11.0) -> float:
    """An upper bound of the width of drawn text, in pixels."""
    return len(text) * size * GLYPH_EM


def moved(block: Block, x: float, y: float) -> Block:
    """The block at another position."""
    return Block(
        tuple(
            replace(box, x=box.x + x, y=box.y + y, labels=_moved(box.labels, x, y))
            for box in block.boxes
        ),
        _moved(block.labels, x, y),
        block.height,
    )


def _moved(labels: Iterable[Label], x: float, y: float) -> tuple[Label, ...]:
    return tuple(replace(label, x=label.x + x, y=label.y + y) for label in labels)


def stacked(blocks: Iterable[Block], gap: float = GAP) -> Block:
    """The blocks one below the other."""
    y, placed = 0.0, []
    for block in blocks:
        if block.height:
            placed.append(moved(block, 0, y))
            y += block.height + gap
    return _joined(placed, max(0.0, y - gap))


def in_columns(blocks: Sequence[Block], columns: int, width: float, gap: float = GAP) -> Block:
    """Equally wide blocks row by row; the first boxes of a row are equally high."""
    step = (width + gap) / columns
    y, placed = 0.0, []
    for first in range(0, len(blocks), columns):
        row = blocks[first : first + columns]
        tallest = max(block.height for block in row)
        placed += [
            moved(_stretched(block, tallest), index * step, y) for index, block in enumerate(row)
        ]
        y += tallest + gap
    return _joined(placed, max(0.0, y - gap))


def _stretched(block: Block, height: float) -> Block:
    """The block with its first box, which contains the others, stretched to the height."""
    first, *inner = block.boxes
    return Block((replace(first, height=height), *inner), block.labels, height)


def flowing(boxes: Iterable[Box], width: float, gap: float = GAP) -> Block:
    """Boxes in reading order, in lines of that width."""
    x = y = tallest = 0.0
    placed: list[Block] = []
    for box in boxes:
        if x and x + box.width > width:
            x, y, tallest = 0.0, y + tallest + gap, 0.0
        placed.append(moved(Block((box,), (), box.height), x - box.x, y - box.y))
        x += box.width + gap
        tallest = max(tallest, box.height)
    return _joined(placed, y + tallest)


def _joined(blocks: Sequence[Block], height: float) -> Block:
    return Block(
        tuple(box for block in blocks for box in block.boxes),
        tuple(label for block in blocks for label in block.labels),
        height,
    )
