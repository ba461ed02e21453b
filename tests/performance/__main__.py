"""`make hostile`: each attack several times, and whether it cost the other pods more than it may.

`python -m tests.performance [--attacks NAME,…] [--repeat N]`. NETUTIL_ATTACK_SECONDS is the length
of a phase (5). Each run is printed as it ends, then each attack, and all attacks at the end.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from tests.performance import outcome, verdict
from tests.performance.fairness import SETTLE_SECONDS, AttackEnded, Bench, bench
from tests.performance.outcome import Outcome
from tests.performance.verdict import Verdict, run_of, runs_wanted
from tests.support.attacks.commands import ATTACKS, CONTROL
from tests.support.lab.agent import AgentFailed

_REPEAT = 5


def _attacks(text: str) -> list[str]:
    names = [name for name in text.replace(",", " ").split() if name]
    unknown = [name for name in names if name not in ATTACKS]
    if unknown or not names:
        known = ", ".join(ATTACKS)
        raise argparse.ArgumentTypeError(f"no attack {', '.join(unknown)}; there are {known}")
    return names


def _at_least_once(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a number of runs, 1 or more")
    return int(text)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.performance", description=__doc__)
    parser.add_argument(
        "--attacks", type=_attacks, default=list(ATTACKS), help="names, with commas between"
    )
    parser.add_argument(
        "--repeat",
        type=_at_least_once,
        default=_REPEAT,
        help=f"runs of each ({_REPEAT}); {verdict.EXTENSION} times as many where one is past"
        f" {verdict.USUAL_RATIO:g} times the quiet p99",
    )
    return parser.parse_args(argv)


def repeat_attack(it: Bench, name: str, repeat: int) -> Verdict:
    """Run one attack as often as its runs call for. Raises AgentFailed, AttackEnded."""
    outcomes: list[Outcome] = []
    runs: list[verdict.Run] = []
    while len(runs) < runs_wanted(runs, repeat):
        outcomes.append(it.attack(name, ATTACKS[name]))
        runs.append(run_of(outcomes[-1], outcomes[0]))
        print(outcome.line(outcomes[-1]), flush=True)
    return Verdict(name, tuple(runs))


def run_all(names: Sequence[str], repeat: int, seconds: float) -> tuple[list[Verdict], list[str]]:
    """Return what the attacks showed, and those of which there is no verdict.

    An agent that ended during an attack is replaced by a new one for the attacks that follow.
    """
    verdicts: list[Verdict] = []
    broken: list[str] = []
    left = list(names)
    while left:
        with bench(seconds=seconds) as it:
            while left and it.agent.running:
                name = left.pop(0)
                try:
                    verdicts.append(repeat_attack(it, name, repeat))
                    print(verdicts[-1].line(), end="\n\n", flush=True)
                except (AgentFailed, AttackEnded) as error:
                    broken.append(name)
                    print(f"{name}: {error}", end="\n\n", flush=True)
    return verdicts, broken


def main(argv: Sequence[str]) -> int:
    """Print the tables; return 1 if an attack cost the others, or left behind, more than it may.

    The control goes first: where it is past a bound, the machine was too busy to judge by.
    """
    arguments = _arguments(argv)
    names = list(dict.fromkeys((CONTROL, *arguments.attacks)))
    seconds = float(os.environ.get("NETUTIL_ATTACK_SECONDS", "5"))
    each = 2 * (seconds + SETTLE_SECONDS)
    minutes = len(arguments.attacks) * arguments.repeat * each / 60
    print(
        f"attacks: {len(arguments.attacks)}, runs each: {arguments.repeat}, minutes: {minutes:.0f}"
    )
    print(outcome.HEAD, flush=True)
    verdicts, broken = run_all(names, arguments.repeat, seconds)
    print(verdict.HEAD)
    for one in verdicts:
        print(one.line())
    faulty = [one.name for one in verdicts if one.faults] + broken
    print(f"attacks: {len(names)}, past a bound: {len(faulty)}", *faulty)
    print(verdict.BOUNDS)
    if any(one.name == CONTROL and one.faults for one in verdicts):
        print("the control is past a bound: this machine was too busy to judge by")
    return 1 if faulty else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
