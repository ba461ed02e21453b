"""Every line of the threat model in docs/threat-model.md names the tests that try it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLUMNS = 4
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def lines_of_the_model() -> list[str]:
    text = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")
    section = text.partition("\n## Who may attack")[2].partition("\n## ")[0]
    table = section.partition("| attacker |")[2].partition("\n\n")[0]
    return table.splitlines()[2:]


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(function.name for function in functions)


def test_the_model_is_found() -> None:
    assert len(lines_of_the_model()) > 20


@pytest.mark.parametrize("line", lines_of_the_model())
def test_a_line_names_tests_that_there_are(line: str) -> None:
    cells = line.strip("|").split(" | ")
    assert len(cells) == COLUMNS
    named = NAMED.findall(cells[-1])
    assert named
    assert NAMED.sub("", cells[-1]).replace(",", "").strip() == ""
    for path, name in named:
        assert name in functions_of(path), f"{path}::{name}"


def test_every_attack_on_identity_is_in_the_model() -> None:
    named = {name for line in lines_of_the_model() for _, name in NAMED.findall(line)}
    for path in sorted((ROOT / "tests/hostile").glob("test_identity_*.py")):
        tried = functions_of(str(path.relative_to(ROOT)))
        missing = {name for name in tried if name.startswith("test_")} - named
        assert missing <= set(VARIANTS), path.name


VARIANTS = (
    "test_every_method_refuses_what_is_no_pid",
    "test_leading_zeros_name_the_same_process",
)
"""Of attacks that another test stands for."""
