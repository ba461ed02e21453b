"""Waiting for what sends no event: the kernel, another process, another thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

SECONDS = 60.0
"""A loaded machine takes seconds for what takes a millisecond."""


def eventually(what: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Return the first true value; fail if that takes longer."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "the condition never became true"
        time.sleep(0.02)
    return found


async def until(
    condition: Callable[[], object], seconds: float = SECONDS, pause_seconds: float = 0.005
) -> None:
    """Return once the condition holds; raise TimeoutError if that takes longer."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition sets no event
            await asyncio.sleep(pause_seconds)


def busy(seconds: float) -> None:
    """Use the CPU for a time, as work that does not wait."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
