"""The table in README.md names tests that exist, for every point."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SECTIONS = {1: 12, 2: 11, 3: 6, 4: 9, 5: 9, 6: 6, 7: 10}
WITHOUT_A_TEST = {"7.5"}


def rows() -> dict[str, list[str]]:
    text = (HERE / "README.md").read_text()
    found = re.findall(r"^\| (\d+\.\d+) \|.*\| (.*) \|$", text, re.MULTILINE)
    return {point: re.findall(r"`(\S+\.py::\w+)`", tests) for point, tests in found}


def test_every_point_has_a_row_with_a_test() -> None:
    points = [f"{part}.{number + 1}" for part, count in SECTIONS.items() for number in range(count)]
    assert list(rows()) == points
    assert {point for point, tests in rows().items() if not tests} == WITHOUT_A_TEST


def test_every_test_that_is_named_exists() -> None:
    for name in {name for tests in rows().values() for name in tests}:
        file, _, test = name.partition("::")
        path = ROOT / file if "/" in file else HERE / file
        assert re.search(rf"^(async )?def {test}\(", path.read_text(), re.MULTILINE), name
