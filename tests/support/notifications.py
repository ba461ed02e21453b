"""Counts notifications, and waits for them."""

from __future__ import annotations

import asyncio

import pytest


class Notifications:
    """A callback that counts its calls. `soon` and `not_soon` wait for the next call."""

    def __init__(self) -> None:
        self.times = 0
        self._news = asyncio.Event()

    def __call__(self) -> None:
        self.times += 1
        self._news.set()

    async def soon(self) -> None:
        async with asyncio.timeout(10):
            await self._news.wait()
        self._news.clear()

    async def quiet(self) -> None:
        """Return when no notification arrived for 0.1 s."""
        before = -1
        while before != self.times:
            before = self.times
            await asyncio.sleep(0.1)
        self._news.clear()

    async def not_soon(self) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await self._news.wait()
