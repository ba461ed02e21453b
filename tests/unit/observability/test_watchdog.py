"""A loop that stalls is reported while it stalls."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

import pytest
from netutil.agent.observability.watchdog import Watchdog

from tests.support.waiting import eventually, until


def stalled_seen(watchdog: Watchdog, go_on: threading.Event, seen: list[str]) -> None:
    """Note what the watchdog says during the stall, and end the stall. Not on the loop."""
    try:
        seen.append(eventually(watchdog.problem))
        seen.append("lag" if watchdog.lag_seconds() >= 0.2 else "no lag")
    finally:
        go_on.set()


async def stall(watchdog: Watchdog, begin: Callable[[threading.Event], object]) -> list[str]:
    """Return what the watchdog says while the loop waits for an event; `begin` lets it wait."""
    go_on, seen = threading.Event(), list[str]()
    watchdog.start()
    try:
        looking = threading.Thread(target=stalled_seen, args=(watchdog, go_on, seen))
        looking.start()
        begin(go_on)
        await until(lambda: not looking.is_alive() and not watchdog.problem())
    finally:
        watchdog.stop()
    return seen


async def test_a_stall_is_a_problem_until_the_loop_runs_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watchdog = Watchdog(0.2)
    with caplog.at_level(logging.WARNING):
        seen = await stall(watchdog, lambda go_on: asyncio.get_running_loop().call_soon(go_on.wait))
        await until(lambda: len(caplog.messages) >= 2)
    assert seen[0].startswith("the event loop has not turned for") and seen[1] == "lag"
    assert watchdog.stalls >= 1  # a loaded machine may add one
    assert "threading.py" in caplog.messages[0] and "runs again" in caplog.messages[1]


async def test_a_stall_within_the_sign_of_life_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler that blocks may run there, and once did."""
    watchdog = Watchdog(0.2)
    turn = watchdog._turn

    def begin(go_on: threading.Event) -> None:
        def turn_late() -> None:
            go_on.wait()
            turn()

        monkeypatch.setattr(watchdog, "_turn", turn_late)

    assert len(await stall(watchdog, begin)) == 2
    assert watchdog.stalls >= 1  # a loaded machine may add one


async def test_a_loop_that_turns_is_no_problem() -> None:
    watchdog = Watchdog(30.0)
    watchdog.start()
    try:
        await until(lambda: watchdog._lag_seconds > 0.0)
        assert watchdog.stalls == 0 and not watchdog.problem()
        assert watchdog.lag_seconds() < 30.0
    finally:
        watchdog.stop()
    await until(lambda: "watchdog" not in {one.name for one in threading.enumerate()})
