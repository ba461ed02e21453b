"""`netutil node top`: two readings of the agent's counters as one screen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from netutil.client.cli.render.cells import unknown
from netutil.client.cli.render.tables import Table
from netutil.client.models.core import PartError
from netutil.client.models.node import Activity, AgentUse, PodActivity
from netutil.client.text import NOTHING

_MILLISECONDS = 1000.0
_PERCENT = 100.0
_MEBIBYTE = 2**20
_MIN_SECONDS = 0.001
_HOST_ROOT = "host-root"
"""What the agent counts processes of the host's root outside of pods under."""


@dataclass(frozen=True, slots=True)
class PodRates:
    """One pod over an interval. `p99_seconds` is an upper bound, None past the last bucket.

    `mean_seconds` and `p99_seconds` are 0 without a call.
    """

    pod: str
    uid: str
    connections: int
    open_calls: int
    calls_per_second: float
    refused_per_second: float
    failed_per_second: float
    not_found_per_second: float
    mean_seconds: float
    p99_seconds: float | None
    last_error: str


@dataclass(frozen=True, slots=True)
class Rates:
    """All pods over an interval. `agent` is None where its use is not known: `agent_error`.

    `agent_cpu_percent` is of one CPU, None without two readings of one agent.
    """

    seconds: float
    uptime_seconds: float
    connections: int
    max_connections: int
    watchers: int
    pods: tuple[PodRates, ...]
    quiet: int
    """Pods that have neither a connection nor a call; they are not in `pods`."""
    agent: AgentUse | None
    agent_cpu_percent: float | None
    agent_error: PartError | None


_ORDERS: dict[str, Callable[[PodRates], Any]] = {
    "calls": lambda one: (-one.calls_per_second, -one.open_calls, one.pod),
    "refused": lambda one: (-one.refused_per_second, one.pod),
    "failed": lambda one: (-one.failed_per_second, one.pod),
    "not-found": lambda one: (-one.not_found_per_second, one.pod),
    "connections": lambda one: (-one.connections, one.pod),
    "latency": lambda one: (-one.mean_seconds, one.pod),
    "name": lambda one: one.pod,
}


def rates(before: Activity, now: Activity, order: str) -> Rates:
    """The rates between two readings; since the start, if the agent was restarted in between."""
    restarted = now.uptime_seconds < before.uptime_seconds
    known = {} if restarted else {one.uid: one for one in before.pods}
    elapsed = now.uptime_seconds - (0.0 if restarted else before.uptime_seconds)
    seconds = max(_MIN_SECONDS, elapsed)
    bounds = now.latency_bounds_seconds
    active = [one for one in now.pods if _is_active(known.get(one.uid), one)]
    found = [_rates(known.get(one.uid), one, seconds, bounds) for one in active]
    return Rates(
        seconds=seconds,
        uptime_seconds=now.uptime_seconds,
        connections=now.connections,
        max_connections=now.max_connections,
        watchers=now.watchers,
        pods=tuple(sorted(found, key=_ORDERS[order])),
        quiet=len(now.pods) - len(active),
        agent=now.agent,
        agent_cpu_percent=_agent_percent(None if restarted else before.agent, now.agent, seconds),
        agent_error=now.agent_error,
    )


def _agent_percent(before: AgentUse | None, now: AgentUse | None, seconds: float) -> float | None:
    if before is None or now is None or before.pid != now.pid:
        return None
    return max(0.0, (now.cpu_seconds - before.cpu_seconds) / seconds * _PERCENT)


def _is_active(before: PodActivity | None, now: PodActivity) -> bool:
    return bool(now.connections or now.open_calls or now.calls != (before.calls if before else 0))


def _rates(
    before: PodActivity | None, now: PodActivity, seconds: float, bounds: Sequence[float]
) -> PodRates:
    if before is None or before.calls > now.calls:  # dropped by the agent in between
        before = _zero(now)
    calls, spent = now.calls - before.calls, now.seconds - before.seconds
    pairs = zip(now.latency_counts, before.latency_counts, strict=True)
    counts = [after - earlier for after, earlier in pairs]
    return PodRates(
        pod=_name(now),
        uid=now.uid,
        connections=now.connections,
        open_calls=now.open_calls,
        calls_per_second=calls / seconds,
        refused_per_second=(now.refused - before.refused) / seconds,
        failed_per_second=(now.failed - before.failed) / seconds,
        not_found_per_second=(now.not_found - before.not_found) / seconds,
        mean_seconds=spent / calls if calls else 0.0,
        p99_seconds=_bound(counts, bounds, 0.99) if calls else 0.0,
        last_error=now.last_error,
    )


def _zero(now: PodActivity) -> PodActivity:
    """The counters of a pod before its first call."""
    return replace(
        now,
        calls=0,
        refused=0,
        failed=0,
        not_found=0,
        seconds=0.0,
        latency_counts=(0,) * len(now.latency_counts),
    )


def _name(one: PodActivity) -> str:
    if one.name:
        return f"{one.namespace}/{one.name}"
    if one.uid == _HOST_ROOT:
        return "(root of the host)"
    return f"(not listed: {one.uid})" if one.uid else "(not identified)"


def _bound(counts: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """The upper bound of the bucket that contains that quantile of the calls."""
    wanted, seen = share * sum(counts), 0
    for count, bound in zip(counts, bounds, strict=False):
        seen += count
        if seen >= wanted:
            return bound
    return None


def table(found: Rates, most_rows: int | None, width: int | None) -> Table:
    """The screen, with at most that many pods; fewer columns in a narrow terminal."""
    shown = found.pods[:most_rows]
    columns = {
        header: cell
        for header, cell in _COLUMNS.items()
        if width is None or width >= _LEAST_COLUMNS.get(header, 0)
    }
    notes = [
        *([f"not shown: {len(found.pods) - len(shown)}"] if len(shown) < len(found.pods) else []),
        *([f"without a connection or a call: {found.quiet}"] if found.quiet else []),
    ]
    calls = sum(one.calls_per_second for one in found.pods)
    title = (
        f"{calls:.1f} calls/s in {found.seconds:.1f} s, {found.watchers} watchers,"
        f" {found.connections} of {found.max_connections} connections, up {_age(found)}"
    )
    return Table(
        title,
        tuple(columns),
        tuple(tuple(cell(one) for cell in columns.values()) for one in shown),
        (*([", ".join(notes)] if notes else []), *_agent(found)),
        frozenset(columns) - _TEXTS,
        _TEXTS,
    )


def _agent(found: Rates) -> list[str]:
    """A note of what the agent itself uses."""
    use = found.agent
    if use is None:
        return unknown("the agent's own use", found.agent_error)
    percent = found.agent_cpu_percent
    cpu = "" if percent is None else f"{percent:.1f} % of a CPU, "
    memory = f"{use.rss_bytes / _MEBIBYTE:.1f} MiB resident"
    return [f"agent: {memory}, {cpu}{use.threads} threads, {use.descriptors} descriptors"]


def _mean(one: PodRates) -> str:
    return f"{one.mean_seconds * _MILLISECONDS:.2f}" if one.calls_per_second > 0 else NOTHING


def _p99(one: PodRates) -> str:
    if one.p99_seconds is None:
        return ">5000"
    return f"{one.p99_seconds * _MILLISECONDS:g}" if one.calls_per_second > 0 else NOTHING


_COLUMNS: dict[str, Callable[[PodRates], str]] = {
    "POD": lambda one: one.pod,
    "CONNS": lambda one: str(one.connections),
    "OPEN": lambda one: str(one.open_calls),
    "CALLS/S": lambda one: f"{one.calls_per_second:.1f}",
    "REFUSED/S": lambda one: f"{one.refused_per_second:.1f}",
    "FAILED/S": lambda one: f"{one.failed_per_second:.1f}",
    "NOT FOUND/S": lambda one: f"{one.not_found_per_second:.1f}",
    "MEAN ms": _mean,
    "P99 ms": _p99,
    "LAST ERROR": lambda one: one.last_error or NOTHING,
}
_TEXTS = frozenset({"POD", "LAST ERROR"})
_LEAST_COLUMNS = {"OPEN": 100, "LAST ERROR": 100, "FAILED/S": 130, "NOT FOUND/S": 130}
"""Columns that a terminal needs for these columns of the table."""


def _age(found: Rates) -> str:
    minutes, seconds = divmod(int(found.uptime_seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"
