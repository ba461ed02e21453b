"""Decides whether an attack costs the other pods too much, or leaves something. Pure.

One run proves nothing: an attack that does harm in one run of three may be harmless in the next.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tests.performance.outcome import Outcome

USUAL_RATIO, MAX_RATIO = 2.0, 5.0
"""Times the quiet p99: in all runs but one of twenty, and in all."""
RUNS_FOR_ONE_PAST = 20
EXTENSION = 4
"""So many times the runs, where one of the first was past the usual bound."""
MAX_LEFT_DESCRIPTORS = 20
"""More than before the first run, seconds after one: the calls of the quiet pods differ."""
MAX_LEFT_BYTES = 32 * 2**20
"""An allocator keeps some; what grows with each run passes this."""
MAX_LEFT_CORES = 0.15
MAX_LEFT_RATIO = 2.0
"""The median of the other pods' calls, some seconds after a run and before the first."""
_MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Run:
    """One run: how much longer the other pods waited, and what was left some seconds after.

    What is left counts from before the first run, so that what each run adds is summed.
    """

    ratio: float
    failed: int
    left_bytes: int
    left_descriptors: int
    left_cores: float
    left_ratio: float

    @property
    def is_past_usual(self) -> bool:
        """Whether it cost more than it usually may."""
        return self.ratio > USUAL_RATIO or self.is_past_most

    @property
    def is_past_most(self) -> bool:
        """Whether it cost more than it ever may; a call that failed does."""
        return self.ratio > MAX_RATIO or self.failed > 0


def run_of(outcome: Outcome, first: Outcome) -> Run:
    """Return what of an outcome is judged; `first` is that of the attack's first run."""
    return Run(
        outcome.worst_ratio,
        outcome.failed,
        outcome.after.pss_bytes - first.before.pss_bytes,
        outcome.after.descriptors - first.before.descriptors,
        outcome.again.cpu_cores - first.quiet.cpu_cores,
        max(outcome.slower(first, kind) for kind in ("kept", "new")),
    )


def runs_wanted(runs: Sequence[Run], repeat: int) -> int:
    """Return how many runs there should be in all, after those that were."""
    return EXTENSION * repeat if any(run.is_past_usual for run in runs[:repeat]) else repeat


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of all runs of one attack."""

    name: str
    runs: tuple[Run, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """Return what is past a bound, in words; empty if all is well."""
        checks = {
            f"past {USUAL_RATIO:g} x": self.past_usual > len(self.runs) // RUNS_FOR_ONE_PAST,
            f"past {MAX_RATIO:g} x": self.past_most > 0,
            "memory left": self.left_bytes > MAX_LEFT_BYTES,
            "descriptors left": self.left_descriptors > MAX_LEFT_DESCRIPTORS,
            "CPU left": self.left_cores > MAX_LEFT_CORES,
            "slower after it": self.left_ratio > MAX_LEFT_RATIO,
        }
        return tuple(fault for fault, found in checks.items() if found)

    @property
    def past_usual(self) -> int:
        """Return the number of runs past the usual bound."""
        return sum(run.is_past_usual for run in self.runs)

    @property
    def past_most(self) -> int:
        """Return the number of runs past the bound of all runs."""
        return sum(run.is_past_most for run in self.runs)

    @property
    def left_bytes(self) -> int:
        """Return the most memory that was left after a run."""
        return max(run.left_bytes for run in self.runs)

    @property
    def left_descriptors(self) -> int:
        """Return the most descriptors that were left after a run."""
        return max(run.left_descriptors for run in self.runs)

    @property
    def left_cores(self) -> float:
        """Return the CPU time that the agent takes more after a run, in cores: the median."""
        return statistics.median(run.left_cores for run in self.runs)

    @property
    def left_ratio(self) -> float:
        """Return how many times longer calls take after a run than before the first: the median."""
        return statistics.median(run.left_ratio for run in self.runs)

    def line(self) -> str:
        """Return one row of the table of attacks."""
        ratios = [run.ratio for run in self.runs]
        count, share = len(self.runs), 100 / len(self.runs)
        return " | ".join(
            (
                f"{self.name:24}",
                f"{count:4}",
                f"{self.past_usual:3} {share * self.past_usual:4.0f} %",
                f"{self.past_most:3} {share * self.past_most:4.0f} %",
                f"{_number(statistics.median(ratios))} {_number(max(ratios))}",
                f"{sum(run.failed for run in self.runs):6}",
                f"{self.left_bytes / _MEBIBYTE:6.1f} {self.left_descriptors:5}"
                f" {round(100 * self.left_cores):5} {_number(self.left_ratio)}",
                ", ".join(self.faults) or "ok",
            )
        )


def _number(ratio: float) -> str:
    return f"{'none':>6}" if ratio == math.inf else f"{ratio:6.1f}"


HEAD = "\n".join(
    " | ".join(cells)
    for cells in (
        (
            f"{'attack':24}",
            "runs",
            f"{f'past {USUAL_RATIO:g} x':^10}",
            f"{f'past {MAX_RATIO:g} x':^10}",
            f"{'p99 ratio':^13}",
            "failed",
            f"{'left':^25}",
            "",
        ),
        (
            f"{'':24}",
            f"{'':4}",
            f"{'':10}",
            f"{'':10}",
            "median  worst",
            " calls",
            "   MiB descr CPU %  ratio",
            "",
        ),
    )
)

BOUNDS = (
    f"bounds: p99 within {USUAL_RATIO:g} times the quiet one in {RUNS_FOR_ONE_PAST - 1} of"
    f" {RUNS_FOR_ONE_PAST} runs, within {MAX_RATIO:g} times in all, no failed call;"
    f" left some seconds after: {MAX_LEFT_BYTES // _MEBIBYTE} MiB,"
    f" {MAX_LEFT_DESCRIPTORS} descriptors, {100 * MAX_LEFT_CORES:.0f} % of a CPU,"
    f" calls {MAX_LEFT_RATIO:g} times as long"
)
