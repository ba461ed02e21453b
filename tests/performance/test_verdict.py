"""The verdict of `make hostile` on its runs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.performance.outcome import Call, Held, Outcome, Phase, Usual
from tests.performance.verdict import Run, Verdict, run_of, runs_wanted

GOOD = Run(ratio=1.2, failed=0, left_bytes=0, left_descriptors=0, left_cores=0.0, left_ratio=1.0)
SLOW, VERY_SLOW = replace(GOOD, ratio=2.1), replace(GOOD, ratio=5.1)
MEBIBYTE = 2**20


def faults(*runs: Run) -> tuple[str, ...]:
    return Verdict("attack", runs).faults


def phase(
    seconds: float, *, failed: int = 0, held: Held | None = None, cpu_cores: float = 0.1
) -> Phase:
    calls = [Call(kind, 0.0, seconds) for kind in ("kept", "new") for _ in range(50)]
    calls += [Call("echo", 0.0, 0.001)] * 50 + [Call("new", 0.0, math.inf)] * failed
    found = held or Held(50 * MEBIBYTE, 40, 5)
    return Phase(tuple(calls), found, found, cpu_cores, 0.0)


def test_runs_within_the_bounds_have_no_fault() -> None:
    assert faults(*[GOOD] * 5) == ()


@pytest.mark.parametrize(
    ("runs", "found"),
    [
        ([GOOD] * 19 + [SLOW], ()),
        ([GOOD] * 18 + [SLOW] * 2, ("past 2 x",)),
        ([GOOD] * 4 + [SLOW], ("past 2 x",)),
        ([GOOD] * 19 + [VERY_SLOW], ("past 5 x",)),
        ([VERY_SLOW], ("past 2 x", "past 5 x")),
    ],
)
def test_one_run_of_twenty_may_exceed_the_usual_bound_only(
    runs: list[Run], found: tuple[str, ...]
) -> None:
    assert faults(*runs) == found


def test_a_failed_call_is_past_both_bounds() -> None:
    assert faults(replace(GOOD, failed=1)) == ("past 2 x", "past 5 x")


def test_an_attack_with_one_run_past_the_bound_is_repeated() -> None:
    assert runs_wanted([], 5) == 5
    assert runs_wanted([GOOD] * 5, 5) == 5
    assert runs_wanted([GOOD, SLOW], 5) == 20
    assert runs_wanted([*[GOOD] * 4, VERY_SLOW, *[GOOD] * 3], 5) == 20


def test_a_leak_of_one_run_is_a_fault_but_its_cpu_time_is_none() -> None:
    assert faults(GOOD, GOOD, replace(GOOD, left_descriptors=21)) == ("descriptors left",)
    assert faults(GOOD, GOOD, replace(GOOD, left_bytes=33 * MEBIBYTE)) == ("memory left",)
    busy = replace(GOOD, left_cores=0.5)
    assert faults(GOOD, GOOD, busy) == ()
    assert faults(GOOD, busy, busy) == ("CPU left",)


def test_the_rests_of_all_runs_are_summed() -> None:
    before, grown = Held(50 * MEBIBYTE, 40, 5), Held(70 * MEBIBYTE, 50, 5)
    more = Held(90 * MEBIBYTE, 70, 5)
    first = Outcome("a", phase(0.001, held=before), phase(0.001), phase(0.001, held=grown))
    second = Outcome("a", phase(0.001, held=grown), phase(0.001), phase(0.001, held=more))
    found = run_of(second, first)
    assert (found.left_bytes, found.left_descriptors) == (40 * MEBIBYTE, 30)


@pytest.mark.parametrize("quiet", [(0.001, 0.002), (0.002, 0.001)])
def test_the_ratio_is_to_the_quieter_phase(quiet: tuple[float, float]) -> None:
    before, after = quiet
    outcome = Outcome("a", phase(before), phase(0.004), phase(after))
    assert outcome.worst_ratio == pytest.approx(4.0)


def test_calls_that_stay_slow_after_most_runs_are_a_fault() -> None:
    slow = Outcome("a", phase(0.001), phase(0.001), phase(0.003))
    found = run_of(slow, slow)
    assert found.left_ratio == pytest.approx(3.0)
    assert faults(found, found, GOOD) == ("slower after it",)
    assert faults(found, GOOD, GOOD) == ()


def test_an_unmeasured_value_is_past_every_bound() -> None:
    good, silent = phase(0.001), replace(phase(0.001), calls=())
    no_echo = replace(good, calls=tuple(call for call in good.calls if call.kind != "echo"))
    for outcome in (
        Outcome("a", silent, good, silent),
        Outcome("a", good, silent, good),
        Outcome("a", good, no_echo, good),
        Outcome("a", no_echo, good, no_echo),
    ):
        assert outcome.worst_ratio == math.inf
    assert run_of(Outcome("a", good, good, silent), Outcome("a", good, good, good)).left_ratio == (
        math.inf
    )


def test_a_quiet_phase_differs_from_a_busy_one() -> None:
    usual = Usual()
    assert not usual.is_exceeded_by(phase(0.1))
    for seconds in (0.001, 0.1, 0.002):
        usual.add(phase(seconds))
    assert not usual.is_exceeded_by(phase(0.004))
    assert usual.is_exceeded_by(phase(0.005))


def test_calls_that_fail_after_the_attack_count() -> None:
    outcome = Outcome("a", phase(0.001), phase(0.001), phase(0.001, failed=2))
    assert run_of(outcome, outcome).failed == 2


def test_the_row_says_how_many_runs_were_past_and_what_is_wrong() -> None:
    row = Verdict("ping", (*[GOOD] * 3, SLOW)).line()
    found = " ".join(row.split())
    assert found == "ping | 4 | 1 25 % | 0 0 % | 1.2 2.1 | 0 | 0.0 0 0 1.0 | past 2 x"
