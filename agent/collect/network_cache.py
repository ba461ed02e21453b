"""Cache of network namespaces: each is read once, and again when the kernel reports a change.

A namespace is read off the event loop, in the lane of the pod that asks, as its dump waits for a
lock that others hold. What was found is answered from until there is a notification, the IPv6
addresses are others, or it is `_MAX_AGE_SECONDS` old. A change only marks it as stale: the next
call waits for a reading that begins after the call, which all waiting calls share.

A held socket keeps a network namespace in being. So an entry is held by processes that have asked
and are in it. The entry is released when the last of them ends, or has entered another namespace,
and after `_IDLE_SECONDS` without a call.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from cachetools import LRUCache
from netutil.agent.errors import AgentError, QuotaExceeded, Reason, Unauthenticated
from netutil.agent.facts.links import network_namespace
from netutil.agent.facts.network_state import (
    HeldNamespace,
    Namespace,
    NamespaceChangedError,
    NetworkReading,
    NetworkState,
    open_held,
    read_expected,
)
from netutil.agent.facts.sysfs import ThrottledReader
from netutil.agent.identity.process import PinnedProcess
from netutil.agent.limits.token_bucket import TokenBuckets
from netutil.agent.parsers.rtnetlink import Counters

T = TypeVar("T")
OnChange = Callable[[], None]

MAX_PER_POD = 8
"""Namespaces that are held for one pod. What it has beyond is read whenever it is asked for."""
MAX_HOLDERS = 2
"""Processes that keep one namespace held; others that ask do not."""
MAX_ITEMS = 128
"""Links, addresses and default routes of a namespace that is kept, some 50 KiB at most."""
MAX_ANSWERS = 4
"""Answers that are kept with a namespace: of that many containers, or interfaces asked for."""
MAX_AGE_SECONDS = 10.0
"""For changes that the kernel does not notify of (`facts.network_state`)."""
_IDLE_SECONDS = 60.0
_SWEEP_SECONDS = 2.0
_MAX_SWEPT = 128
# Readings of one pod's namespaces take a tenth of a CPU, after half a tenth of a second at once.
_CPU_MS_PER_SECOND, _CPU_MS_BURST, _MAX_WAIT_SECONDS = 100.0, 50.0, 2.0
_READ_FROM = "/proc/<pid>/ns/net"


class Run(Protocol):
    """Runs a blocking read off the event loop, in its pod's lane."""

    async def __call__(  # noqa: D102
        self, pod_key: str, read: Callable[[], T], what: str
    ) -> T: ...


@dataclass(frozen=True, slots=True)
class LiveNetwork:
    """The network namespace of a process as it is now.

    `counters` are by index of the link. `answers` is what was made of `state`, for the next
    who asks; it is released with the namespace. None where the state is not kept.
    """

    state: NetworkState
    counters: Mapping[int, Counters]
    answers: MutableMapping[str, object] | None


@dataclass(slots=True, eq=False)
class _Entry:
    """One namespace. `inet6` is /proc/net/if_inet6 as of `state`, which is valid until a time.

    `changes` counts those that were noticed.
    """

    namespace: Namespace
    pod_key: str
    held: HeldNamespace | None = field(default=None, init=False)
    state: NetworkState | None = field(default=None, init=False)
    inet6: bytes | None = field(default=None, init=False)
    valid_until: float = field(default=0.0, init=False)
    changes: int = field(default=0, init=False)
    used_at: float = field(default=0.0, init=False)
    is_dropped: bool = field(default=False, init=False)
    reader: ThrottledReader | None = field(default=None, init=False)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    next_reading: asyncio.Task[LiveNetwork | Exception] | None = field(default=None, init=False)
    subscribers: set[OnChange] = field(default_factory=set, init=False)
    holders: dict[int, PinnedProcess] = field(default_factory=dict, init=False)
    answers: LRUCache[str, object] = field(
        default_factory=partial(LRUCache, MAX_ANSWERS), init=False
    )

    def notify(self) -> None:
        """Mark the state as stale, and notify the subscribers of the namespace."""
        self.valid_until = 0.0
        self.changes += 1
        for on_change in tuple(self.subscribers):
            on_change()

    def read(self, thread: int) -> NetworkReading | AgentError:
        """Read the namespace, which is opened first if it is not yet. Blocks: not for the loop.

        `thread` is as in `HeldNamespace.read`. A namespace that was dropped meanwhile is closed.
        """
        held = self.held
        if held is None:
            held = self.held = open_held(thread, self.namespace)
            if self.is_dropped:
                held.close()
        try:
            return held.read(thread)
        except AgentError as error:
            return error.with_traceback(None)

    def has_changed(self) -> bool:
        """Take the kernel's notifications; return whether there was a change."""
        changed = self.held is not None and self.held.has_changed()
        if changed:
            self.notify()
        return changed


class NetworkCache:
    """The held namespaces, the least recently used first. Used on one event loop.

    `reads` counts the readings, `evictions` the namespaces that were evicted from a full cache.
    """

    def __init__(
        self, run: Run, limit: int = 1024, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run = run
        self._limit = limit
        self._clock = clock
        self._entries: OrderedDict[Namespace, _Entry] = OrderedDict()
        self._cpu_ms = TokenBuckets(
            _CPU_MS_PER_SECOND, _CPU_MS_BURST, clock, max_debt_seconds=_MAX_WAIT_SECONDS
        )
        self._closer = _Closer()
        self._sweeping: asyncio.TimerHandle | None = None
        self._unswept: list[_Entry] = []
        self.reads = 0
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, namespace: Namespace) -> bool:
        return namespace in self._entries

    @property
    def cpu_tokens(self) -> TokenBuckets:
        """Return the milliseconds of CPU time that readings may take, by pod."""
        return self._cpu_ms

    def current(self, process: PinnedProcess, namespace: Namespace) -> LiveNetwork | None:
        """Return the namespace that a process is in if it is known as it is now, else None.

        Reads two small files and takes notifications: nothing that can block.
        """
        entry = self._entries.get(namespace)
        if entry is None or entry.held is None or self._clock() >= entry.valid_until:
            return None
        # Notifications come last: what was read before is then of a time when nothing had changed.
        by_name, inet6 = entry.held.counters(), entry.held.inet6()
        if entry.has_changed():
            return None
        state = entry.state
        if state is None or by_name is None or inet6 != entry.inet6:
            entry.valid_until = 0.0
            return None
        counters = {link.index: by_name[link.name] for link in state.links if link.name in by_name}
        if len(counters) != len(state.links):
            return None
        self._use(entry, process)
        return LiveNetwork(state, counters, entry.answers)

    async def network(
        self, pod_key: str, process: PinnedProcess, namespace: Namespace
    ) -> LiveNetwork:
        """Return the namespace that a process was just seen in, as it is at some time from now on.

        The namespace is held from then on, by that process. Raises as `facts.links.read_links` and
        as the pool of reads, and `NamespaceChangedError` if the process has entered another one.
        """
        found = self.current(process, namespace)
        if found is not None:
            return found
        try:
            entry = self._entry(pod_key, process, namespace)
        except QuotaExceeded:
            return await self.read_once(pod_key, process, namespace)
        answer = await self._next_reading(entry, pod_key, process)
        if isinstance(answer, LiveNetwork):
            return answer
        if isinstance(answer, AgentError) and not isinstance(answer, Unauthenticated):
            raise answer.without_frames()
        process.ensure_alive()  # the one that was read through may have been another
        raise NamespaceChangedError

    async def read_once(
        self, pod_key: str, process: PinnedProcess, namespace: Namespace
    ) -> LiveNetwork:
        """Return the namespace of a process, which is not held for it. Raises as `network`."""
        pin = process.share()
        try:
            await self._wait(pod_key)
            links = await self._run_charged(
                pod_key, pin, partial(read_expected, expected=namespace)
            )
        finally:
            pin.close()
        self.reads += 1
        return _live(NetworkReading(links, None), None)

    async def subscribe(
        self, pod_key: str, process: PinnedProcess, namespace: Namespace, on_change: OnChange
    ) -> None:
        """Have `on_change` called on each change from now on, and when the namespace is released.

        Raises as `network`, and `QuotaExceeded` if no more namespaces can be held.
        """
        entry = self._entry(pod_key, process, namespace)
        if entry.held is None:
            answer = await self._next_reading(entry, pod_key, process)
            if isinstance(answer, AgentError) and entry.held is None:
                raise answer.without_frames()
            if entry.is_dropped or entry.held is None:
                raise NamespaceChangedError
        entry.subscribers.add(on_change)
        if entry.reader is None:
            entry.reader = ThrottledReader(entry.held.fileno(), partial(_take, entry))

    def is_subscribed(self, namespace: Namespace, on_change: OnChange) -> bool:
        """Return whether `on_change` will be called."""
        entry = self._entries.get(namespace)
        return entry is not None and on_change in entry.subscribers

    def unsubscribe(self, namespace: Namespace, on_change: OnChange) -> None:
        """Undo `subscribe`. Nothing happens if it was undone before."""
        entry = self._entries.get(namespace)
        if entry is None:
            return
        entry.subscribers.discard(on_change)
        if not entry.subscribers and entry.reader is not None:
            entry.reader.close()
            entry.reader = None

    def close(self) -> None:
        """Let all namespaces go."""
        for entry in tuple(self._entries.values()):
            self._drop(entry)
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        self._closer.stop()

    def _next_reading(
        self, entry: _Entry, pod_key: str, process: PinnedProcess
    ) -> Awaitable[LiveNetwork | Exception]:
        """Return the next reading, which is shared by all calls before its start."""
        if entry.next_reading is None:
            reading = self._read(entry, pod_key, process.share())
            entry.next_reading = asyncio.get_running_loop().create_task(reading)
        return asyncio.shield(entry.next_reading)

    async def _read(
        self, entry: _Entry, pod_key: str, process: PinnedProcess
    ) -> LiveNetwork | Exception:
        """Return the namespace, or the error for all waiters."""
        try:
            async with entry.lock:
                try:
                    await self._wait(pod_key)
                finally:
                    entry.next_reading = None  # later calls get a later reading
                return await self._read_now(entry, pod_key, process)
        except (AgentError, NamespaceChangedError, OSError) as error:
            return error.with_traceback(None)
        finally:
            process.close()

    async def _read_now(
        self, entry: _Entry, pod_key: str, process: PinnedProcess
    ) -> LiveNetwork | Exception:
        entry.has_changed()
        # With a queue that could not be emptied the kernel may drop what comes during the reading.
        is_certain = entry.held is None or entry.held.is_drained
        begun, changes = self._clock(), entry.changes
        found = await self._run_charged(pod_key, process, entry.read)
        self.reads += 1
        if isinstance(found, AgentError):
            entry.state = None
            return found
        live = _live(found, entry.state)
        is_kept = _items(live.state) <= MAX_ITEMS
        if live.state is not entry.state:
            entry.answers.clear()
        entry.state, entry.inet6 = (live.state if is_kept else None), found.inet6
        if entry.is_dropped or not is_kept:
            return live
        # Another call, or a stream, may have taken the notification meanwhile.
        if not entry.has_changed() and entry.changes == changes and is_certain and found.is_inline:
            entry.valid_until = begun + MAX_AGE_SECONDS
        return LiveNetwork(live.state, live.counters, entry.answers)

    async def _wait(self, pod_key: str) -> None:
        """Wait until the pod has made up for the CPU time of its readings."""
        seconds = self._cpu_ms.charge(pod_key, 0)
        if seconds:
            await asyncio.sleep(seconds)

    async def _run_charged(
        self, pod_key: str, process: PinnedProcess, work: Callable[[int], T]
    ) -> T:
        """Run `work` off the loop, and charge the pod for the CPU time that it took."""
        took_ms = 0.0

        def job() -> T:
            nonlocal took_ms
            begun = time.thread_time()
            try:
                return pin.through_running_thread(work)
            finally:
                took_ms = (time.thread_time() - begun) * 1000
                pin.close()

        pin = process.share()
        try:
            return await self._run(pod_key, job, _READ_FROM)
        finally:
            self._cpu_ms.charge(pod_key, took_ms)

    def _entry(self, pod_key: str, process: PinnedProcess, namespace: Namespace) -> _Entry:
        """Return the entry of a namespace, held by a process that is in it.

        Raises `QuotaExceeded` if no more can be held, `Unauthenticated` if the process's pin was
        closed.
        """
        entry = self._entries.get(namespace)
        if entry is None:
            self._evict_for(pod_key)
            entry = _Entry(namespace, pod_key)
            self._hold(entry, process)
            self._entries[namespace] = entry
            if self._sweeping is None:
                self._sweep_later()
        self._use(entry, process)
        return entry

    def _evict_for(self, pod_key: str) -> None:
        """Release the least recently used namespace if the pod, or the node, holds too many."""
        own = [entry for entry in self._entries.values() if entry.pod_key == pod_key]
        if len(own) >= MAX_PER_POD:
            self._evict(own)
        elif len(self._entries) >= self._limit:
            self._evict(list(self._entries.values()))

    def _evict(self, among: list[_Entry]) -> None:
        for entry in among:
            if not entry.subscribers and entry.next_reading is None and not entry.lock.locked():
                self.evictions += 1
                self._drop(entry)
                return
        raise QuotaExceeded(
            Reason.AGENT_OUT_OF_RESOURCES,
            f"{len(among)} network namespaces are followed already, and one more cannot be.",
            read=_READ_FROM,
            advice="--max-network-namespaces sets the limit of the node.",
        )

    def _use(self, entry: _Entry, process: PinnedProcess) -> None:
        entry.used_at = self._clock()
        self._entries.move_to_end(entry.namespace)
        if process.pid not in entry.holders and len(entry.holders) < MAX_HOLDERS:
            with suppress(QuotaExceeded):  # a shortage of descriptors: another process holds it
                self._hold(entry, process)

    def _hold(self, entry: _Entry, process: PinnedProcess) -> None:
        """Keep an entry for as long as a process that is in it runs.

        A number that is known is that process: it is not given out again before the end of the
        process is seen here.
        """
        pin = process.duplicate()
        entry.holders[process.pid] = pin
        loop = asyncio.get_running_loop()
        loop.add_reader(pin.fileno(), self._release, entry, process.pid)

    def _release(self, entry: _Entry, pid: int) -> None:
        """Take a process that has ended, or left the namespace, from those that hold it."""
        pin = entry.holders.pop(pid)
        asyncio.get_running_loop().remove_reader(pin.fileno())
        pin.close()
        if not entry.holders:
            self._drop(entry)

    def _drop(self, entry: _Entry) -> None:
        if entry.is_dropped:
            return
        entry.is_dropped = True
        del self._entries[entry.namespace]
        if entry.reader is not None:
            entry.reader.close()
            entry.reader = None
        for pid in tuple(entry.holders):
            self._release(entry, pid)
        if entry.held is not None:
            self._closer.close(entry.held)
        entry.notify()
        entry.subscribers.clear()
        entry.state = None
        entry.answers.clear()

    def _sweep_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Release namespaces without recent calls, and namespaces that their holders have left."""
        if not self._unswept:
            self._unswept = list(self._entries.values())
        for entry in self._unswept[-_MAX_SWEPT:]:
            if not entry.is_dropped:
                self._check(entry)
        del self._unswept[-_MAX_SWEPT:]
        if self._entries:
            self._sweep_later()
        else:
            self._unswept.clear()
            self._sweeping = None

    def _check(self, entry: _Entry) -> None:
        if not entry.subscribers and self._clock() - entry.used_at >= _IDLE_SECONDS:
            self._drop(entry)
            return
        for pid, pin in tuple(entry.holders.items()):
            if not _is_in(pin, entry.namespace):
                self._release(entry, pid)


class _Closer:
    """Closes namespaces on one daemon thread.

    close(2) of a netlink socket waits for every notification that is being sent on the node
    (netlink_table_grab in net/netlink/af_netlink.c), and so for the CPU time of any pod.
    """

    def __init__(self) -> None:
        self._namespaces: queue.SimpleQueue[HeldNamespace | None] = queue.SimpleQueue()
        self._is_started = False

    def close(self, held: HeldNamespace) -> None:
        """Close a namespace soon; at once if there is no thread."""
        if not self._is_started:
            try:
                threading.Thread(target=self._work, name="namespace-closer", daemon=True).start()
            except RuntimeError:  # all that Python says where clone(2) fails
                held.close()
                return
            self._is_started = True
        self._namespaces.put(held)

    def stop(self) -> None:
        """End the thread once all that was handed to it is closed."""
        if self._is_started:
            self._is_started = False
            self._namespaces.put(None)

    def _work(self) -> None:
        while (held := self._namespaces.get()) is not None:
            held.close()


def _take(entry: _Entry) -> None:
    entry.has_changed()


def _is_in(process: PinnedProcess, namespace: Namespace) -> bool:
    """Return whether a process is in a namespace, as far as that can be seen."""
    try:
        return process.through_running_thread(network_namespace) == namespace
    except (AgentError, OSError):  # the process is exiting, which its pidfd shows
        return True


def _live(found: NetworkReading, known: NetworkState | None) -> LiveNetwork:
    """Return what was found, with the state that is known if that is the same."""
    links = found.without_counters()
    state = known if known is not None and known.links == links else NetworkState(links)
    return LiveNetwork(state, found.counters(), None)


def _items(state: NetworkState) -> int:
    links = state.links
    return len(links) + sum(len(link.addresses) + len(link.default_routes) for link in links)
