"""While one pod does its worst, the others are answered nearly as when it is quiet.

The worst attacks, in short, beside whatever else this machine does: what stopped everybody would be
seen. `make hostile` has all attacks, longer, repeated and alone, with its bounds in verdict.py.
What the agent holds stays within what its flags allow one pod.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import pytest

from tests.performance.fairness import Bench, bench
from tests.performance.outcome import line
from tests.performance.verdict import MAX_LEFT_DESCRIPTORS
from tests.support.attacks.commands import ATTACKS

SECONDS = 1.5
MAX_RATIO = 5.0
"""Of 90 calls the 99th percentile is the worst. Without the limits and the scheduler, each of
these attacks cost 7 times, or left the others without an answer."""
TRIES = 5
"""Other users of the machine disturb one attempt, an attack all: the least ratio counts."""
MAX_GROWTH_BYTES = 64 * 2**20
CONNECTIONS_OF_POD, DESCRIPTORS_OF_CONNECTION = 64 + 8, 4
MAX_DESCRIPTORS = 2 * CONNECTIONS_OF_POD * DESCRIPTORS_OF_CONNECTION
"""More than before: of the hostile pod, and of unidentified peers, which share one limit."""
MAX_THREADS = 16


@pytest.fixture(scope="module")
def attacked() -> Iterator[Bench]:
    if os.geteuid() != 0:
        pytest.skip("needs root: real namespaces and cgroups")
    if (os.cpu_count() or 1) < 2:
        pytest.skip("needs two CPUs: one for the agent, one for the pods")
    with bench(seconds=SECONDS) as it:
        yield it


@pytest.mark.root
@pytest.mark.timeout(240)
@pytest.mark.alone
@pytest.mark.parametrize(
    "name",
    [
        "ping",
        "ping-ack",
        "calls",
        "costly-calls",
        "window-shrinks",
        "connect-and-die",
        "connect-ask-and-die",
        "fork-connect-and-die",
        "thousands-silent",
        "leave-together",
        "trickle",
    ],
)
def test_one_pods_worst_costs_the_others_little(name: str, attacked: Bench) -> None:
    least = {"kept": math.inf, "new": math.inf}
    lines: list[str] = []
    for _ in range(TRIES):
        outcome = attacked.attack(name, ATTACKS[name])
        lines.append(line(outcome))
        least = {kind: min(ratio, outcome.ratio(kind)) for kind, ratio in least.items()}
        if max(least.values()) <= MAX_RATIO and not outcome.failed:
            break
    assert max(least.values()) <= MAX_RATIO, "\n".join(lines)
    assert not outcome.failed, "\n".join(lines)
    before, most = outcome.before, outcome.during
    assert most.pss_bytes - before.pss_bytes < MAX_GROWTH_BYTES, line(outcome)
    assert most.descriptors - before.descriptors <= MAX_DESCRIPTORS, line(outcome)
    assert most.threads - before.threads <= MAX_THREADS, line(outcome)
    assert outcome.left_descriptors <= MAX_LEFT_DESCRIPTORS, line(outcome)
