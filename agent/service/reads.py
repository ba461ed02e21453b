"""Blocking reads off the event loop, bounded so that a wedged pod costs only itself.

Reading another process's environment takes its memory lock, and a hostile
workload can hold that. Each pod has at most one read in flight; a read that
takes too long is given up by its caller but keeps its pod's turn until the
kernel lets go of the thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from netutil.agent.errors import Exhausted, Reason, Unavailable

T = TypeVar("T")


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class ReadPool:
    """Runs functions on daemon threads, which never keep the process from ending."""

    def __init__(
        self, *, threads: int = 256, timeout_seconds: float = 2.0, waiting_per_pod: int = 64
    ) -> None:
        self._most = threads
        self._timeout_seconds = timeout_seconds
        self._waiting_per_pod = waiting_per_pod
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._turns: dict[str, _Turn] = {}
        self._running = 0
        self.threads = 0
        self.timeouts = 0

    async def run(self, pod_key: str, read: Callable[[], T], what: str) -> T:
        """Return what `read` returns, or raise what it raises.

        Raises `Unavailable` after the timeout, `Exhausted` if too many reads of this pod wait.
        """
        turn = self._turns.setdefault(pod_key, _Turn())
        if turn.waiting >= self._waiting_per_pod:
            raise Exhausted(
                Reason.TOO_MANY_READS_OF_POD,
                f"{turn.waiting} reads for the caller's pod are waiting already.",
                read=what,
                advice="Ask less often; an environment does not change after the start.",
            )
        turn.waiting += 1
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await turn.lock.acquire()
                job = self._submit(read, lambda: self._end_turn(pod_key, turn))
                return await asyncio.shield(job)
        except TimeoutError:
            self.timeouts += 1
            raise Unavailable(
                Reason.READ_TIMED_OUT,
                f"{what} could not be read within {self._timeout_seconds} s.",
                read=what,
                advice="The process keeps the kernel from reading its memory; look at what it"
                " does.",
            ) from None
        finally:
            turn.waiting -= 1
            self._forget(pod_key, turn)

    def _submit(self, read: Callable[[], T], done: Callable[[], None]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def finish(result: Any, error: BaseException | None) -> None:
            self._running -= 1
            done()
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
                future.exception()  # a caller that gave up does not fetch it any more
            else:
                future.set_result(result)

        def job() -> None:
            try:
                result, error = read(), None
            except Exception as raised:  # noqa: BLE001 - handed to whoever waits
                result, error = None, raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(finish, result, error)

        self._running += 1
        self._jobs.put(job)
        if self._running > self.threads and self.threads < self._most:
            self.threads += 1
            threading.Thread(target=self._work, name="read", daemon=True).start()
        return future

    def _work(self) -> None:
        while True:
            self._jobs.get()()

    def _end_turn(self, pod_key: str, turn: _Turn) -> None:
        turn.lock.release()
        self._forget(pod_key, turn)

    def _forget(self, pod_key: str, turn: _Turn) -> None:
        if not turn.waiting and not turn.lock.locked():
            self._turns.pop(pod_key, None)
