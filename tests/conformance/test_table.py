"""The table in README.md names tests that exist, for every point."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SECTIONS = {1: 12, 2: 11, 3: 6, 4: 9, 5: 9, 6: 6, 7: 10}
WITHOUT_A_TEST = {"7.5"}
CASES_OF_H2SPEC = 147
H2SPEC = {
    "generic": {
        "1": 1,
        "2": 5,
        "3.1": 3,
        "3.2": 3,
        "3.3": 5,
        "3.4": 1,
        "3.5": 1,
        "3.7": 1,
        "3.8": 1,
        "3.9": 2,
        "3.10": 2,
        "4": 4,
        "5": 15,
    },
    "hpack": {"2.3.3": 2, "4.2": 1, "5.2": 3, "6.1": 1, "6.3": 1},
    "http2": {
        "3.5": 2,
        "4.1": 3,
        "4.2": 3,
        "4.3": 3,
        "5.1": 13,
        "5.1.1": 2,
        "5.1.2": 1,
        "5.3.1": 2,
        "5.4.1": 2,
        "5.5": 2,
        "6.1": 3,
        "6.2": 4,
        "6.3": 2,
        "6.4": 3,
        "6.5": 3,
        "6.5.2": 5,
        "6.5.3": 2,
        "6.7": 4,
        "6.8": 1,
        "6.9": 3,
        "6.9.1": 3,
        "6.9.2": 3,
        "6.10": 6,
        "7": 2,
        "8.1": 1,
        "8.1.2": 1,
        "8.1.2.1": 4,
        "8.1.2.2": 2,
        "8.1.2.3": 7,
        "8.1.2.6": 2,
        "8.2": 1,
    },
}
"""How many cases each section of h2spec 2.6.0 has, its strict one among them."""


def rows() -> dict[str, list[str]]:
    text = (HERE / "README.md").read_text()
    found = re.findall(r"^\| (\d+\.\d+) \|.*\| (.*) \|$", text, re.MULTILINE)
    return {point: re.findall(r"`(\S+\.py::\w+)`", tests) for point, tests in found}


def test_every_point_has_a_row_with_a_test() -> None:
    points = [f"{part}.{number + 1}" for part, count in SECTIONS.items() for number in range(count)]
    assert list(rows()) == points
    assert {point for point, tests in rows().items() if not tests} == WITHOUT_A_TEST


def h2spec_rows() -> list[tuple[str, range, str]]:
    """Section, numbers and test of each row of the cases of h2spec."""
    text = (HERE / "README.md").read_text()
    found = re.findall(r"^\| (\w+ [\d.]+)/(\d+)(?:-(\d+))? \| `(.*)` \|$", text, re.MULTILINE)
    return [
        (section, range(int(first), int(last or first) + 1), test)
        for section, first, last, test in found
    ]


def test_every_case_of_h2spec_has_a_test() -> None:
    cases = [f"{section}/{number}" for section, numbers, _ in h2spec_rows() for number in numbers]
    expected = {
        f"{part} {section}/{number + 1}"
        for part, sections in H2SPEC.items()
        for section, count in sections.items()
        for number in range(count)
    }
    assert len(cases) == len(expected) == CASES_OF_H2SPEC
    assert set(cases) == expected


def test_every_test_that_is_named_exists() -> None:
    named = {name for tests in rows().values() for name in tests}
    for name in named | {test for _, _, test in h2spec_rows()}:
        file, _, test = name.partition("::")
        path = ROOT / file if "/" in file else HERE / file
        assert re.search(rf"^(async )?def {test}\(", path.read_text(), re.MULTILINE), name
