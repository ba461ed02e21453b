"""The cache for asyncio: a task watches, and code on its event loop reads."""

from __future__ import annotations

import asyncio
import os
from types import TracebackType
from typing import Self

from netutil.client.cache.base import CacheBase, OnChange, closed
from netutil.client.errors import NetUtilError
from netutil.client.rpc.aio import AsyncClient
from netutil.client.rpc.retry import Reconnects


class AsyncCached(CacheBase):
    """`netutil.client.Cached` for asyncio: the same, but `async with`.

    Reading needs no `await`. `on_change` is called on the event loop.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        timeout_seconds: float = 5.0,
        on_change: OnChange | None = None,
    ) -> None:
        super().__init__(on_change)
        self._client = AsyncClient(socket, timeout_seconds)
        self._timeout_seconds = timeout_seconds
        self._first = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Begin to watch, and wait for the first snapshot."""
        self._fork_guard.check()
        if self._task is not None:
            raise RuntimeError("this cache was opened before")
        self._task = asyncio.create_task(self._watch())
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._first.wait()
        except BaseException as ended:
            error = self._state.lost
            if isinstance(ended, TimeoutError) and error is None:  # it came after all
                return
            await self.close()
            if isinstance(ended, TimeoutError) and error is not None:
                raise error from None
            raise

    async def close(self) -> None:
        """End the connection. In a process forked from the one that opened it: nothing."""
        if os.getpid() != self._pid:
            return
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._client.close()

    async def _watch(self) -> None:
        try:
            await self._watch_on()
        finally:  # after any end the facts are no longer kept fresh
            self._lose(closed())

    async def _watch_on(self) -> None:
        reconnects = Reconnects()
        while True:
            watch = self._client.watch()
            try:
                async for observation in watch:
                    reconnects.succeeded()
                    self._receive(observation)
                    self._first.set()
            except NetUtilError as error:
                self._lose(error)
            finally:
                await watch.aclose()
            await asyncio.sleep(reconnects.pause_seconds())
