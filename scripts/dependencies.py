"""Compares what each part of the repository imports with what setup.cfg declares for that part.

python -m scripts.dependencies   exit 1 if an import is not declared, or a declaration not imported

The plain distribution is the client library, the extra `cli` adds its command, `agent` the daemon;
tests, benchmarks and scripts have `dev` and `fuzz` besides. A string that `import_module` gets
counts as an import. The installed distributions say which of them has a module.
"""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
PLAIN = "plain"
OWN = ("netutil", "tests", "bench", "scripts", "_typeshed")
"""Not of a distribution: this repository, and what exists for type checkers only."""
# Tools that are run as commands, and what other tools load: no module imports these.
TOOLS = frozenset(
    {
        *("buf-bin", "build", "cyclonedx-bom", "import-linter", "mypy", "mypy-protobuf", "pdoc"),
        *(
            "pytest-asyncio",
            "pytest-cov",
            "pytest-timeout",
            "pytest-xdist",
            "ruff",
            "setuptools",
            "uv",
        ),
        *(
            "types-cachetools",
            "types-grpcio",
            "types-protobuf",
            "types-psutil",
            "types-pyyaml",
            "types-setuptools",
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Part:
    """Some files of the repository, and the declarations that their imports may use."""

    name: str
    paths: tuple[str, ...]
    declared: tuple[str, ...]
    """Names of extras, or `PLAIN`. The last one is the part's own: each entry must be imported."""
    excluded: tuple[str, ...] = ()


PARTS = (
    Part(
        "client library",
        ("client", "proto"),
        (PLAIN,),
        ("client/cli", "client/__main__.py", "client/documents.py", "client/examples"),
    ),
    Part(
        "command netutil",
        ("client/cli", "client/__main__.py", "client/documents.py"),
        (PLAIN, "cli"),
    ),
    Part("agent", ("agent",), (PLAIN, "agent")),
    Part(
        "tests, benchmarks and scripts",
        ("tests", "bench", "scripts", "client/examples"),
        (PLAIN, "cli", "agent", "fuzz", "dev"),
        ("tests/fuzz",),
    ),
    Part("fuzz targets", ("tests/fuzz",), (PLAIN, "cli", "agent", "dev", "fuzz")),
)


@dataclass(frozen=True, slots=True)
class Import:
    """A module that a file imports."""

    file: str
    line: int
    module: str


def normal(name: str) -> str:
    """Return a distribution's name as PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declarations(setup_cfg: str) -> dict[str, frozenset[str]]:
    """Return the distributions that each extra declares, by the text of setup.cfg."""
    parser = configparser.ConfigParser()
    parser.read_string(setup_cfg)
    extras = {PLAIN: parser["options"]["install_requires"]}
    extras |= dict(parser["options.extras_require"])
    return {extra: frozenset(_names(text)) for extra, text in extras.items()}


def _names(requirements: str) -> Iterator[str]:
    for line in requirements.splitlines():
        text = line.strip()
        if text and not text.startswith("#"):
            yield normal(re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0])


def imports_of(source: str, file: str) -> Iterator[Import]:
    """Yield each module that a source imports absolutely. SyntaxError if it is malformed."""
    for node in ast.walk(ast.parse(source, file)):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(file, node.lineno, alias.name)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                # What is imported may itself be a module: google.rpc has no code of its own.
                for alias in names:
                    yield Import(file, node.lineno, f"{module}.{alias.name}")
            case ast.Call(
                func=ast.Name("import_module")
                | ast.Attribute(attr="import_module" | "importorskip"),
                args=[ast.Constant(str(module)), *_],
            ):
                yield Import(file, node.lineno, module)
            case _:
                pass


def owners(installed: Iterable[Distribution]) -> dict[str, str]:
    """Return the distribution that has each module or package, by the dotted name.

    Packages that several distributions share (google) are in the result only if one has their
    `__init__`.
    """
    found: dict[str, str] = {}
    for distribution in installed:
        for file in distribution.files or ():
            path = PurePosixPath(str(file))
            name = path.name.partition(".")[0]
            if path.suffix not in (".py", ".so", ".pyi") or path.parts[0] in ("..", "/"):
                continue
            parts = path.parts[:-1] if name == "__init__" else (*path.parts[:-1], name)
            found[".".join(parts)] = normal(distribution.name)
    return found


def owner_of(module: str, by_module: Mapping[str, str]) -> str | None:
    """Return the distribution of a module, by its longest known prefix; None if there is none.

    A namespace package belongs to the distribution that has all modules in it, if one has.
    """
    parts = module.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    for prefix in prefixes:
        if prefix in by_module:
            return by_module[prefix]
    below = {owner for name, owner in by_module.items() if name.startswith(f"{module}.")}
    return below.pop() if len(below) == 1 else None


def files_of(part: Part, root: Path) -> list[Path]:
    """Return the Python files of a part, in order. FileNotFoundError if a path is missing."""
    found: set[Path] = set()
    for name in part.paths:
        path = root / name
        if not path.exists():
            raise FileNotFoundError(path)
        found.update(path.rglob("*.py") if path.is_dir() else [path])
    excluded = [root / name for name in part.excluded]
    return sorted(path for path in found if not any(path.is_relative_to(one) for one in excluded))


def findings(
    parts: Iterable[Part],
    root: Path,
    declared: Mapping[str, frozenset[str]],
    by_module: Mapping[str, str],
) -> list[str]:
    """Return a line for each undeclared import, and for each declaration without an import."""
    lines: list[str] = []
    used: dict[str, set[str]] = {extra: set() for extra in declared}
    for part in parts:
        allowed = frozenset[str]().union(*(declared[extra] for extra in part.declared))
        for path in files_of(part, root):
            file = path.relative_to(root).as_posix()
            for one in imports_of(path.read_text(encoding="utf-8"), file):
                top = one.module.partition(".")[0]
                if top in sys.stdlib_module_names or top in OWN:
                    continue
                owner = owner_of(one.module, by_module)
                if owner is None and normal(top) in allowed:
                    owner = normal(top)  # an extra that is not installed here, as `fuzz`
                place = f"{file}:{one.line}: {one.module}"
                if owner is None:
                    lines.append(f"{place}: no installed distribution has this module")
                elif owner not in allowed:
                    lines.append(f"{place}: {owner} is not declared for the {part.name}")
                else:
                    used[part.declared[-1]].add(owner)
    for extra, names in declared.items():
        lines += [
            f"setup.cfg: {extra} declares {name}, and no module for which {extra} is imports that"
            for name in sorted(names - used[extra] - TOOLS)
        ]
    return lines


def main() -> int:
    """Print the findings; return 1 if there are any."""
    declared = declarations((ROOT / "setup.cfg").read_text(encoding="utf-8"))
    lines = findings(PARTS, ROOT, declared, owners(distributions()))
    for line in lines:
        print(line)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
