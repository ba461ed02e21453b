"""Finds in the modules that mypyc compiles what it translates to something else.

python -m scripts.compiled   prints each place, and ends with 1 if there is one

`netutil:compiled` in setup.cfg names the modules. Each rule is a fault of mypyc 2.4 that was met:

- The name of an `except ... as` has one type in the whole function: a second `except` with the same
  name and another class raises TypeError when it catches.
- An `await` in an `except` or a `finally` leaves the error behind as the thread's, for ever: it and
  its frames are never freed, and each later error refers to it. `async with` has such an `await`.
- The `finally` of a generator that is dropped at a `yield` never runs.
"""

from __future__ import annotations

import ast
import configparser
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[1]
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_WAITS_LATE = "waits in an except or a finally"
_WAITS = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield, ast.YieldFrom)


def names() -> list[str]:
    """Return the names of the modules that are compiled."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return settings["netutil:compiled"]["modules"].split()


def modules() -> list[Path]:
    """Return the files of the modules that are compiled."""
    return [ROOT / f"{name.removeprefix('netutil.').replace('.', '/')}.py" for name in names()]


def faults(source: str) -> list[tuple[int, str]]:
    """Return the line and the words of each fault of a module."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, _Function)]
    found = {fault for one in functions for fault in (*_names(one), *_waits(one))}
    return sorted(found)


def _names(function: _Function) -> Iterator[tuple[int, str]]:
    first: dict[str, str] = {}
    for node in _own(function):
        if isinstance(node, ast.ExceptHandler) and node.name and node.type is not None:
            caught = ast.unparse(node.type)
            if first.setdefault(node.name, caught) != caught:
                yield node.lineno, f"{node.name} is {first[node.name]} before, and {caught} here"


def _waits(function: _Function) -> Iterator[tuple[int, str]]:
    for node in _own(function):
        if isinstance(node, ast.AsyncWith):
            yield node.lineno, _WAITS_LATE
        if isinstance(node, ast.Try | ast.TryStar):
            for inner in _within(node.handlers, node.finalbody):
                if isinstance(inner, _WAITS):
                    yield inner.lineno, _WAITS_LATE
        if isinstance(node, ast.With) or (
            isinstance(node, ast.Try | ast.TryStar) and node.finalbody
        ):
            for inner in _within(node.body):
                if isinstance(inner, ast.Yield | ast.YieldFrom):
                    yield inner.lineno, "yields before a finally"


def _within(*blocks: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Return the parts of blocks of code, and what is below each."""
    for part in chain.from_iterable(blocks):
        yield part
        yield from _own(part)


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """Return what is below a node, without the functions in it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _Function | ast.Lambda):
            yield child
            yield from _own(child)


def main() -> int:
    """Print the faults; return 1 if there are some."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {words}"
        for path in modules()
        for line, words in faults(path.read_text(encoding="utf-8"))
    ]
    print("\n".join(found) or "no fault in what mypyc compiles")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
