"""A subset of kubectl's JSONPath templates, for `-o jsonpath=TEMPLATE`. Pure.

https://kubernetes.io/docs/reference/kubectl/jsonpath/ has the language. Of it: text,
`{"quoted text"}`, `{.field}`, `{['field']}`, `[0]`, `[-1]`, `[*]`, and `{range PATH}…{end}`.
No filters, slices or `..`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

MAX_TEMPLATE_LENGTH = 4096
_PIECE = re.compile(r"""\{((?:"(?:\\.|[^"\\])*"|'[^']*'|[^{}"'])*)\}|([^{}]+)""")
_STEP = re.compile(
    r"""\.(?P<name>[A-Za-z_][\w-]*)"""
    r"""|\[\s*(?:'(?P<quoted>[^']*)'|(?P<index>-?\d{1,9})|(?P<all>\*))\s*\]"""
)

Step = str | int | None
"""The name of a field, the index of an item, or None for every item."""


@dataclass(frozen=True, slots=True)
class _Text:
    text: str


@dataclass(frozen=True, slots=True)
class _Path:
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class _Range:
    path: _Path
    body: tuple[_Node, ...]


_Node = _Text | _Path | _Range


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template."""

    nodes: tuple[_Node, ...]

    def render(self, document: Any) -> str:
        """The text for a document of dicts, lists and plain values; a missing field is "".

        Several values of one path are separated by a blank, as kubectl prints them.
        """
        return "".join(_render(self.nodes, document))


def parse(template: str) -> Template:
    """The template. ValueError says what is wrong with it."""
    if len(template) > MAX_TEMPLATE_LENGTH:
        raise ValueError(f"the template is longer than {MAX_TEMPLATE_LENGTH} characters")
    open_ranges: list[tuple[_Path, list[_Node]]] = []
    nodes: list[_Node] = []
    for piece in _pieces(template):
        if isinstance(piece, _Text):
            nodes.append(piece)
        elif piece == "end":
            if not open_ranges:
                raise ValueError("{end} without {range}")
            path, outer = open_ranges.pop()
            outer.append(_Range(path, tuple(nodes)))
            nodes = outer
        elif piece.startswith("range "):
            open_ranges.append((_path(piece.removeprefix("range ").strip()), nodes))
            nodes = []
        elif piece[:1] in ("'", '"'):
            nodes.append(_Text(_unquoted(piece)))
        else:
            nodes.append(_path(piece))
    if open_ranges:
        raise ValueError("{range} without {end}")
    return Template(tuple(nodes))


def _pieces(template: str) -> Iterator[_Text | str]:
    """Yield text, and the content of each pair of braces."""
    position = 0
    while position < len(template):
        found = _PIECE.match(template, position)
        if found is None:
            raise ValueError(f"a brace without its other at {template[position : position + 20]!r}")
        if found[2] is not None:
            yield _Text(found[2])
        else:
            yield found[1].strip()
        position = found.end()


def _unquoted(text: str) -> str:
    if text[0] == "'":
        return text[1:-1]
    try:
        found: str = json.loads(text)
    except ValueError:
        raise ValueError(f"{text} is not a quoted text") from None
    return found


def _path(text: str) -> _Path:
    """A path: ".pods[*].name", "$.pods", "pods", or "." and "@" for the whole."""
    rest = text.removeprefix("$").removeprefix("@")
    if rest in ("", "."):
        return _Path(())
    if rest[0] not in ".[":
        rest = f".{rest}"
    steps: list[Step] = []
    position = 0
    while position < len(rest):
        found = _STEP.match(rest, position)
        if found is None:
            raise ValueError(f"{rest[position:][:40]!r} of {text[:80]!r} is not understood")
        if found["index"] is not None:
            steps.append(int(found["index"]))
        elif found["all"]:
            steps.append(None)
        else:
            steps.append(found["name"] or found["quoted"])
        position = found.end()
    return _Path(tuple(steps))


def _render(nodes: Sequence[_Node], document: Any) -> Iterator[str]:
    for node in nodes:
        match node:
            case _Text():
                yield node.text
            case _Path():
                yield " ".join(map(_shown, _select(node.steps, document)))
            case _Range():
                for item in _select(node.path.steps, document):
                    yield from _render(node.body, item)


def _select(steps: Sequence[Step], document: Any) -> Iterator[Any]:
    """Yield the selected values; nothing if a field or an item is missing."""
    if not steps:
        yield document
        return
    step, *rest = steps
    for item in _children(step, document):
        yield from _select(rest, item)


def _children(step: Step, document: Any) -> Sequence[Any]:
    if step is None:
        if isinstance(document, dict):
            return list(document.values())
        return document if isinstance(document, list) else ()
    if isinstance(step, int):
        is_there = isinstance(document, list) and -len(document) <= step < len(document)
        return (document[step],) if is_there else ()
    return (document[step],) if isinstance(document, dict) and step in document else ()


def _shown(value: Any) -> str:
    """A text as it is, nothing for null, anything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
