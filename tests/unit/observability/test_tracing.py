"""Subscribers to calls: bounded, informed of what they missed, and free if there are none."""

from __future__ import annotations

import asyncio

import pytest
from netutil.agent.observability.call_stats import (
    LATENCY_BOUNDS_SECONDS,
    MAX_PODS,
    CallFeed,
    CallStats,
)

WAITING = 1024


def publish(tracing: CallFeed, method: str = "GetPod") -> None:
    tracing.notify(method, "answered", None, "OK", "", 0.001)


async def test_a_subscriber_gets_each_call_once() -> None:
    tracing = CallFeed()
    onlooker = tracing.subscribe()
    publish(tracing, "GetPod")
    publish(tracing, "GetEnv")
    news = await onlooker.next()
    assert news is not None
    assert ([call.method for call in news[0]], news[1]) == (["GetPod", "GetEnv"], 0)
    waiting = asyncio.create_task(onlooker.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    publish(tracing, "GetCPUInfo")
    again = await waiting
    assert again is not None and [call.method for call in again[0]] == ["GetCPUInfo"]


async def test_a_slow_reader_gets_the_newest_and_the_rests_number() -> None:
    tracing = CallFeed()
    slow, fast = tracing.subscribe(), tracing.subscribe()
    for number in range(WAITING):
        publish(tracing, str(number))
    await fast.next()
    for number in range(WAITING, WAITING + 10):
        publish(tracing, str(number))
    calls, lost = await slow.next() or ([], 0)
    assert (len(calls), lost) == (WAITING, 10)
    assert (calls[0].method, calls[-1].method) == ("10", str(WAITING + 9))
    _, lost = await fast.next() or ([], -1)
    assert lost == 0


async def test_a_subscriber_that_left_gets_and_holds_nothing() -> None:
    tracing = CallFeed()
    onlooker = tracing.subscribe()
    assert tracing
    tracing.unsubscribe(onlooker)
    assert not tracing.subscribers
    publish(tracing)
    tracing.stop()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(onlooker.next(), 0.01)


@pytest.mark.parametrize(
    ("code", "counts", "last"),
    [
        ("PERMISSION_DENIED", (1, 0, 0), "A_REASON"),
        ("UNAUTHENTICATED", (1, 0, 0), "A_REASON"),
        ("RESOURCE_EXHAUSTED", (1, 0, 0), "A_REASON"),
        ("NOT_FOUND", (0, 1, 0), ""),
        ("UNAVAILABLE", (0, 0, 1), "A_REASON"),
    ],
)
def test_a_log_counts_refused_not_found_and_failed_calls_apart(
    code: str, counts: tuple[int, int, int], last: str
) -> None:
    log = CallStats()
    log.record("pod", code, "A_REASON", 0.001)
    found = log.by_pod["pod"]
    assert (found.refused, found.not_found, found.failed) == counts
    assert (found.calls, found.last_error) == (1, last)


async def test_the_end_comes_after_all_earlier_calls() -> None:
    tracing = CallFeed()
    onlooker = tracing.subscribe()
    publish(tracing)
    tracing.stop()
    news = await onlooker.next()
    assert news is not None and len(news[0]) == 1
    assert await onlooker.next() is None
    assert await tracing.subscribe().next() is None


def test_a_log_keeps_counts_by_latency_and_the_last_error() -> None:
    log = CallStats()
    log.record("pod", "OK", "", LATENCY_BOUNDS_SECONDS[0])
    log.record("pod", "PERMISSION_DENIED", "NOT_A_POD", LATENCY_BOUNDS_SECONDS[0] + 1e-9)
    log.record("pod", "OK", "", 1e6)
    found = log.by_pod["pod"]
    assert (found.calls, found.refused, found.last_error) == (3, 1, "NOT_A_POD")
    assert found.latency_counts[:2] == [1, 1] and found.latency_counts[-1] == 1
    assert sum(found.latency_counts) == 3


def test_a_log_forgets_the_pods_that_have_ended() -> None:
    log = CallStats()
    log.record("runs", "OK", "", 0.001)
    log.record("ended", "OK", "", 0.001)
    log.retain({"runs"})
    assert (list(log.by_pod), len(log)) == (["runs"], 1)


def test_a_log_forgets_the_pod_that_has_asked_least_recently() -> None:
    log = CallStats()
    for number in range(MAX_PODS):
        log.record(str(number), "OK", "", 0.0)
    log.record("0", "OK", "", 0.0)
    log.record("new", "OK", "", 0.0)
    assert len(log.by_pod) == MAX_PODS
    assert "1" not in log.by_pod
    assert log.by_pod["0"].calls == 2 and "new" in log.by_pod
