"""Draws the packages of the agent and what each imports: docs/imports.svg.

python -m scripts.picture           write the picture (needs graphviz)
python -m scripts.picture --check   exit 1 if its arrows are not those of the code

The rows are the layers of the import contract in setup.cfg. The modules that are in no package are
one box above the packages and one below. An import that a path of other arrows implies is not
drawn.
"""

from __future__ import annotations

import argparse
import configparser
import html
import itertools
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "imports.svg"
_AGENT = "netutil.agent"
_EDGE = re.compile(r"<title>([^<]+)&#45;&gt;([^<]+)</title>")
_STYLE = 'fontname="Helvetica" fontsize=12'
Rows = tuple[tuple[str, ...], ...]
"""The boxes by layer, the top one first."""
Edges = frozenset[tuple[str, str]]


def layers() -> Rows:
    """Return the modules and packages of the agent by layer, as the import contract has them."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = settings["importlinter:contract:layers"]["layers"].split("\n")
    return tuple(tuple(line.split(" | ")) for line in lines if line)


def boxes(rows: Rows, packages: frozenset[str]) -> Mapping[str, str]:
    """Return the box of each package and module: its own, or one of the two of modules."""
    first = min(at for at, row in enumerate(rows) if packages.intersection(row) - {"csi"})
    above: list[str] = []
    below: list[str] = []
    for at, row in enumerate(rows):
        (above if at < first else below).extend(name for name in row if name not in packages)
    found = {name: name for row in rows for name in row if name in packages}
    return found | dict.fromkeys(above, ", ".join(above)) | dict.fromkeys(below, ", ".join(below))


def imports(box_of: Mapping[str, str]) -> Edges:
    """Return which box imports which, without the imports that others imply."""
    graph = grimp.build_graph(_AGENT)
    found: dict[str, set[str]] = {box: set() for box in box_of.values()}
    for importer, imported in itertools.product(box_of, repeat=2):
        if box_of[importer] != box_of[imported] and _is_imported(graph, importer, imported):
            found[box_of[importer]].add(box_of[imported])
    return frozenset(
        (importer, imported)
        for importer, direct in found.items()
        for imported in direct
        if not any(_reaches(found, other, imported) for other in direct - {imported})
    )


def _is_imported(graph: grimp.ImportGraph, importer: str, imported: str) -> bool:
    importer, imported = f"{_AGENT}.{importer}", f"{_AGENT}.{imported}"
    return graph.direct_import_exists(importer=importer, imported=imported, as_packages=True)


def _reaches(found: Mapping[str, Iterable[str]], start: str, end: str) -> bool:
    return any(one == end or _reaches(found, one, end) for one in found[start])


def dot(rows: Rows, box_of: Mapping[str, str], edges: Edges) -> str:
    """Return the picture in the language of graphviz, each layer a row."""
    lines = [
        "digraph imports {",
        f"  node [shape=box style=filled fillcolor=white {_STYLE}]",
        "  rankdir=TB ranksep=0.35 nodesep=0.4",
    ]
    drawn: list[list[str]] = []
    for row in rows:
        new = list(dict.fromkeys(box_of[name] for name in row))
        new = [box for box in new if not any(box in other for other in drawn)]
        if new:
            drawn.append(new)
    for row_boxes in drawn:
        lines.append(f"  {{ rank=same; {'; '.join(map(_quoted, row_boxes))} }}")
        lines += (f"  {_quoted(box)} [label={_quoted(_label(box))}]" for box in row_boxes)
    for upper, lower in itertools.pairwise(drawn):
        lines.append(f"  {_quoted(upper[0])} -> {_quoted(lower[0])} [style=invis]")
    lines += (f"  {_quoted(one)} -> {_quoted(other)}" for one, other in sorted(edges))
    return "\n".join((*lines, "}")) + "\n"


def _label(box: str) -> str:
    """Return the names of a box on lines of four."""
    names = iter(box.split(", "))
    return ",\\n".join(", ".join(line) for line in iter(lambda: [*itertools.islice(names, 4)], []))


def _quoted(text: str) -> str:
    return f'"{text}"'


def drawn_edges(svg: str) -> Edges:
    """Return the arrows of a picture that graphviz has drawn."""
    return frozenset(
        (html.unescape(importer), html.unescape(imported))
        for importer, imported in _EDGE.findall(svg)
    )


def main() -> int:
    """Write or check the picture; return 1 if it differs from the code."""
    parser = argparse.ArgumentParser("python -m scripts.picture", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    arguments = parser.parse_args()
    rows = layers()
    packages = frozenset(path.parent.name for path in (ROOT / "agent").glob("*/__init__.py"))
    box_of = boxes(rows, packages)
    edges = imports(box_of)
    if arguments.check:
        drawn = drawn_edges(PICTURE.read_text(encoding="utf-8"))
        for importer, imported in sorted(edges ^ drawn):
            what = "is not in" if (importer, imported) in edges else "is only in"
            print(f"{importer} -> {imported} {what} docs/imports.svg: python -m scripts.picture")
        return 1 if edges != drawn else 0
    source = dot(rows, box_of, edges)
    picture = subprocess.run(
        ["dot", "-Tsvg"], input=source, text=True, capture_output=True, check=True
    ).stdout
    PICTURE.write_text(picture, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
