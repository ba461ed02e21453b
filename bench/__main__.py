"""`python -m bench`, as root: measures everything and prints one table. `make bench` runs it.

`--quick` takes fewer and shorter slices, `--only` names the parts, `--json` keeps the result.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import (
    calls,
    claims,
    connections,
    delays,
    event_loops,
    holding,
    lists,
    machine,
    python_client,
    sidecar_calls,
    sidecars,
    sources,
    starts,
)
from bench.rows import Row, summary, table, without_row
from tests.support.lab import why_no_lab

Part = Callable[..., Iterator[Row]]
PARTS: dict[str, Part] = {
    "starts": starts.rows,
    "sources": sources.rows,
    "calls": calls.rows,
    "sidecar": sidecar_calls.rows,
    "client": python_client.rows,
    "connections": connections.rows,
    "holding": holding.rows,
    "claims": claims.rows,
    "lists": lists.rows,
    "delays": delays.rows,
}
_NODE = "node"
_EVENT_LOOP = "event-loop"


@dataclass(slots=True)
class Results:
    """The rows of a run, and the two series of the plot."""

    rows: list[Row] = field(default_factory=list)
    node: list[dict[str, Any]] = field(default_factory=list)

    def value(self, key: str) -> float | None:
        """Return a row's figure, None if there is no such row."""
        return next((row.value for row in self.rows if row.key == key), None)

    def as_json(self, description: dict[str, str], *, quick: bool) -> dict[str, Any]:
        """Return what `--json` keeps; `description` is the machine's before the run."""
        memory = ((number, self.value(f"watch.{number}.memory")) for number in holding.NUMBERS)
        return {
            "machine": description,
            "quick": quick,
            "rows": [row.as_json() for row in self.rows],
            "node": self.node,
            "watch": [{"pods": n, "memory_mib": mib} for n, mib in memory if mib is not None],
        }


def main() -> int:
    """Return 1 if this machine cannot have a lab, or a bound was not measured.

    A bound that is missed is in the table.
    """
    arguments = _arguments()
    missing = why_no_lab()
    if missing:
        print(f"bench: {missing}", file=sys.stderr)
        return 1
    description = machine.description()
    results = measure(arguments.only, quick=arguments.quick)
    if arguments.json:
        kept = results.as_json(description, quick=arguments.quick)
        arguments.json.write_text(json.dumps(kept, indent=1) + "\n")
    for name, text in description.items():
        print(f"{name}: {text}")
    print(f"\n{table(results.rows)}\n\n{summary(results.rows)}")
    unmeasured = without_row(results.rows) if set(PARTS) <= set(arguments.only) else []
    for key in unmeasured:
        print(f"bench: no row for the bound {key}", file=sys.stderr)
    return 1 if unmeasured else 0


def measure(parts: list[str], *, quick: bool) -> Results:
    """Measure the parts named, in their order."""
    results = Results()
    for name in parts:
        began = time.monotonic()
        if name == _NODE:
            costs = list(sidecars.compare(quick=quick))
            results.rows += sidecars.rows(costs)
            results.node += [
                {"pods": a.pods, "sidecars": asdict(a), "agent": asdict(b)} for a, b in costs
            ]
        elif name == _EVENT_LOOP:
            results.rows += event_loops.rows(os.environ[event_loops.VARIABLE], quick=quick)
        else:
            results.rows += PARTS[name](quick=quick)
        print(f"bench: {name} took {time.monotonic() - began:.0f} s", file=sys.stderr)
    return results


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter slices")
    parser.add_argument("--json", type=Path, help="where to keep the result")
    everything = [*PARTS, _NODE, *([_EVENT_LOOP] if event_loops.VARIABLE in os.environ else [])]
    parser.add_argument("--only", nargs="+", choices=everything, default=everything)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
