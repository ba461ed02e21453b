"""Compares the costs with the recorded ones: `python -m bench.check`, as root; `make bench-check`.

The quick form of the bench, compared with `recorded.json`. Only rows that are ratios within a
run, or counts, are compared; what only this machine's speed decides is not. A row that is
dearer by more than its margin is measured again, and fails if it is so each time.

A bound of `bench.bounds` that was met when it was recorded has to be met still. One that was not
is a known miss, recorded with its figure, and may not become worse.
`--record` keeps the median of as many runs instead.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.__main__ import measure
from bench.bounds import BOUNDS

RECORDED = Path(__file__).with_name("recorded.json")
RUNS = 3
_MET, _MISSED, _UNBOUND = "bounds met", "known misses", "without a bound"
_NOISE = 1.1
"""A figure is past a bound that it met only beyond this: the quick form has few slices."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Rows that are compared: the part that measures them, and by how much they may be dearer.

    The margin is what differs between two runs of the same code on a busy machine of two cores.
    """

    prefix: str
    part: str
    margin: float


_COMPARED = (
    Compared("import.", "starts", 1.25),
    Compared("start.", "starts", 1.35),
    Compared("kept.", "calls", 1.35),
    Compared("fresh.", "calls", 1.35),
    Compared("throughput.", "calls", 1.35),
    Compared("connections.", "calls", 1.35),
    Compared("own-pid.", "sidecar", 1.35),
    Compared("sidecar.", "sidecar", 1.35),
    Compared("client.GetPod", "client", 1.35),
    Compared("held.", "connections", 1.25),
    Compared("refresh.", "lists", 1.35),
)


def compared(key: str) -> Compared | None:
    """Return how a row is compared, None for one that is not."""
    return next((one for one in _COMPARED if key.startswith(one.prefix)), None)


def dearer(key: str, now: float, recorded: float) -> float:
    """Return how many times dearer a row became."""
    more_is_better = key.startswith("throughput.") or key.endswith(".rate")
    return recorded / now if more_is_better else now / recorded


def failures(now: Mapping[str, float], recorded: Mapping[str, float]) -> dict[str, str]:
    """Return what is wrong with each row that became dearer, or misses a bound that it met.

    A row that was recorded and is not there any more is one, too, and one that is not recorded.
    """
    found = {}
    for key in sorted(now.keys() | recorded.keys()):
        rule = compared(key)
        if rule is None:
            continue
        if key not in now:
            found[key] = "is recorded, and was not measured"
        elif key not in recorded:
            found[key] = "is not recorded: make bench-record"
        elif (times := dearer(key, now[key], recorded[key])) > rule.margin:
            found[key] = f"is {times:.2f} x dearer than recorded"
        elif _newly_missed(key, now[key], recorded[key]):
            found[key] = f"is {now[key]:.2f}, and its bound, {BOUNDS[key]}, was met when recorded"
    return found


def _newly_missed(key: str, now: float, recorded: float) -> bool:
    bound = BOUNDS.get(key)
    return bound is not None and bound.met_by(recorded) and not bound.met_by(now, tolerance=_NOISE)


def sections(values: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return rows as `recorded.json` has them: by whether their bound is met."""
    found: dict[str, dict[str, float]] = {_MET: {}, _MISSED: {}, _UNBOUND: {}}
    for key, value in values.items():
        bound = BOUNDS.get(key)
        name = _UNBOUND if bound is None else _MET if bound.met_by(value) else _MISSED
        found[name][key] = value
    return found


def read(path: Path) -> dict[str, float]:
    """Return the rows of all sections. ValueError for a row of another section.

    A bound that was changed without recording again would otherwise be judged by nothing.
    """
    kept: dict[str, dict[str, float]] = json.loads(path.read_text())
    values = {key: value for section in kept.values() for key, value in section.items()}
    if sections(values) != kept:
        raise ValueError(f"{path}: not by the bounds of bench/bounds.py: make bench-record")
    return values


def main() -> int:
    """Return 1 if a row fails each time, naming it."""
    if "--record" in sys.argv[1:]:
        return _record()
    recorded = read(RECORDED)
    left: dict[str, str] = {}
    for number in range(RUNS):
        parts = _parts_of(left or (one.prefix for one in _COMPARED))
        now = _values(parts)
        known = {key: value for key, value in recorded.items() if _part(key) in parts}
        found = failures(now, known)
        left = {key: text for key, text in found.items() if not left or key in left}
        if not left:
            _print_misses(recorded)
            print(f"bench-check: nothing is dearer ({len(recorded)} rows, run {number + 1})")
            return 0
    for key, text in left.items():
        print(f"bench-check: {key} {text}, {RUNS} runs in a row")
    return 1


def _print_misses(recorded: Mapping[str, float]) -> None:
    for key, value in sections(recorded)[_MISSED].items():
        print(f"bench-check: known miss: {key} {value:.2f}, bound {BOUNDS[key]}")


def _record() -> int:
    runs = [_values(_parts_of(one.prefix for one in _COMPARED)) for _ in range(RUNS)]
    kept = {
        key: round(statistics.median(run[key] for run in runs), 3)
        for key in runs[0]
        if compared(key) is not None
    }
    RECORDED.write_text(json.dumps(sections(kept), indent=1) + "\n")
    print(f"bench-check: {len(kept)} rows recorded")
    return 0


def _part(key: str) -> str | None:
    rule = compared(key)
    return None if rule is None else rule.part


def _parts_of(keys: Iterable[str]) -> list[str]:
    """Return the parts of the bench that give these rows, each once."""
    return list(dict.fromkeys(part for part in map(_part, keys) if part is not None))


def _values(parts: list[str]) -> dict[str, float]:
    return {row.key: row.value for row in measure(parts, quick=True).rows}


if __name__ == "__main__":
    sys.exit(main())
