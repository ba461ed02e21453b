"""One thread for calls that block."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class Worker:
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

        The call runs in any case: who cancels the future only ceases to hear of it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                settle = partial(future.set_result, call())
            except BaseException as error:  # noqa: BLE001 - the future raises it
                settle = partial(future.set_exception, error)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(lambda: future.done() or settle())

        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(job)
        return future

    async def stop(self, patience_seconds: float) -> None:
        """Let the thread end after what it was given; wait for that no longer than told."""
        if self._thread is None:
            return
        last = self.run(lambda: None)
        self._jobs.put(None)
        await asyncio.wait({last}, timeout=patience_seconds)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
