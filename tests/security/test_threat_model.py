"""Every attack in docs/threat-model.md names the tests that try it."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.support.repository import ROOT

ATTACK = re.compile(r"^- \*\*([A-Z]\d+)\*\* ", re.MULTILINE)
ROW = re.compile(r"^\| ([A-Z]\d+) \| `(tests/[\w/]+\.py)::(test_\w+)` \|$")


def section(heading: str) -> str:
    text = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows() -> list[tuple[str, str, str]]:
    """Attack, file and function of each line of the table of tests."""
    lines = section("Tests of the attacks").strip().splitlines()[2:]
    matches = [ROW.match(line) for line in lines]
    assert None not in matches
    return [(match[1], match[2], match[3]) for match in matches if match is not None]


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(function.name for function in functions)


def test_every_attack_has_an_identifier_and_a_test() -> None:
    attacks = ATTACK.findall(section("Attacks and defences"))
    items = re.findall(r"^- ", section("Attacks and defences"), re.MULTILINE)
    assert len(attacks) == len(items) == len(set(attacks))
    assert len(attacks) > 20
    assert set(attacks) == {attack for attack, _, _ in rows()}


@pytest.mark.parametrize(("attack", "path", "name"), rows())
def test_the_test_of_an_attack_exists(attack: str, path: str, name: str) -> None:
    assert name in functions_of(path), f"{attack}: {path}::{name}"


def test_every_attack_on_identity_is_in_the_model() -> None:
    named = {name for _, _, name in rows()}
    for path in sorted((ROOT / "tests/security/identity").glob("test_*.py")):
        tried = functions_of(str(path.relative_to(ROOT)))
        missing = {name for name in tried if name.startswith("test_")} - named
        assert missing <= set(VARIANTS), path.name


VARIANTS = (
    "test_every_method_refuses_what_is_no_pid",
    "test_leading_zeros_name_the_same_process",
)
"""Attacks that another test covers."""
