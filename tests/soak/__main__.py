"""Every hostile behaviour and every fault at random, against one agent, for MINUTES.

`python -m tests.soak MINUTES [SEED]`. Meanwhile the clients of eight pods ask who they are, all the
time: an answer about another pod, or none, is a failure. When the hostility is over, what the
agent holds is back where it was after the warm-up. Exit 1 otherwise. Needs root.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

from tests.soak.actions import ATTACKS, FAULTS, Action
from tests.soak.node import Node, Resources, Witnesses

_HOSTILE_THREADS = 3
_SETTLE_SECONDS = 150.0
"""More than the 90 seconds that are the maximum for a held environment."""
_WARM_UP_SHARE, _MAX_WARM_UP_SECONDS = 0.2, 120.0
_MARGINS = {
    "descriptors": 5.0,
    "threads": 3.0,
    "read_threads": 64.0,
    "tasks": 3.0,
    "connections": 0.0,
    "calls": 0.0,
    "watchers": 0.0,
    "unread_bytes": 0.0,
}
"""What may be more afterwards. The pool for slow reads keeps its threads, at most 256."""
_MEMORY_GROWTH = 1.25
"""Of anonymous memory: file pages depend on who else maps them. Three minutes of attacks add a
tenth to what a warm-up of half a minute has filled (malloc's arenas, gRPC's pools)."""


class _Hostility:
    """The threads that act until they are stopped."""

    def __init__(self, node: Node, seed: str, actions: Sequence[Sequence[Action]]) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._node = node
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._act, args=(chosen, _random(f"{seed} {number}")))
            for number, chosen in enumerate(actions)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _act(self, actions: Sequence[Action], random: Random) -> None:
        while not self._stopping.is_set():
            # Each once, in another order every time: none is left out.
            for action in random.sample(actions, len(actions)):
                if self._stopping.is_set():
                    return
                self.counts[action.__name__] += 1
                try:
                    action(self._node, random)
                except Exception as error:  # noqa: BLE001 - reported with all others at the end
                    self.failures.append(f"{action.__name__}: {error!r}")


def _random(seed: str) -> Random:
    return Random(seed)  # noqa: S311 - it only has to vary


def _hostile_for(node: Node, seed: str, seconds: float) -> _Hostility:
    everyone = [ATTACKS] * _HOSTILE_THREADS + [FAULTS]
    hostility = _Hostility(node, seed, everyone)
    try:
        time.sleep(seconds)
    finally:
        hostility.stop()
    return hostility


def _settled(node: Node, before: Resources | None) -> Resources:
    """Return the resources without callers, once they equal `before` or much time has passed."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        now = node.resources()
        idle = dataclasses.replace(now, connections=0, calls=0, watchers=0, unread_bytes=0)
        if (now == idle and not _grown(before or idle, now)) or time.monotonic() > deadline:
            return now
        time.sleep(0.5)


def _grown(before: Resources, after: Resources) -> list[str]:
    """Return the resources that exceed their bounds."""
    found = [
        f"{name}: {getattr(before, name)} before, {getattr(after, name)} after"
        for name, margin in _MARGINS.items()
        if getattr(after, name) > getattr(before, name) + margin
    ]
    if after.anonymous_mebibytes > before.anonymous_mebibytes * _MEMORY_GROWTH:
        memory = f"{before.anonymous_mebibytes} MiB before, {after.anonymous_mebibytes} MiB after"
        found.append(f"anonymous memory: {memory}")
    return found


def _soak(node: Node, seed: str, seconds: float) -> list[str]:
    warm_up = min(_MAX_WARM_UP_SECONDS, seconds * _WARM_UP_SHARE)
    witnesses = Witnesses(node)
    _hostile_for(node, f"{seed} warm-up", warm_up)
    failures = _heard(witnesses.end())
    before = _settled(node, None)
    witnesses = Witnesses(node)
    hostility = _hostile_for(node, seed, seconds - warm_up)
    reports = witnesses.end()
    after = _settled(node, before)
    _print(node, hostility, reports, before, after)
    failures += hostility.failures + _heard(reports) + _grown(before, after)
    if not node.agent.running:
        failures.append("the agent ended")
    internal = [line for line in node.refusals() if line.startswith("INTERNAL")]
    return failures + [f"a bug of the agent: {line}" for line in internal]


def _heard(reports: list[dict[str, Any]]) -> list[str]:
    wrong = [f"wrong: {one}" for report in reports for one in report["wrong"]]
    refused: Counter[str] = sum((Counter(one["refused"]) for one in reports), Counter())
    silent = [f"a client was never answered: {one}" for one in reports if not one["fewest"]]
    return wrong + [f"witnesses refused: {what} ({n})" for what, n in refused.items()] + silent


def _print(
    node: Node,
    hostility: _Hostility,
    reports: list[dict[str, Any]],
    before: Resources,
    after: Resources,
) -> None:
    for title, counts in (("ACTION", hostility.counts), ("REFUSED", node.refusals())):
        print(f"\n{title:44} {'COUNT':>10}")
        for name, count in sorted(counts.items()):
            print(f"{name:44} {count:>10}")
    print(f"\n{'RESOURCE':44} {'BEFORE':>10} {'AFTER':>10}")
    for field in dataclasses.fields(Resources):
        was, now = getattr(before, field.name), getattr(after, field.name)
        print(f"{field.name:44} {was:>10} {now:>10}")
    calls, slowest = (
        sum(one["calls"] for one in reports),
        max(one["slowest_seconds"] for one in reports),
    )
    print(f"\nwitnesses: {calls} calls, slowest round {slowest} s", flush=True)


def main() -> int:
    """Print the seed first and the tables at the end."""
    seconds = 60 * float(sys.argv[1])
    seed = sys.argv[2] if len(sys.argv) > 2 and sys.argv[2] else str(time.time_ns() % 10**6)
    print(f"soak: {seconds:.0f} s, SEED={seed}", flush=True)
    with Node() as node:
        failures = _soak(node, seed, seconds)
        log = node.agent.stderr_text()
    # asyncio's: a task that failed and that no task waited for.
    failures += [line for line in log.split("\n") if "never retrieved" in line][:3]
    for failure in failures[:40]:
        print(f"FAILED: {failure}")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
