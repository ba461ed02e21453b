"""Writes the API reference of the Python client as HTML, from its docstrings, with pdoc.

python -m scripts.reference DIRECTORY

Documents what `netutil.client` exports, with the members that these classes inherit; a warning of
pdoc (a name or annotation that does not resolve) is an error. A class, method or function without
a docstring is one, too.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import netutil.client
import pdoc
from pdoc.doc import Class, Function, Module

NAME = "netutil.client"
# Private attributes: grpc's classes have parameters in the type checker's stubs only. `__init__` of
# a NamedTuple: Python keeps its annotations without their module. The fields are resolved.
_UNRESOLVED = r"Error parsing type annotation .* for netutil\.client\.[\w.]+\._\w+[:.]"


def load() -> Module:
    """Return the documented module, with the classes that load at their first use.

    Raises UserWarning if pdoc cannot resolve a name or an annotation.
    """
    for name in netutil.client.__all__:
        # pdoc looks for members in the dictionary of the module.
        setattr(netutil.client, name, getattr(netutil.client, name))
    return Module(netutil.client)


def undocumented(module: Module) -> list[str]:
    """Return the exported classes, methods and functions that have no docstring."""
    return [one.fullname for one in _members(module) if not one.docstring.strip()]


def _members(namespace: Module | Class) -> Iterator[Class | Function]:
    for one in namespace.members.values():
        if one.name.startswith("_"):
            continue
        if isinstance(one, Class):
            yield one
            yield from _members(one)
        elif isinstance(one, Function):
            yield one


def write(module: Module, directory: Path) -> None:
    """Write the pages into a directory. UserWarning as for `load`."""
    pdoc.render.configure(docformat="markdown", search=False)
    directory.mkdir(parents=True, exist_ok=True)
    page = pdoc.render.html_module(module, all_modules={NAME: module})
    (directory / "index.html").write_text(page, encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """Write the reference; 1 with the names on standard error if docstrings are missing."""
    (directory,) = arguments
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", _UNRESOLVED)
        module = load()
        write(module, Path(directory))
    missing = undocumented(module)
    for name in missing:
        print(f"{name} has no docstring", file=sys.stderr)
    if missing:
        return 1
    print(Path(directory, "index.html"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
