"""Blocking reads off the event loop, bounded so that a wedged pod costs only itself.

Reading another process's environment takes its memory lock, and a hostile
workload can hold that. Each pod has at most one read in flight; a read that
takes too long is given up by its caller but keeps its pod's turn until the
kernel lets go of the thread. A thread that has a pod's turn does all that waits for
it: waking a thread and then the loop costs more than most reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from netutil.agent.errors import OverLimit, Reason, Unavailable, shortage

T = TypeVar("T")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A read that waits for its pod's turn, and where its result goes."""

    read: Callable[[], Any]
    future: asyncio.Future[Any]


class _Turn:
    """A pod's reads. `busy` while a thread has the turn; used on the loop but for `next`."""

    __slots__ = ("_lock", "_reads", "busy", "waiting")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reads: deque[_Read] = deque()
        self.waiting = 0
        self.busy = False

    def add(self, one: _Read) -> None:
        with self._lock:
            self._reads.append(one)

    def next(self) -> _Read | None:
        """Take the read that has waited longest; also called by the thread that has the turn."""
        with self._lock:
            return self._reads.popleft() if self._reads else None

    @property
    def is_awaited(self) -> bool:
        with self._lock:
            return bool(self._reads)

    def give_up(self, one: _Read) -> None:
        """Forget a read that has not begun."""
        with self._lock, contextlib.suppress(ValueError):
            self._reads.remove(one)


class ReadPool:
    """Runs functions on daemon threads, which never keep the process from ending."""

    def __init__(
        self, *, threads: int = 256, timeout_seconds: float = 2.0, waiting_per_pod: int = 256
    ) -> None:
        self._most = threads
        self._timeout_seconds = timeout_seconds
        self._waiting_per_pod = waiting_per_pod
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._turns: dict[str, _Turn] = {}
        self._running = 0
        self.threads = 0
        self.timeouts = 0

    def __len__(self) -> int:
        """Return for how many pods reads are under way or waiting."""
        return len(self._turns)

    async def run(self, pod_key: str, read: Callable[[], T], what: str) -> T:
        """Return what `read` returns, or raise what it raises.

        Raises `Unavailable` after the timeout, `OverLimit` if too many reads of this pod wait or
        the node has too little of something for this one.
        """
        turn = self._turns.get(pod_key)
        if turn is None:
            turn = self._turns[pod_key] = _Turn()
        if turn.waiting >= self._waiting_per_pod:
            raise OverLimit(
                Reason.TOO_MANY_READS_OF_POD,
                f"{turn.waiting} reads for the caller's pod are waiting already.",
                read=what,
                advice="Ask less often; an environment does not change after the start.",
            )
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        one = _Read(read, future)
        turn.waiting += 1
        turn.add(one)
        if not turn.busy:
            self._begin(pod_key, turn)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await future
        except (TimeoutError, asyncio.CancelledError) as error:
            turn.give_up(one)
            if isinstance(error, asyncio.CancelledError):
                raise
            self.timeouts += 1
            raise Unavailable(
                Reason.READ_TIMED_OUT,
                f"{what} could not be read within {self._timeout_seconds} s.",
                read=what,
                advice="The process keeps the kernel from reading its memory; look at what it"
                " does.",
            ) from None
        except OSError as error:
            raise shortage(error, what) or error from None
        finally:
            turn.waiting -= 1
            self._forget(pod_key, turn)

    def _begin(self, pod_key: str, turn: _Turn) -> None:
        """Give a pod's turn to a thread, which keeps it until no read of the pod waits."""
        loop = asyncio.get_running_loop()

        def finish(one: _Read, result: Any, error: BaseException | None, last: bool) -> None:
            if not one.future.done():
                if error is not None:
                    one.future.set_exception(error)
                else:
                    one.future.set_result(result)
            if last:
                self._end(pod_key, turn)

        def job() -> None:
            one = turn.next()
            if one is None:  # its caller gave up before a thread was free
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._end, pod_key, turn)
            while one is not None:
                try:
                    result, error = one.read(), None
                except Exception as raised:  # noqa: BLE001 - handed to whoever waits
                    result, error = None, raised
                following = turn.next()
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    loop.call_soon_threadsafe(finish, one, result, error, following is None)
                one = following

        turn.busy = True
        self._running += 1
        self._jobs.put(job)
        if self._running > self.threads and self.threads < self._most and not self._add_thread():
            self._give_back(pod_key, turn)

    def _add_thread(self) -> bool:
        """Start a thread; return False if none is to be had and there is no other."""
        try:
            threading.Thread(target=self._work, name="read", daemon=True).start()
        except RuntimeError as error:  # all that Python says where clone(2) fails
            _LOG.error("no thread for a read of a pod beside %d others: %s", self.threads, error)
            return self.threads > 0
        self.threads += 1
        return True

    def _give_back(self, pod_key: str, turn: _Turn) -> None:
        """Refuse the reads of a turn that no thread will take: without one it is the only job."""
        self._jobs.get_nowait()
        while (one := turn.next()) is not None:
            if not one.future.done():
                one.future.set_exception(
                    OverLimit(
                        Reason.AGENT_OUT_OF_RESOURCES,
                        "The read has no thread: the agent may not start one.",
                        read="clone(2)",
                        advice="Ask again in a moment. Raise the pids limit of the agent's cgroup.",
                    )
                )
        self._end(pod_key, turn)

    def _end(self, pod_key: str, turn: _Turn) -> None:
        self._running -= 1
        turn.busy = False
        if turn.is_awaited:  # a read came after the thread had looked for one
            self._begin(pod_key, turn)
        else:
            self._forget(pod_key, turn)

    def _work(self) -> None:
        while True:
            self._jobs.get()()

    def _forget(self, pod_key: str, turn: _Turn) -> None:
        if not turn.waiting and not turn.busy:
            self._turns.pop(pod_key, None)
