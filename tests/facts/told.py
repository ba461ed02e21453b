"""Counts what is told, and waits for it."""

from __future__ import annotations

import asyncio

import pytest


class Told:
    """Counts, and can be waited for."""

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
        """Return once nothing was told for a while."""
        before = -1
        while before != self.times:
            before = self.times
            await asyncio.sleep(0.1)
        self._news.clear()

    async def not_soon(self) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await self._news.wait()
