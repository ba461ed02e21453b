"""The rates of connections that count as a flood."""

from __future__ import annotations

from netutil.agent.listener.acceptor import (
    CALM_SECONDS,
    FLOOD_CONNECTIONS_PER_SECOND,
    FloodDetector,
)

WINDOW = 0.1


def in_flood_after(flood: FloodDetector, per_second: float, start: float, seconds: float) -> bool:
    """Return whether there is a flood after so many useless connections a second."""
    found = False
    for step in range(int(seconds / WINDOW) + 1):
        found = flood.in_flood(start + step * WINDOW, int(step * WINDOW * per_second))
    return found


def test_thousands_of_useless_connections_a_second_are_a_flood() -> None:
    assert in_flood_after(FloodDetector(), 2 * FLOOD_CONNECTIONS_PER_SECOND, 1000.0, 1)
    assert not in_flood_after(FloodDetector(), FLOOD_CONNECTIONS_PER_SECOND / 2, 1000.0, 1)


def test_the_first_measurement_has_no_rate() -> None:
    assert not FloodDetector().in_flood(1000.0, 10_000_000)


def test_a_flood_that_pauses_is_over_only_after_a_calm_period() -> None:
    flood = FloodDetector()
    assert in_flood_after(flood, 2 * FLOOD_CONNECTIONS_PER_SECOND, 1000.0, 1)
    assert flood.in_flood(1000 + CALM_SECONDS / 2, 4001)
    assert not flood.in_flood(1002 + CALM_SECONDS, 4002)
