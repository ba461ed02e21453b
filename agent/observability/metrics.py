"""The agent's metrics, with prometheus_client. docs/operate.md lists them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from netutil.agent.observability.build_info import BuildInfo
from netutil.agent.observability.process_use import own_threads
from prometheus_client import CollectorRegistry, Counter, Gauge, PlatformCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 1, 5)

Reading = Callable[[], float]


Readings = Mapping[str, tuple[str, Reading]]
"""Name of a metric to its help text and what reads it."""
LabelledReadings = Mapping[str, tuple[str, str, Mapping[str, Reading]]]
"""Name of a metric to its help text, its label, and what reads the metric by value of the label."""


class _Readings(Collector):
    """Numbers that the components count themselves, read at each scrape."""

    def __init__(self, gauges: Readings, counters: Readings, labelled: LabelledReadings) -> None:
        self._gauges = gauges
        self._counters = counters
        self._labelled = labelled

    def collect(self) -> Iterable[Metric]:
        for name, (text, read) in self._gauges.items():
            yield GaugeMetricFamily(name, text, value=read())
        for name, (text, read) in self._counters.items():
            yield CounterMetricFamily(name, text, value=read())
        for name, (text, label, reads) in self._labelled.items():
            counter = CounterMetricFamily(name, text, labels=(label,))
            for value, read in reads.items():
                counter.add_metric((value,), read())
            yield counter


@dataclass(slots=True)
class _Latencies:
    """Calls of one method by how long they took; the last bucket has no bound."""

    seconds: float = 0.0
    counts: list[int] = field(default_factory=lambda: [0] * (len(_BUCKETS) + 1))


class _Calls(Collector):
    """What is observed of each call: there are thousands between two scrapes.

    So a call adds to plain numbers, without the locks of prometheus_client's own counters.
    `observe` is for one event loop; `collect` runs on other threads, and copies what it reads.
    Methods, codes and reasons are the agent's own words, and few.
    """

    def __init__(self) -> None:
        self._calls: Tally[tuple[str, str, str]] = Tally()
        self._latencies: dict[str, _Latencies] = {}

    def observe(self, method: str, code: str, reason: str, seconds: float) -> None:
        """Count one call."""
        self._calls[method, code, reason] += 1
        latencies = self._latencies.get(method)
        if latencies is None:
            latencies = self._latencies[method] = _Latencies()
        latencies.seconds += seconds
        latencies.counts[bisect_left(_BUCKETS, seconds)] += 1

    def collect(self) -> Iterable[Metric]:
        labels = ("method", "code", "reason")
        text = "Calls by method, status code and reason."
        calls = CounterMetricFamily("netutil_calls", text, labels=labels)
        for values, count in list(self._calls.items()):
            calls.add_metric(values, count)
        yield calls
        latencies = HistogramMetricFamily(
            "netutil_call_duration_seconds", "Time to answer a call.", labels=("method",)
        )
        bounds = (*map(floatToGoString, _BUCKETS), "+Inf")
        for method, found in list(self._latencies.items()):
            buckets = list(zip(bounds, accumulate(tuple(found.counts)), strict=True))
            latencies.add_metric((method,), buckets, found.seconds)
        yield latencies


class _Held(Collector):
    """How many entries are kept, by kind, and how often they were swept, read when scraped."""

    def __init__(self, counts: Callable[[], Mapping[str, int]], sweeps: Reading) -> None:
        self._counts = counts
        self._sweeps = sweeps

    def collect(self) -> Iterable[Metric]:
        found = GaugeMetricFamily(
            "netutil_held_entries",
            "Entries that are kept of pods, containers and processes.",
            labels=("kind",),
        )
        for kind, number in self._counts().items():
            found.add_metric((kind,), number)
        yield found
        yield CounterMetricFamily(
            "netutil_held_sweeps", "Sweeps of these entries.", value=self._sweeps()
        )


class _Threads(Collector):
    """Threads of the process: of the standard process metrics the one that the library lacks.

    As there, the metric is absent where the process has no descriptor left to read it with.
    """

    def collect(self) -> Iterable[Metric]:
        try:
            threads = own_threads()
        except OSError:
            return
        yield GaugeMetricFamily("process_threads", "Number of OS threads in the process.", threads)


class Metrics:
    """The registry of the agent's metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        calls = _Calls()
        self.registry.register(calls)
        self.observe = calls.observe
        self._errors = Counter(
            "netutil_errors",
            "Connections, calls and parts of answers that failed, by outcome, stage and reason.",
            ("outcome", "stage", "reason"),
            registry=self.registry,
        )
        self._suppressed = Counter(
            "netutil_audit_suppressed",
            "Errors without a line of their own in the log.",
            registry=self.registry,
        )
        self._limits = Gauge(
            "netutil_limit", "Limits as they are set.", ("limit",), registry=self.registry
        )
        self._build = Gauge(
            "netutil_build_info",
            "Always 1, with the versions of the agent, of Python and of grpcio; and whether the"
            " gRPC server is compiled or interpreted.",
            ("version", "python", "grpcio", "server"),
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(_Threads())
        PlatformCollector(registry=self.registry)

    def add(self, gauges: Readings, counters: Readings, labelled: LabelledReadings) -> None:
        """Register metrics that are read when they are collected; `labelled` are counters."""
        self.registry.register(_Readings(gauges, counters, labelled))

    def add_held(self, counts: Callable[[], Mapping[str, int]], sweeps: Reading) -> None:
        """Register how many entries are kept, by kind, and the sweeps that release them."""
        self.registry.register(_Held(counts, sweeps))

    def count_error(self, outcome: str, stage: str, reason: str) -> None:
        """Count one error, as the audit log has it."""
        self._errors.labels(outcome, stage, reason).inc()

    def count_suppressed(self) -> None:
        """Count one error without a log line."""
        self._suppressed.inc()

    def set_build_info(self, build: BuildInfo) -> None:
        """Show the versions of the agent, of Python and of grpcio, and how the server runs."""
        self._build.labels(build.version, build.python, build.grpcio, build.server).set(1)

    def set_limits(self, limits: Mapping[str, float]) -> None:
        """Show limits, by name."""
        for name, value in limits.items():
            self._limits.labels(name).set(value)
