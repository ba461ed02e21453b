"""The cost of a call, against a bare server that gives the same answers in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from bench import answers
from bench.h2load import Load
from bench.rows import Row, ratio
from bench.servers import AGENT, ECHO, GRPCSERVER, THE_ECHO, Servers, Slice, servers

_LOAD = Load(connections=8, streams=4)


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield the rows of calls on kept and on fresh connections, and of many calls at once."""
    slices, kept, fresh = (5, 100, 40) if quick else (15, 200, 60)
    with servers(GRPCSERVER) as found:
        for method in answers.METHODS:
            yield from _kept(method, found.interleaved("kept", method, kept, slices))
        for method in ("GetPod", "GetAll"):
            yield from _fresh(method, found.interleaved("fresh", method, fresh, slices))
        yield from _throughput(found, quick=quick)


def _kept(method: str, found: dict[str, list[Slice]]) -> Iterator[Row]:
    p50 = {name: [one.calls.p50 for one in slices] for name, slices in found.items()}
    cpu = {name: [one.cpu for one in slices] for name, slices in found.items()}
    share = statistics.median(cpu[GRPCSERVER]) / statistics.median(cpu[AGENT])
    yield ratio(
        f"kept.{method}.p50",
        f"{method}, kept connection, p50",
        THE_ECHO,
        p50[AGENT],
        p50[ECHO],
        note=_with_ready_made_answers(p50),
    )
    yield ratio(
        f"kept.{method}.cpu",
        f"{method}, CPU of the server for a call",
        THE_ECHO,
        cpu[AGENT],
        cpu[ECHO],
        note=f"grpcserver {100 * share:.0f} %, "
        f"connections, api and collect {100 * (1 - share):.0f} %",
    )


def _fresh(method: str, found: dict[str, list[Slice]]) -> Iterator[Row]:
    p50 = {name: [one.calls.p50 for one in slices] for name, slices in found.items()}
    yield ratio(
        f"fresh.{method}.p50",
        f"{method}, from connect to the answer, p50",
        THE_ECHO,
        p50[AGENT],
        p50[ECHO],
        note=_with_ready_made_answers(p50),
    )
    if method == "GetPod":
        yield ratio(
            "connections.rate",
            "connections a second, one call each",
            THE_ECHO,
            [1 / one.calls.mean for one in found[AGENT]],
            [1 / one.calls.mean for one in found[ECHO]],
            note=f"echo {1 / statistics.median(o.calls.mean for o in found[ECHO]):.0f}/s",
        )


def _with_ready_made_answers(p50: dict[str, list[float]]) -> str:
    echo, alone = p50[ECHO], p50[GRPCSERVER]
    times = statistics.median(a / b for a, b in zip(alone, echo, strict=True))
    return f"echo {1e6 * statistics.median(echo):.0f} µs; grpcserver alone {times:.2f} x"


def _throughput(found: Servers, *, quick: bool) -> Iterator[Row]:
    calls, slices = (1000, 3) if quick else (4000, 7)
    for method in ("GetPod", "GetCPUInfo", "GetAll"):
        rates = found.rates((ECHO, AGENT), method, _LOAD, calls=calls, slices=slices)
        yield ratio(
            f"throughput.{method}",
            f"{method}, calls a second, {_LOAD}",
            THE_ECHO,
            rates[AGENT],
            rates[ECHO],
            note=f"h2load; echo {statistics.median(rates[ECHO]):.0f}/s",
        )
