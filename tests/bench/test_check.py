"""What became dearer is found, and a busy machine is not taken for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from bench import check
from bench.rows import Row, ratio, table

RECORDED = {"kept.GetPod.p50": 1.2, "throughput.GetAll": 0.5, "watch.110.memory": 40.0}


def test_what_is_as_it_was_is_no_failure() -> None:
    assert check.failures(RECORDED, RECORDED) == {}


def test_within_the_margin_a_row_may_be_dearer() -> None:
    now = {key: value * 1.34 for key, value in RECORDED.items()}
    now["throughput.GetAll"] = 0.5 / 1.34
    assert check.failures(now, RECORDED) == {}


def test_a_dearer_call_fails_and_the_row_is_named() -> None:
    assert check.failures({**RECORDED, "kept.GetPod.p50": 2.4}, RECORDED) == {
        "kept.GetPod.p50": pytest.approx(2.0)
    }


def test_fewer_calls_a_second_fail_and_more_do_not() -> None:
    fewer = check.failures({**RECORDED, "throughput.GetAll": 0.25}, RECORDED)
    assert fewer == {"throughput.GetAll": pytest.approx(2.0)}
    assert check.failures({**RECORDED, "throughput.GetAll": 1.0}, RECORDED) == {}


def test_what_only_the_machine_decides_is_not_compared() -> None:
    assert check.failures({**RECORDED, "watch.110.memory": 4000.0}, RECORDED) == {}


def test_a_row_that_is_not_measured_any_more_fails() -> None:
    now = {key: value for key, value in RECORDED.items() if key != "kept.GetPod.p50"}
    assert check.failures(now, RECORDED) == {"kept.GetPod.p50": float("inf")}


class Runs:
    """Stands for the bench: gives one row, with the next of the values each time."""

    def __init__(self, values: list[float]) -> None:
        self.values: Iterator[float] = iter(values)
        self.made = 0

    def __call__(self, parts: list[str], *, quick: bool) -> dict[str, Any]:
        assert parts == ["calls"]
        assert quick
        self.made += 1
        return {"rows": [{"key": "kept.GetPod.p50", "value": next(self.values)}]}


@pytest.mark.parametrize(
    ("values", "code", "made"),
    [([1.2], 0, 1), ([9.0, 1.2], 0, 2), ([9.0, 9.0, 9.0], 1, 3)],
    ids=["as it was", "once dearer", "always dearer"],
)
def test_only_what_is_dearer_each_time_fails(
    values: list[float],
    code: int,
    made: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    recorded, runs = tmp_path / "recorded.json", Runs(values)
    recorded.write_text(json.dumps({"kept.GetPod.p50": 1.2}))
    monkeypatch.setattr(check, "RECORDED", recorded)
    monkeypatch.setattr(check, "measure", runs)
    monkeypatch.setattr("sys.argv", ["check"])
    assert check.main() == code
    assert runs.made == made


def test_a_ratio_is_the_median_over_slices_with_its_spread() -> None:
    row = ratio("key", "what", "against", [2.0, 9.0, 6.0], [2.0, 3.0, 3.0], bound=2.0)
    assert (row.value, row.least, row.most, row.holds) == (2.0, 1.0, 3.0, True)


def test_the_table_says_which_bound_is_not_met() -> None:
    slow = Row("a", "a call", "an echo", 2.0, bound=1.25)
    few = Row("b", "calls a second", "an echo", 0.5, bound=0.85, at_least=True)
    lines = table([slow, few, Row("c", "no bound", "an echo", 3.0)]).split("\n")
    assert "≤ 1.25: **not met**" in lines[2]
    assert "≥ 0.85: **not met**" in lines[3]
    assert "met" not in lines[4]
