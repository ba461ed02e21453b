"""Whether anything became dearer: `python -m bench.check`, as root. `make bench-check` runs it.

The quick form of the bench, compared with `recorded.json`. Only rows that are ratios within a
run, or counts, are compared; what only this machine's speed decides is not. A row that is
dearer by more than its margin is measured again, and fails if it is so each time.
`--record` keeps the median of as many runs instead.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

from bench.__main__ import measure

RECORDED = Path(__file__).with_name("recorded.json")
RUNS = 3
_PARTS = ["starts", "calls", "connections", "lists"]
# What differs between two runs of the same code on a busy machine of two cores.
_MARGINS = {
    "kept.": 1.35,
    "fresh.": 1.35,
    "throughput.": 1.35,
    "door.": 1.35,
    "client.GetPod": 1.35,
    "import.": 1.25,
    "start.": 1.35,
    "held.": 1.25,
    "refresh.": 1.35,
}
_HIGHER_IS_BETTER = ("throughput.", "door.")


def margin(key: str) -> float | None:
    """Return by which factor a row may be dearer, None for one that is not compared."""
    return next((factor for start, factor in _MARGINS.items() if key.startswith(start)), None)


def dearer(key: str, now: float, recorded: float) -> float:
    """Return how many times dearer a row became."""
    return recorded / now if key.startswith(_HIGHER_IS_BETTER) else now / recorded


def failures(now: Mapping[str, float], recorded: Mapping[str, float]) -> dict[str, float]:
    """Return the rows that are dearer by more than their margin, and by how much.

    A row that was recorded and is not there any more is one, too.
    """
    found = {}
    for key, before in recorded.items():
        allowed = margin(key)
        if allowed is None:
            continue
        times = dearer(key, now[key], before) if key in now else float("inf")
        if times > allowed:
            found[key] = times
    return found


def main() -> int:
    """Return 1 if a row is dearer each time, naming it."""
    if "--record" in sys.argv[1:]:
        return _record()
    recorded = json.loads(RECORDED.read_text())
    left: dict[str, float] = recorded
    worst: dict[str, float] = {}
    for number in range(RUNS):
        worst = failures(_values(_parts_of(left)), left)
        if not worst:
            print(f"bench-check: nothing is dearer ({len(recorded)} rows, run {number + 1})")
            return 0
        left = {key: recorded[key] for key in worst}
    for key, times in sorted(worst.items()):
        print(f"bench-check: {key} is {times:.2f} x dearer than recorded, {RUNS} runs in a row")
    return 1


def _record() -> int:
    runs = [_values(_PARTS) for _ in range(RUNS)]
    kept = {
        key: round(statistics.median(run[key] for run in runs), 3)
        for key in runs[0]
        if margin(key) is not None
    }
    RECORDED.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"bench-check: {len(kept)} rows recorded")
    return 0


def _parts_of(keys: Mapping[str, float]) -> list[str]:
    """Return the parts of the bench that give these rows."""
    starts = {
        "starts": ("import.", "start."),
        "calls": ("kept.", "fresh.", "throughput.", "door.", "client."),
        "connections": ("held.",),
        "lists": ("refresh.",),
    }
    return [part for part in _PARTS if any(key.startswith(starts[part]) for key in keys)]


def _values(parts: list[str]) -> dict[str, float]:
    return {row["key"]: row["value"] for row in measure(parts, quick=True)["rows"]}


if __name__ == "__main__":
    sys.exit(main())
