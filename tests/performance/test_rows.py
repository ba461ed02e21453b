"""The table says of each bound whether it is met, and a bound without a figure is found."""

from __future__ import annotations

import pytest

from bench.bounds import BOUNDS, Bound
from bench.rows import Row, ratio, summary, table, without_row

SLOW = Row("kept.GetPod.p50", "a call", "an echo", 2.0)
FEW = Row("throughput.GetPod", "calls a second", "an echo", 0.5)
FAST = Row("kept.GetAll.p50", "all", "an echo", 1.5, note="a note")
UNBOUND = Row("kept.GetPod.cpu", "no bound", "an echo", 3.0)


def test_a_ratio_is_the_median_over_slices_with_its_spread() -> None:
    row = ratio("kept.GetAll.p50", "what", "against", [2.0, 9.0, 6.0], [2.0, 3.0, 3.0])
    assert (row.value, row.least, row.most, row.holds) == (2.0, 1.0, 3.0, True)


def test_the_table_says_which_bound_is_missed() -> None:
    lines = table([SLOW, FEW, FAST, UNBOUND]).split("\n")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert [row[4:6] for row in cells] == [
        ["≤ 0.5", "MISS"],
        ["≥ 2.5", "MISS"],
        ["≤ 2", "pass"],
        ["", ""],
    ]


def test_the_columns_of_the_table_are_aligned() -> None:
    lines = table([SLOW, FEW, FAST, UNBOUND]).split("\n")
    places = [[i for i, sign in enumerate(line) if sign == "|"][:-1] for line in lines]
    assert all(one == places[0] for one in places)


def test_the_summary_counts_rows_with_a_bound() -> None:
    assert summary([SLOW, FEW, FAST, UNBOUND]) == "1 of 3 bounds are met"


def test_a_bound_without_a_row_is_named() -> None:
    rows = [Row(key, "what", "against", 1.0) for key in BOUNDS if key != "held.memory"]
    assert without_row(rows) == ["held.memory"]


def test_a_row_is_kept_as_json_with_its_bound() -> None:
    kept = FEW.as_json()
    assert (kept["key"], kept["value"]) == ("throughput.GetPod", 0.5)
    assert (kept["bound"], kept["at_least"], kept["holds"]) == (2.5, True, False)
    assert UNBOUND.as_json()["bound"] is UNBOUND.as_json()["holds"] is None


@pytest.mark.parametrize(
    ("bound", "value", "met", "almost"),
    [
        (Bound(2.0), 2.0, True, True),
        (Bound(2.0), 2.1, False, True),
        (Bound(2.0), 2.3, False, False),
        (Bound(2.0, at_least=True), 2.0, True, True),
        (Bound(2.0, at_least=True), 1.9, False, True),
        (Bound(2.0, at_least=True), 1.7, False, False),
    ],
)
def test_a_bound_is_met_up_to_its_value(
    bound: Bound, value: float, met: bool, almost: bool
) -> None:
    assert bound.met_by(value) is met
    assert bound.met_by(value, tolerance=1.1) is almost
