"""The metrics of calls equal those of prometheus_client's own classes."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from netutil.agent.observability.metrics import _BUCKETS, Metrics
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

Call = tuple[str, str, str, float]
CALLS = st.tuples(
    st.sampled_from(["GetPod", "GetAll"]),
    st.sampled_from(["OK", "NOT_FOUND"]),
    st.sampled_from(["", "PID_NOT_FOUND"]),
    st.sampled_from([*_BUCKETS, 0.0, 3e-5, 0.3, 7.5, 1e4]),
)


def samples(text: bytes, prefix: str = "netutil_call") -> set[str]:
    lines = text.decode().splitlines()
    return {line for line in lines if line.startswith(prefix) and "_created" not in line}


def as_prometheus_counts(calls: Iterable[Call]) -> set[str]:
    registry = CollectorRegistry()
    labels = ("method", "code", "reason")
    counter = Counter("netutil_calls", "Calls.", labels, registry=registry)
    histogram = Histogram(
        "netutil_call_duration_seconds", "Time.", ("method",), buckets=_BUCKETS, registry=registry
    )
    for method, code, reason, seconds in calls:
        counter.labels(method, code, reason).inc()
        histogram.labels(method).observe(seconds)
    return samples(generate_latest(registry))


@given(calls=st.lists(CALLS, max_size=20))
def test_calls_are_counted_as_prometheus_would(calls: list[Call]) -> None:
    metrics = Metrics()
    for call in calls:
        metrics.observe(*call)
    assert samples(generate_latest(metrics.registry)) == as_prometheus_counts(calls)


def test_a_scrape_during_calls_neither_fails_nor_loses_any() -> None:
    metrics, scraping = Metrics(), threading.Event()
    found: list[bytes] = []

    def scrape() -> None:
        scraping.set()
        found.extend(generate_latest(metrics.registry) for _ in range(30))

    thread = threading.Thread(target=scrape)
    thread.start()
    scraping.wait()
    number = 0
    while thread.is_alive():
        number += 1
        metrics.observe(f"Method{number % 50}", "OK", str(number % 300), 0.001)
    thread.join()
    assert len(found) == 30
    last = samples(generate_latest(metrics.registry), "netutil_calls_total")
    assert sum(float(line.rpartition(" ")[2]) for line in last) == number


def test_the_threads_of_the_process_are_shown() -> None:
    found = Metrics().registry.get_sample_value("process_threads")
    assert found == psutil.Process().num_threads()


def test_threads_that_cannot_be_read_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("netutil.agent.observability.metrics.own_threads", none_left)
    assert Metrics().registry.get_sample_value("process_threads") is None
