"""Threads of the pod sources, and the transfer of their results to the event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Generic, TypeVar

from netutil.agent.pods.sources.base import Take

T = TypeVar("T")


class WorkerThread:
    """Runs blocking calls in order, on one daemon thread that starts with the first.

    Not a ThreadPoolExecutor: the interpreter waits at its end for an executor's
    threads, for ever if one hangs in a read.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Return a future of the running loop for what the call returns or raises.

        The call runs in any case: cancelling the future only discards the result.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                settle = partial(future.set_result, call())
            except BaseException as error:  # noqa: BLE001 - the future raises it
                settle = partial(future.set_exception, error)
            with suppress(RuntimeError):  # the loop is closed: no caller waits any more
                loop.call_soon_threadsafe(lambda: future.done() or settle())

        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(job)
        return future

    async def stop(self, timeout_seconds: float) -> None:
        """Let the thread end after its jobs; wait at most `timeout_seconds`."""
        if self._thread is None:
            return
        last = self.run(lambda: None)
        self._jobs.put(None)
        await asyncio.wait({last}, timeout=timeout_seconds)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


class LatestToLoop(Generic[T]):
    """Hands over what was given last. A loop that is busy finds one list, not a queue of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Take[T]) -> None:
        self._loop = loop
        self._take = take
        self._lock = threading.Lock()
        self._newest: tuple[tuple[T, ...], datetime, bool] | None = None

    def give(self, pods: tuple[T, ...], observed_at: datetime, *, resumed: bool = False) -> None:
        """Give a list. May be called from any thread; does not block."""
        with self._lock:
            on_its_way = self._newest is not None
            self._newest = pods, observed_at, resumed
        if not on_its_way:
            with suppress(RuntimeError):  # the loop is closed: the list is dropped
                self._loop.call_soon_threadsafe(self._hand_over)

    def close(self) -> None:
        """Hand over what was given. Called on the loop."""
        self._hand_over()

    def _hand_over(self) -> None:
        with self._lock:
            newest, self._newest = self._newest, None
        if newest is not None:
            pods, observed_at, resumed = newest
            self._take(pods, observed_at, resumed=resumed)
