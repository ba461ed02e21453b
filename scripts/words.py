"""Examines the words of the repository, and the names of its tests.

python -m scripts.words   exit 1 if a file has a word of scripts/words.toml, a test has a name of
more than 60 characters or without a subject at its beginning, or a text refers to a test that does
not exist

A test is a function of a file below `tests`. A text is a page, or a file of the code outside of
`tests`. What others wrote is not examined: generated code, and recordings.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAX_NAME = 60
"""Characters of a test's name."""
_NO_SUBJECTS = frozenset({"of", "that", "what", "whatever", "which", "who", "whose"})
"""A clause or a preposition in place of the component that the test is about."""
_SUFFIXES = frozenset(
    {".c", ".cc", ".cfg", ".go", ".js", ".md", ".proto", ".py", ".sh", ".toml", ".tpl", ".yaml"}
)
_FOLDERS = ("agent", "bench", "client", "docs", "manifests", "proto", "scripts", "tests")
_FILES = (".ci/run", "Dockerfile", "Makefile")
_OF_OTHERS = ("client/examples/go/netutilpb/", "tests/recorded/", "scripts/words.toml")
_GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$")
_CAMEL_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_REFERENCE = re.compile(r"\btest_[a-z0-9_]*[a-z0-9]\b(?!\*)")


@dataclass(frozen=True, slots=True)
class Words:
    """The words that no file has."""

    pattern: re.Pattern[str]
    """One group for each of `advice`, in order."""
    advice: tuple[str, ...]
    exceptions: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class NamedTest:
    """A test function."""

    file: str
    line: int
    name: str


def read_words(text: str) -> Words:
    """Return the words of a TOML document. KeyError or ValueError if it is malformed."""
    document = tomllib.loads(text)
    words: Mapping[str, str] = document["words"]
    groups = "|".join(f"({word})" for word in words)
    pattern = re.compile(rf"(?<![a-z])(?:{groups})(?![a-z])", re.IGNORECASE)
    if not words or pattern.groups != len(words):
        raise ValueError("[words] has no word, or one with a group of its own")
    exceptions = "|".join(re.escape(one) for one in document["exceptions"])
    return Words(pattern, tuple(words.values()), re.compile(exceptions or r"(?!)"))


def files(root: Path) -> Iterator[Path]:
    """Yield the files that are examined. FileNotFoundError if a folder or file is missing."""
    for name in _FILES:
        yield root / name
    for path in sorted(root.iterdir()):
        if path.is_file() and path.suffix in _SUFFIXES:
            yield path
    for name in _FOLDERS:
        if not (root / name).is_dir():
            raise FileNotFoundError(root / name)
        for path in sorted((root / name).rglob("*")):
            file = path.relative_to(root).as_posix()
            if path.suffix in _SUFFIXES and path.is_file() and not _is_of_others(file):
                yield path


def _is_of_others(file: str) -> bool:
    return file.startswith(_OF_OTHERS) or _GENERATED.search(file) is not None


def word_findings(text: str, file: str, words: Words) -> list[str]:
    """Return a line for each word of a text that is in the list."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        spaced = _CAMEL_CASE.sub(" ", words.exceptions.sub(" ", line)).replace("_", " ")
        for match in words.pattern.finditer(spaced):
            advice = words.advice[(match.lastindex or 0) - 1]
            found.append(f"{file}:{number}: {match[0]}: use another word ({advice})")
    return found


def named_tests(source: str, file: str) -> Iterator[NamedTest]:
    """Yield the test functions of a source, also those of classes. SyntaxError if malformed."""
    for node in ast.walk(ast.parse(source, file)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if name.startswith("test_"):
                    yield NamedTest(file, node.lineno, name)
            case _:
                pass


def name_findings(tests: list[NamedTest]) -> list[str]:
    """Return a line for each name that is too long, or that does not begin with a subject."""
    found = []
    for one in tests:
        place = f"{one.file}:{one.line}: {one.name}"
        if len(one.name) > MAX_NAME:
            found.append(f"{place} has {len(one.name)} characters, more than {MAX_NAME}")
        if one.name.split("_")[1] in _NO_SUBJECTS:
            found.append(f"{place} does not begin with its subject")
    return found


def reference_findings(text: str, file: str, known: frozenset[str]) -> list[str]:
    """Return a line for each reference of a text to a test, or file of tests, that is not known."""
    return [
        f"{file}:{number}: no test, and no file of tests, has the name {name}"
        for number, line in enumerate(text.splitlines(), 1)
        for name in _REFERENCE.findall(line)
        if name not in known
    ]


def findings(root: Path) -> list[str]:
    """Return a line for each finding. OSError or ValueError if a file cannot be read."""
    words = read_words((root / "scripts" / "words.toml").read_text(encoding="utf-8"))
    texts = {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in files(root)
    }
    of_tests = {file: text for file, text in texts.items() if _is_of_tests(file)}
    tests = [one for file, text in of_tests.items() for one in named_tests(text, file)]
    known = frozenset(one.name for one in tests) | {Path(file).stem for file in of_tests}
    found = name_findings(tests)
    for file, text in texts.items():
        found += word_findings(text, file, words)
        if file not in of_tests:
            found += reference_findings(text, file, known)
    return found


def _is_of_tests(file: str) -> bool:
    return file.startswith("tests/") and file.endswith(".py")


def main() -> int:
    """Print the findings and return the exit status."""
    found = findings(ROOT)
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
