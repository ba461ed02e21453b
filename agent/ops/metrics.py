"""The agent's metrics, with prometheus_client. docs/operate.md lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 1, 5)

Reading = Callable[[], float]


class _Readings(Collector):
    """Numbers that the rooms keep for themselves, read when they are scraped."""

    def __init__(
        self,
        gauges: Mapping[str, tuple[str, Reading]],
        counters: Mapping[str, tuple[str, Reading]],
    ) -> None:
        self._gauges = gauges
        self._counters = counters

    def collect(self) -> Iterable[Metric]:
        for name, (text, read) in self._gauges.items():
            yield GaugeMetricFamily(name, text, value=read())
        for name, (text, read) in self._counters.items():
            yield CounterMetricFamily(name, text, value=read())


class Metrics:
    """One registry, and what is observed of each call."""

    def __init__(
        self,
        gauges: Mapping[str, tuple[str, Reading]],
        counters: Mapping[str, tuple[str, Reading]],
    ) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "netutil_calls",
            "Calls by method, status code and reason.",
            ("method", "code", "reason"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "netutil_call_seconds",
            "Time to answer a call.",
            ("method",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.registry.register(_Readings(gauges, counters))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def observe(self, method: str, code: str, reason: str, seconds: float) -> None:
        """Count one call."""
        self._calls.labels(method, code, reason).inc()
        self._seconds.labels(method).observe(seconds)
