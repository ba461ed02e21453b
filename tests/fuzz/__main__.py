"""The long form: every target for MINUTES, coverage-guided, and whether its time grows too fast.

`python -m tests.fuzz MINUTES [TARGET…]`. The corpus stays under ~/.cache/netutil/fuzz, so each run
begins where the last one ended. Exit 1 if there is a finding; its input is beside the corpus.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.growth import cuts, is_too_slow
from tests.fuzz.registry import targets
from tests.fuzz.target import Target

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "netutil" / "fuzz"
_STATE = re.compile(r"^#(\d+)\s+\w+\s.*?cov: (\d+) ft: (\d+) corp: (\d+)/", re.MULTILINE)
_GRACE_SECONDS = 120
_SHAPES_PER_MINUTE = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one target: executions, covered edges, features, corpus, and what was found."""

    name: str
    executions: int
    edges: int
    features: int
    corpus: int
    findings: tuple[str, ...]


def fuzz(target: Target, minutes: float) -> Outcome:
    """Run one target."""
    folder = CACHE / target.name
    findings = folder / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    seconds = max(1, round(60 * minutes))
    log = folder / "log"
    module = [sys.executable, "-m", "tests.fuzz.once"]
    argv = [*module, target.name, str(folder / "corpus"), str(seconds)]
    with log.open("wb") as output:
        try:
            code = subprocess.run(
                argv, stdout=output, stderr=output, timeout=seconds + _GRACE_SECONDS, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
    text = log.read_text(errors="replace")
    states = _STATE.findall(text)
    executions, edges, features, corpus = map(int, states[-1]) if states else (0, 0, 0, 0)
    found = [str(path) for path in sorted(set(findings.iterdir()) - before)]
    if code != 0 and not found:
        found.append(f"{log}: it ended with {code}")
    if not target.slow:
        found += _too_slow(target, max(4, round(_SHAPES_PER_MINUTE * minutes)))
    return Outcome(target.name, executions, edges, features, corpus, tuple(found))


def _too_slow(target: Target, shapes: int) -> list[str]:
    return [
        f"time grows faster than the input: {shape}"
        for shape in cuts(target, time.time_ns(), shapes)
        # Seen twice: a machine that is busy once is no finding.
        if is_too_slow(target, shape) and is_too_slow(target, shape)
    ]


def main() -> int:
    """Run the targets that were named, all if none was."""
    minutes, names = float(sys.argv[1]), sys.argv[2:]
    known = targets()
    row = "{:20} {:>12} {:>8} {:>9} {:>8} {:>9}"
    print(row.format("TARGET", "EXECUTIONS", "EDGES", "FEATURES", "CORPUS", "FINDINGS"))
    outcomes = []
    for name in names or known:
        one = fuzz(known[name], minutes)
        outcomes.append(one)
        shown = (one.name, one.executions, one.edges, one.features, one.corpus, len(one.findings))
        print(row.format(*shown), flush=True)
    for one in outcomes:
        for finding in one.findings:
            print(f"{one.name}: {finding}")
    return int(any(one.findings for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
