"""Blocking reads off the event loop, bounded so that a blocked pod delays only itself.

Reading another process's environment takes its memory lock, and a hostile workload can hold the
lock. Each pod has one lane with at most one read in flight. A caller gives up a read that takes too
long, but the read occupies the lane until the kernel releases the thread. A thread that serves a
lane does all waiting reads of the lane: waking a thread and then the loop costs more than most
reads. Callers that want the same fact share its next read.

Of a read that mostly takes some microseconds the loop may wait for the end, for less time than it
would take to suspend the call, wake the loop and go on (`BRIEF_SECONDS`). A read that takes longer
is awaited as any other, and the loop then waits for none for a while, of any pod: for 50 times as
long as it waited, which is longer than `BRIEF_SECONDS` where the CPU or the interpreter's lock is
taken. So reads that hostile pods make slow cost the loop a fiftieth of its time at most, however
many pods do so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from netutil.agent.collect.handover import Handover, JobQueue, Signal
from netutil.agent.collect.loop_cpu import LoopCpu
from netutil.agent.errors import QuotaExceeded, Reason, Unavailable, resource_exhausted
from netutil.agent.identity.ptrace import CredentialsNotRestored
from netutil.agent.yield_cpu import yield_cpu

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
BRIEF_SECONDS = 200e-6
"""The longest wait of the loop for a read. A call takes about half of it, and a read a quarter."""
_PAUSE_WAITS = 50
"""How long the loop waits for no read after it waited in vain, in times of that wait."""
_LONG_WAITS = 2
"""So many times `BRIEF_SECONDS` is a wait in vain too, whatever came of it: the CPU or the
interpreter's lock was taken."""
MAX_INLINE_SIZE = 1024
"""Characters or entries of a workload that the loop works on: each may cost microseconds."""


@dataclass(frozen=True, slots=True, eq=False)
class Ready(Generic[T]):
    """What was read, where nothing has to be waited for any more."""

    value: T


class _TimedOut(Exception):
    """A read took longer than its caller waits."""


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A read that waits in a lane, and the futures of its result.

    `share` says what is read, for other callers of the same read; None if it is not shared.
    `handover` is for a read that the loop waits for.
    """

    read: Callable[[], Any]
    share: Hashable | None
    futures: list[asyncio.Future[Any]]
    handover: Handover | None = None


class _PodLane:
    """The reads of a pod, served by one thread at a time. Used on the loop, except `next`."""

    __slots__ = ("_lock", "_reads", "busy", "pod_key", "waiting")

    def __init__(self, pod_key: str) -> None:
        self.pod_key = pod_key
        self._lock = threading.Lock()
        self._reads: dict[_Read, None] = {}
        """In the order in which they are made."""
        self.waiting = 0
        self.busy = False

    def add(self, one: _Read) -> None:
        with self._lock:
            self._reads[one] = None

    def join(self, share: Hashable, future: asyncio.Future[Any]) -> _Read | None:
        """Add a caller to a read that has not begun; return it, None if there is none."""
        with self._lock:
            for one in self._reads:
                if one.share == share:
                    one.futures.append(future)
                    return one
        return None

    def next(self) -> _Read | None:
        """Take the read that has waited longest; also called by the thread that serves the lane."""
        with self._lock:
            one = next(iter(self._reads), None)
            if one is not None:
                del self._reads[one]
            return one

    @property
    def is_awaited(self) -> bool:
        with self._lock:
            return bool(self._reads)

    def give_up(self, one: _Read) -> None:
        """Forget a read that has not begun, if no other caller waits for it."""
        if all(future.done() for future in one.futures):
            self.remove(one)

    def remove(self, one: _Read) -> None:
        """Forget a read, unless it has begun."""
        with self._lock:
            self._reads.pop(one, None)


class ReadPool:
    """Runs functions on daemon threads, which never keep the process from ending."""

    def __init__(
        self, *, threads: int = 256, timeout_seconds: float = 2.0, waiting_per_pod: int = 256
    ) -> None:
        self._most = threads
        self._timeout_seconds = timeout_seconds
        self._waiting_per_pod = waiting_per_pod
        self._jobs: JobQueue[tuple[asyncio.AbstractEventLoop, _PodLane]] = JobQueue()
        self._signal = Signal()
        self._loop_cpu = LoopCpu()
        self._lanes: dict[str, _PodLane] = {}
        self._pending: dict[asyncio.Future[Any], float] = {}
        """The reads that are awaited, and until when (by the loop's clock)."""
        self._timer: asyncio.TimerHandle | None = None
        self._running = 0
        self._waits_after = 0.0
        self.threads = 0
        self.timeouts = 0

    def __len__(self) -> int:
        """Return for how many pods reads are under way or waiting."""
        return len(self._lanes)

    async def run(
        self, pod_key: str, read: Callable[[], T], what: str, share: Hashable | None = None
    ) -> T:
        """Return what `read` returns, or raise what it raises.

        `share` says what is read, for `join`. Raises `Unavailable` after the timeout,
        `QuotaExceeded` if too many reads of this pod wait or the node has too little of something
        for this one.
        """
        lane = self._lanes.get(pod_key)
        if lane is None:
            lane = self._lanes[pod_key] = _PodLane(pod_key)
        self._ensure_queue_space(lane, what)
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        one = _Read(read, share, [future])
        self._add(loop, lane, one, what)
        return await self._outcome(lane, one, future, what)  # type: ignore[no-any-return]

    async def run_brief(self, pod_key: str, read: Callable[[], T], what: str) -> T:
        """Return what `run` does, of a read that mostly takes less than `BRIEF_SECONDS`.

        If a thread is free for it, the loop waits that long, and no longer. Raises as `run`.
        """
        found = self.begin_brief(pod_key, read, what)
        if found is None:
            return await self.run(pod_key, read, what)
        return found.value if isinstance(found, Ready) else await found

    def begin_brief(
        self, pod_key: str, read: Callable[[], T], what: str
    ) -> Ready[T] | Awaitable[T] | None:
        """Return what `run_brief` does: at once, if the read takes less than `BRIEF_SECONDS`.

        None, with nothing begun, where the loop is to wait for no read of this pod. Raises as
        `run`, as does the awaitable.
        """
        if pod_key in self._lanes or self._running >= self.threads:
            return None
        loop = asyncio.get_running_loop()
        began = loop.time()
        if began < self._waits_after:
            return None
        self._loop_cpu.note()
        handover = Handover(self._signal)
        one = _Read(read, None, [], handover)
        lane = self._lanes[pod_key] = _PodLane(pod_key)
        self._add(loop, lane, one, what)
        outcome = handover.wait(BRIEF_SECONDS)
        ended = loop.time()
        if outcome is None or ended - began > _LONG_WAITS * BRIEF_SECONDS:
            self._waits_after = ended + _PAUSE_WAITS * (ended - began)
        if outcome is None:
            if handover.thread is not None:
                self._loop_cpu.release(handover.thread)
            future = loop.create_future()
            one.futures.append(future)
            return self._outcome(lane, one, future, what)
        self._end(lane)
        result, error = outcome
        if error is None:
            return Ready(result)
        if isinstance(error, OSError):
            raise resource_exhausted(error, what) or error from None
        raise error

    async def run_sized(
        self,
        pod_key: str,
        make: Callable[[], T],
        size: int | None = None,
        share: Hashable | None = None,
    ) -> T:
        """Return what `make` makes of `size` characters or entries that a workload wrote.

        On the loop only if they are known to be few, since there may be millions. `share` says what
        is made: callers that wait for the same have it made once. Raises as `run`.
        """
        if size is not None and size <= MAX_INLINE_SIZE:
            return make()
        what = "what the pod itself wrote"
        made = self.join(pod_key, share, what) if share is not None else None
        if made is not None:
            return await made  # type: ignore[no-any-return]
        return await self.run(pod_key, make, what, share)

    def join(self, pod_key: str, share: Hashable, what: str) -> Awaitable[Any] | None:
        """Return the outcome of the next read of what `share` says, None if none is waiting.

        The outcome is of a read that has not begun, so it is no older than one of the caller's own,
        and is made once for all waiting callers. Awaiting it, which has to be at once, raises as
        `run`. Raises `QuotaExceeded` itself.
        """
        lane = self._lanes.get(pod_key)
        if lane is None:
            return None
        self._ensure_queue_space(lane, what)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        one = lane.join(share, future)
        return self._outcome(lane, one, future, what) if one is not None else None

    def _ensure_queue_space(self, lane: _PodLane, what: str) -> None:
        if lane.waiting >= self._waiting_per_pod:
            raise QuotaExceeded(
                Reason.TOO_MANY_READS_OF_POD,
                f"{lane.waiting} reads for the caller's pod are waiting already.",
                read=what,
                advice="Ask less often; an environment does not change after the start.",
            )

    async def _outcome(
        self, lane: _PodLane, one: _Read, future: asyncio.Future[Any], what: str
    ) -> Any:
        """Return the result of a read to one of its callers."""
        loop = asyncio.get_running_loop()
        lane.waiting += 1
        self._pending[future] = loop.time() + self._timeout_seconds
        # Not by the caller, which may go on much later than it could (the order of the pods).
        future.add_done_callback(lambda future: self._settled(lane, future))
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_seconds, self._end_late)
        try:
            return await future
        except _TimedOut:
            lane.give_up(one)
            self.timeouts += 1
            raise Unavailable(
                Reason.READ_TIMED_OUT,
                f"{what} could not be read within {self._timeout_seconds} s.",
                read=what,
                advice="The process keeps the kernel from reading its memory; look at what it"
                " does.",
            ) from None
        except asyncio.CancelledError:
            lane.give_up(one)
            raise
        except OSError as error:
            raise resource_exhausted(error, what) or error from None

    def _settled(self, lane: _PodLane, future: asyncio.Future[Any]) -> None:
        del self._pending[future]
        lane.waiting -= 1
        self._forget(lane)

    def _end_late(self) -> None:
        """End the reads whose time is over. All have the same, so those that began first are first.

        One timer serves all of them: a timer for each costs as much as a short read.
        """
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for future, until in self._pending.items():
            if until > now:
                self._timer = loop.call_at(until, self._end_late)
                return
            if not future.done():
                future.set_exception(_TimedOut())

    def _add(self, loop: asyncio.AbstractEventLoop, lane: _PodLane, one: _Read, what: str) -> None:
        """Let a read wait in a lane. Raises `QuotaExceeded`, OSError: then it does not wait."""
        lane.add(one)
        if lane.busy:
            return
        try:
            self._begin(loop, lane)
        except OSError as error:
            lane.remove(one)
            self._forget(lane)
            raise resource_exhausted(error, what) or error from None

    def _begin(self, loop: asyncio.AbstractEventLoop, lane: _PodLane) -> None:
        """Give a lane to a thread, which serves the lane until no read waits. Raises OSError."""
        job = loop, lane
        self._jobs.put(job)
        lane.busy = True
        self._running += 1
        if self._needs_thread and not self._add_thread():
            self._jobs.take_back(job)
            self._give_back(lane)

    @property
    def _needs_thread(self) -> bool:
        return self.threads < min(self._running, self._most)

    def _serve(self, loop: asyncio.AbstractEventLoop, lane: _PodLane) -> bool:
        """Make the reads of a pod on this thread; return whether it may make others.

        If the loop is closed, no caller waits.
        """
        one = lane.next()
        if one is None:  # its caller gave up before a thread was free
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._end, lane)
        while one is not None:
            if one.handover is None:
                self._loop_cpu.part()
            else:
                one.handover.thread = threading.get_native_id()
            result, error = _attempt(one.read)
            if isinstance(error, CredentialsNotRestored):
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._retire, one.futures, error, lane)
                return False
            following = lane.next()
            if one.handover is not None:
                if one.handover.give((result, error)):
                    self._loop_cpu.follow()
                    return True  # the loop waited, so no other read has come
                self._loop_cpu.part()
            ended = lane if following is None else None
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._finish, one.futures, result, error, ended)
            if following is not None:
                yield_cpu()
            one, result, error = following, None, None
        return True

    def _retire(self, futures: list[asyncio.Future[Any]], error: Exception, lane: _PodLane) -> None:
        """Forget a thread that ends because its credentials are not the agent's.

        Another thread serves what waits in the lane.
        """
        _LOG.error("a thread for reads ends, its credentials cannot be restored: %s", error)
        self.threads -= 1
        exhausted = QuotaExceeded(
            Reason.AGENT_OUT_OF_RESOURCES,
            "The kernel had no memory for the credentials of the read.",
            read="capset(2)",
            advice="Ask again in a moment. Raise the memory limit of the agent's cgroup.",
        )
        self._finish(futures, None, exhausted, lane)
        if self._needs_thread:  # other pods may wait for one
            self._add_thread()

    def _finish(
        self,
        futures: list[asyncio.Future[Any]],
        result: Any,
        error: BaseException | None,
        ended: _PodLane | None,
    ) -> None:
        """Give a read's result to its callers; `ended` is the lane if this was its last read."""
        try:
            for future in futures:
                if future.done():
                    continue
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(result)
        finally:
            if ended is not None:
                self._end(ended)

    def _add_thread(self) -> bool:
        """Start a thread; return False if that fails and there is no other thread."""
        try:
            threading.Thread(target=self._work, name="read", daemon=True).start()
        except RuntimeError as error:  # all that Python says where clone(2) fails
            _LOG.error("no thread for a read of a pod beside %d others: %s", self.threads, error)
            return self.threads > 0
        self.threads += 1
        return True

    def _give_back(self, lane: _PodLane) -> None:
        """Fail the reads of a lane that no thread will serve."""
        while (one := lane.next()) is not None:
            for future in one.futures:
                if future.done():
                    continue
                future.set_exception(
                    QuotaExceeded(
                        Reason.AGENT_OUT_OF_RESOURCES,
                        "The read has no thread: the agent may not start one.",
                        read="clone(2)",
                        advice="Ask again in a moment. Raise the pids limit of the agent's cgroup.",
                    )
                )
        self._end(lane)

    def _end(self, lane: _PodLane) -> None:
        self._running -= 1
        lane.busy = False
        if lane.is_awaited:  # a read came after the thread had looked for one
            self._begin(asyncio.get_running_loop(), lane)
        else:
            self._forget(lane)

    def _work(self) -> None:
        while self._serve(*self._jobs.get()):
            pass

    def _forget(self, lane: _PodLane) -> None:
        # It may be forgotten already, and the pod have another one: a read that ended before its
        # caller waited for it.
        if not lane.waiting and not lane.busy and self._lanes.get(lane.pod_key) is lane:
            del self._lanes[lane.pod_key]


def _attempt(read: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """Return what a read returns, and the error that it raises: one of the two is None.

    A future takes no StopIteration, and what is no Exception would end the thread: each of these is
    the cause of a RuntimeError.
    """
    try:
        return read(), None
    except BaseException as raised:  # noqa: BLE001 - the callers of the read get it
        if isinstance(raised, Exception) and not isinstance(raised, StopIteration):
            return None, raised
        error = RuntimeError(f"A read raised {type(raised).__name__}.")
        error.__cause__ = raised
        return None, error
