"""The metrics that the agent registers."""

from __future__ import annotations

import ast
from collections import defaultdict

from netutil.agent.observability.metrics import Metrics

from tests.support.documentation import text_of


def readings() -> tuple[set[str], set[str], set[str]]:
    """The names of the gauges, counters and labelled counters that the agent registers."""
    found: dict[str, set[str]] = defaultdict(set)
    for node in ast.walk(ast.parse(text_of("agent/readings.py"))):
        match node:
            case ast.Assign(
                targets=[ast.Name("gauges" | "counters" | "labelled" as kind)],
                value=ast.Dict(keys=keys),
            ):
                found[kind] |= {
                    key.value
                    for key in keys
                    if isinstance(key, ast.Constant) and isinstance(key.value, str)
                }
    return found["gauges"], found["counters"], found["labelled"]


def scraped() -> dict[str, str]:
    """The kind of each metric by its name, as a scrape shows it."""
    gauges, counters, labelled = readings()
    metrics = Metrics()
    metrics.add(
        {name: ("text", lambda: 0.0) for name in gauges},
        {name: ("text", lambda: 0.0) for name in counters},
        {name: ("text", "label", {}) for name in labelled},
    )
    metrics.add_held(dict, float)
    return {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in metrics.registry.collect()
        if family.name.startswith("netutil_")
    }
