"""The check finds rows that exceed their record or bound, and recognizes a busy machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import check
from bench.__main__ import PARTS, Results
from bench.bounds import BOUNDS
from bench.rows import Row

MET, MISS = "kept.GetPod.p50", "kept.GetAll.p50"
"""Their bounds are 0.5 and 2."""
RATE, UNBOUND, ABSOLUTE = "throughput.GetAll", "refresh.110", "watch.110.memory"
RECORDED = {MET: 0.42, MISS: 6.0, RATE: 0.5, UNBOUND: 1.2, ABSOLUTE: 40.0}


def test_an_unchanged_value_is_no_failure() -> None:
    assert check.failures(RECORDED, RECORDED) == {}


def test_within_the_margin_a_row_may_be_dearer() -> None:
    now = {key: value * 1.34 for key, value in RECORDED.items()}
    now |= {RATE: 0.5 / 1.34, MET: 0.42 * 1.25}
    assert check.failures(now, RECORDED) == {}


def test_a_dearer_call_fails_and_the_row_is_named() -> None:
    assert check.failures({**RECORDED, UNBOUND: 2.4}, RECORDED) == {
        UNBOUND: "is 2.00 x dearer than recorded"
    }


def test_fewer_calls_a_second_fail_and_more_do_not() -> None:
    assert list(check.failures({**RECORDED, RATE: 0.25}, RECORDED)) == [RATE]
    assert check.failures({**RECORDED, RATE: 1.0}, RECORDED) == {}


def test_a_bound_that_was_met_has_to_be_met_still() -> None:
    assert check.failures({**RECORDED, MET: 0.56}, RECORDED) == {
        MET: "is 0.56, and its bound, ≤ 0.5, was met when recorded"
    }


def test_a_known_miss_may_not_become_worse() -> None:
    assert check.failures({**RECORDED, MISS: 7.9}, RECORDED) == {}
    assert check.failures({**RECORDED, MISS: 8.4}, RECORDED) == {
        MISS: "is 1.40 x dearer than recorded"
    }


def test_values_of_the_machine_are_not_compared() -> None:
    assert check.failures({**RECORDED, ABSOLUTE: 4000.0}, RECORDED) == {}


def test_a_row_that_is_not_measured_any_more_fails() -> None:
    now = {key: value for key, value in RECORDED.items() if key != MET}
    assert check.failures(now, RECORDED) == {MET: "is recorded, and was not measured"}


def test_a_row_that_is_not_recorded_fails() -> None:
    now = {**RECORDED, "own-pid.GetEnv.p50": 0.1}
    assert check.failures(now, RECORDED) == {
        "own-pid.GetEnv.p50": "is not recorded: make bench-record"
    }


def test_each_row_is_recorded_by_whether_it_meets_its_bound(tmp_path: Path) -> None:
    recorded = check.sections({MET: 0.42, MISS: 6.0, RATE: 0.5})
    assert recorded == {
        "bounds met": {MET: 0.42},
        "known misses": {MISS: 6.0},
        "without a bound": {RATE: 0.5},
    }
    path = tmp_path / "recorded.json"
    path.write_text(json.dumps(recorded))
    assert check.read(path) == {MET: 0.42, MISS: 6.0, RATE: 0.5}


def test_a_record_of_other_bounds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recorded.json"
    path.write_text(json.dumps({"bounds met": {MET: 0.7}, "known misses": {}}))
    with pytest.raises(ValueError, match="bench-record"):
        check.read(path)


def test_the_record_of_this_tree_is_by_its_bounds() -> None:
    recorded = check.read(check.RECORDED)
    assert all(check.compared(key) for key in recorded)


def test_the_parts_that_are_compared_are_parts_of_the_bench() -> None:
    assert {one.part for one in check._COMPARED} <= PARTS.keys()


class Runs:
    """A double of the bench: returns one row, each time with the next of the values."""

    def __init__(self, values: list[float]) -> None:
        self.values: Iterator[float] = iter(values)
        self.parts: list[list[str]] = []

    def __call__(self, parts: list[str], *, quick: bool) -> Results:
        assert quick
        self.parts.append(parts)
        return Results([Row(UNBOUND, "a refresh", "a load", next(self.values))])


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
    tmp_path: Path,
) -> None:
    recorded, runs = tmp_path / "recorded.json", Runs(values)
    recorded.write_text(json.dumps(check.sections({UNBOUND: 1.2})))
    monkeypatch.setattr(check, "RECORDED", recorded)
    monkeypatch.setattr(check, "measure", runs)
    monkeypatch.setattr("sys.argv", ["check"])
    assert check.main() == code
    assert len(runs.parts) == made
    assert all(parts == ["lists"] for parts in runs.parts[1:])


def test_an_unchanged_known_miss_is_named_and_does_not_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = tmp_path / "recorded.json"
    recorded.write_text(json.dumps(check.sections({MISS: 6.0})))
    monkeypatch.setattr(check, "RECORDED", recorded)
    rows = Results([Row(MISS, "GetAll", "the echo", 6.1)])
    monkeypatch.setattr(check, "measure", lambda *_, **__: rows)
    monkeypatch.setattr("sys.argv", ["check"])
    assert check.main() == 0
    assert f"known miss: {MISS} 6.00, bound {BOUNDS[MISS]}" in capsys.readouterr().out


def test_three_runs_are_recorded_by_their_median(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recorded = tmp_path / "recorded.json"
    monkeypatch.setattr(check, "RECORDED", recorded)
    monkeypatch.setattr(check, "measure", Runs([1.0, 9.0, 2.0]))
    monkeypatch.setattr("sys.argv", ["check", "--record"])
    assert check.main() == 0
    assert check.read(recorded) == {UNBOUND: 2.0}
