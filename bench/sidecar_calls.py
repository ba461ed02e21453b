"""The sidecar's client, which sends its own pid, against the agent, the echo, a Go sidecar."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from bench.h2load import Load
from bench.rows import Row, ratio
from bench.servers import AGENT, ECHO, SIDECAR, THE_ECHO, THE_SIDECAR, Servers, servers

METHODS = ("GetCPUInfo", "GetEnv", "GetNetworkStatus")
"""All that the sidecar answers."""
_IN_FLIGHT = Load(connections=4, streams=4)


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield the rows of each method: against the echo and the sidecar, and calls a second."""
    with servers(SIDECAR) as found:
        for method in METHODS:
            yield from _one_after_the_other(found, method, quick=quick)
        for method in METHODS:
            yield _at_once(found, method, quick=quick)


def _one_after_the_other(found: Servers, method: str, *, quick: bool) -> Iterator[Row]:
    slices, calls = (5, 100) if quick else (15, 200)
    measured = found.interleaved("kept", method, calls, slices, own_pid=True)
    p50 = {name: [one.calls.p50 for one in slices] for name, slices in measured.items()}
    echo, sidecar = statistics.median(p50[ECHO]), statistics.median(p50[SIDECAR])
    yield ratio(
        f"own-pid.{method}.p50",
        f"{method} with the caller's own pid, p50",
        THE_ECHO,
        p50[AGENT],
        p50[ECHO],
        note=f"what the sidecar's client sends; echo {1e6 * echo:.0f} µs",
    )
    yield ratio(
        f"sidecar.{method}.p50",
        f"{method} with the caller's own pid, p50",
        THE_SIDECAR,
        p50[AGENT],
        p50[SIDECAR],
        note=f"sidecar {1e6 * sidecar:.0f} µs, {sidecar / echo:.2f} x the echo's",
    )


def _at_once(found: Servers, method: str, *, quick: bool) -> Row:
    rates = found.rates(
        (ECHO, SIDECAR, AGENT),
        method,
        _IN_FLIGHT,
        calls=1000 if quick else 4000,
        slices=3 if quick else 7,
        own_pid=True,
    )
    echo, sidecar = statistics.median(rates[ECHO]), statistics.median(rates[SIDECAR])
    return ratio(
        f"sidecar.{method}.rate",
        f"{method} with the caller's own pid, calls a second, {_IN_FLIGHT}",
        THE_SIDECAR,
        rates[AGENT],
        rates[SIDECAR],
        note=f"h2load; sidecar {sidecar:.0f}/s, {sidecar / echo:.2f} x the echo's",
    )
