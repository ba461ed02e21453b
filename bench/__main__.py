"""`python -m bench`, as root: measures everything and prints one table. `make bench` runs it.

`--quick` takes fewer and shorter slices, `--only` names the parts, `--json` keeps the result.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import calls, connections, delays, holding, lists, machine, sidecars, starts
from bench.rows import Row, table
from tests.lab import why_no_lab

Part = Callable[..., Iterator[Row]]
PARTS: dict[str, Part] = {
    "starts": starts.rows,
    "calls": calls.rows,
    "connections": connections.rows,
    "holding": holding.rows,
    "lists": lists.rows,
    "delays": delays.rows,
}
_NODE = "node"


def main() -> int:
    """Return 1 if this machine cannot have a lab; a bound that is missed is in the table."""
    arguments = _arguments()
    missing = why_no_lab()
    if missing:
        print(f"bench: {missing}", file=sys.stderr)
        return 1
    results = measure(arguments.only, quick=arguments.quick)
    for name, text in results["machine"].items():
        print(f"{name}: {text}")
    print()
    print(table(Row(**{k: v for k, v in row.items() if k != "holds"}) for row in results["rows"]))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def measure(parts: list[str], *, quick: bool) -> dict[str, Any]:
    """Return the machine, the rows, and the two series of the plot."""
    results: dict[str, Any] = {"machine": machine.description(), "quick": quick, "rows": []}
    for name in parts:
        began = time.monotonic()
        if name == _NODE:
            costs = list(sidecars.compare(quick=quick))
            rows = list(sidecars.rows(costs))
            results["node"] = [
                {"pods": a.pods, "sidecars": asdict(a), "agent": asdict(b)} for a, b in costs
            ]
        else:
            rows = list(PARTS[name](quick=quick))
        if name == "holding":
            results["watch"] = [
                {"pods": number, "memory_mib": row.value}
                for row in rows
                for number in holding.NUMBERS
                if row.key == f"watch.{number}.memory"
            ]
        results["rows"] += [{**asdict(row), "holds": row.holds} for row in rows]
        print(f"bench: {name} took {time.monotonic() - began:.0f} s", file=sys.stderr)
    return results


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter slices")
    parser.add_argument("--json", type=Path, help="where to keep the result")
    everything = [*PARTS, _NODE]
    parser.add_argument("--only", nargs="+", choices=everything, default=everything)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
