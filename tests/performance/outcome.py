"""Measurements before, during and after an attack of one pod. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

KINDS = ("kept", "new", "echo")
"""Calls over a kept connection, over a new one, and to the echo server."""
_MIN_SAMPLES = 15
_MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a quiet pod; `seconds` is infinite for one that failed."""

    kind: str
    start: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Held:
    """The resources of the agent at a moment."""

    pss_bytes: int
    descriptors: int
    threads: int

    def most(self, other: Held) -> Held:
        """Return the larger one of each number."""
        return Held(
            max(self.pss_bytes, other.pss_bytes),
            max(self.descriptors, other.descriptors),
            max(self.threads, other.threads),
        )


@dataclass(frozen=True, slots=True)
class Phase:
    """Some seconds: the quiet pods' calls, and what the agent held, as maximum and at the end.

    `cpu_cores` is the CPU time that the agent took in them, in cores; `waited_cores` the time for
    which its threads could have run, and something else did: another thread, or the machine's
    other users.
    """

    calls: tuple[Call, ...]
    most: Held
    last: Held
    cpu_cores: float
    waited_cores: float

    @property
    def failed(self) -> int:
        """Return how many calls were refused or cut off."""
        return sum(call.seconds == math.inf for call in self.calls)

    def p99(self, kind: str) -> float:
        """Return the 99th percentile of a kind of call in seconds; infinite if hardly any ended."""
        return percentile(self.calls, kind, 0.99)

    def p50(self, kind: str) -> float:
        """Return the median of a kind of call in seconds; infinite if hardly any ended."""
        return percentile(self.calls, kind, 0.5)


class Usual:
    """The results of quiet phases, which reveal a phase in which the machine was busy itself."""

    def __init__(self) -> None:
        self._seen: dict[str, list[float]] = {kind: [] for kind in ("kept", "new")}

    def add(self, phase: Phase) -> None:
        """Count a quiet phase among those that were."""
        for kind, seen in self._seen.items():
            seen.append(phase.p99(kind))

    def is_exceeded_by(self, phase: Phase) -> bool:
        """Return whether its p99 is past twice the median of those before it."""
        return any(
            seen and phase.p99(kind) > 2 * statistics.median(seen)
            for kind, seen in self._seen.items()
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run of one attack."""

    name: str
    quiet: Phase
    attack: Phase
    again: Phase
    """Quiet once more, some seconds after the attack."""

    def quiet_p99(self, kind: str) -> float:
        """Return the lower one of the two quiet phases, in seconds.

        The machine has other users: what they do in a quiet phase must not excuse an attack.
        """
        return min(self.quiet.p99(kind), self.again.p99(kind))

    def ratio(self, kind: str) -> float:
        """Return the p99 during the attack by the quiet one, without what the scheduler took.

        Infinite if one of them could not be measured.
        """
        quiet, quiet_echo = self.quiet_p99(kind), self.quiet_p99("echo")
        attacked, echo = self.attack.p99(kind), self.attack.p99("echo")
        if math.inf in (quiet, quiet_echo, attacked, echo):
            return math.inf
        return (attacked - max(0.0, echo - quiet_echo)) / quiet

    @property
    def worst_ratio(self) -> float:
        """The ratio of the worse kind of call."""
        return max(self.ratio("kept"), self.ratio("new"))

    def slower(self, first: Outcome, kind: str) -> float:
        """Return the median after the attack by that before the first run's."""
        after, before = self.again.p50(kind), first.quiet.p50(kind)
        return math.inf if math.inf in (after, before) else after / before

    @property
    def failed(self) -> int:
        """Return how many calls failed during the attack and after it."""
        return self.attack.failed + self.again.failed

    @property
    def before(self) -> Held:
        """The resources of the agent just before."""
        return self.quiet.last

    @property
    def during(self) -> Held:
        """The most that it held."""
        return self.before.most(self.attack.most)

    @property
    def after(self) -> Held:
        """The resources of the agent some seconds after."""
        return self.again.last

    @property
    def left_descriptors(self) -> int:
        """Return how many more descriptors the agent holds after the attack than before."""
        return self.after.descriptors - self.before.descriptors


def percentile(calls: Iterable[Call], kind: str, share: float) -> float:
    """Return a percentile of one kind of call, in seconds; infinite if hardly any ended."""
    found = sorted(call.seconds for call in calls if call.kind == kind)
    if len(found) < _MIN_SAMPLES:
        return math.inf
    return found[int(share * len(found))]


def line(outcome: Outcome) -> str:
    """Return one row of the table of runs."""
    cells = [f"{outcome.name:24}"]
    for kind in ("kept", "new"):
        quiet, attacked = 1000 * outcome.quiet_p99(kind), 1000 * outcome.attack.p99(kind)
        cells.append(f"{quiet:7.2f} {attacked:8.2f} {outcome.ratio(kind):6.1f}")
    echo = 1000 * outcome.quiet_p99("echo"), 1000 * outcome.attack.p99("echo")
    cells.append(f"{echo[0]:5.2f} {echo[1]:6.2f}")
    cells.append(f"{outcome.failed:4}/{len(outcome.attack.calls):<5}")
    held = (outcome.before, outcome.during, outcome.after)
    cells.append(" ".join(f"{one.pss_bytes / _MEBIBYTE:5.1f}" for one in held))
    cells.append(" ".join(f"{one.descriptors:4}" for one in held))
    cells.append(" ".join(f"{one.threads:3}" for one in held))
    phases = (outcome.quiet, outcome.attack, outcome.again)
    cells.append(" ".join(f"{100 * one.cpu_cores:4.0f}" for one in phases))
    cells.append(" ".join(f"{100 * one.waited_cores:4.0f}" for one in phases))
    return " | ".join(cells)


def _head(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(" | ".join(cells) for cells in rows)


HEAD = _head(
    [
        [
            f"{'p99 in ms':24}",
            *(f"{name:^23}" for name in ("kept connection", "new connection")),
            f"{'echo':^12}",
            f"{'failed':^10}",
            f"{'PSS in MiB':^17}",
            f"{'descriptors':^14}",
            f"{'threads':^11}",
            f"{'% of a CPU':^14}",
            f"{'% waited':^14}",
        ],
        [
            f"{'attack':24}",
            *2 * [f"{'quiet':>7} {'attack':>8} {'ratio':>6}"],
            f"{'quiet':>5} {'attack':>6}",
            f"{'of calls':^10}",
            "befor  most after",
            " bef most aftr",
            "bef mst aft",
            *2 * [" bef  att  aft"],
        ],
    ]
)
