"""Streams of snapshots: what one Watch sends, and how often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import NoReturn, Protocol

from netutil.agent.collect.caller import Caller, CallerResolver
from netutil.agent.collect.collector import Collector
from netutil.agent.collect.environment_cache import HeldEnvironment
from netutil.agent.collect.environment_collector import EnvironmentRead
from netutil.agent.collect.results import Allocated
from netutil.agent.connections.registry import Connection
from netutil.agent.errors import AgentError, NotFound, PermissionDenied, Reason
from netutil.agent.grpcserver import EncodedMessage
from netutil.agent.limits.scheduler import FairScheduler
from netutil.agent.limits.token_bucket import TokenBuckets
from netutil.agent.messages.convert import timestamp
from netutil.agent.messages.encode import Parts, Send, everything, join
from netutil.agent.pods.directory import MAX_LIST_WAIT_SECONDS
from netutil.agent.watch.diff import ENVIRONMENT, Digests, are_short, changed, digests
from netutil.agent.watch.notifier import ChangeNotifier
from netutil.v1alpha import netutil_pb2 as api

MIN_SECONDS = 0.1
"""Least time between two snapshots for one watcher."""
_POD_SECONDS = 0.05
_BURST = 64
"""A pod's watchers may make so many at once, and then one in `_POD_SECONDS`."""
_SNAPSHOT_SECONDS = 0.0005
"""Loop time that a snapshot takes, which is what GetAll answers: so one of a pod is made in each
round of the loop while other pods wait."""
_SHORTAGE_SECONDS = 1.0
_LONG_AGO = -float("inf")


class SnapshotThrottle:
    """Limits the snapshots of a pod: a pod that changes all the time costs a bounded share.

    One change reaches all of a pod's streams at once, if they are at most 64.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self.tokens = TokenBuckets(1 / _POD_SECONDS, _BURST, clock)

    async def acquire(self, pod_key: str, last: float) -> float:
        """Return, once a snapshot may be made, that time; `last` is what it was the last time."""
        now = self._clock()
        start = max(now + self.tokens.charge(pod_key), last + MIN_SECONDS)
        if start > now:
            try:
                await self._sleep(start - now)
            except asyncio.CancelledError:  # nothing is made: the other streams do not pay for it
                self.tokens.give_back(pod_key)
                raise
        return start


class MakeParts(Protocol):
    """Makes the parts of the answer to GetAll."""

    async def __call__(  # noqa: D102
        self,
        caller: Caller,
        pid: str,
        seconds: float,
        *,
        environment: EnvironmentRead | None = None,
        each_cpu: bool = True,
    ) -> Parts: ...


@dataclass(slots=True)
class _Known:
    """The state of a stream between snapshots: digests, and no snapshot."""

    version: int = 0
    made_at: float = _LONG_AGO
    digests: Digests = field(default_factory=dict)
    environment: bool = False
    allocated: Allocated | None = None


class SnapshotStreams:
    """Runs the Watch streams."""

    def __init__(
        self,
        callers: CallerResolver,
        collector: Collector,
        notifier: ChangeNotifier,
        ensure_capacity: Callable[[], None],
        scheduler: FairScheduler,
    ) -> None:
        """`ensure_capacity` raises the error of a new stream for which there is no memory."""
        self._scheduler = scheduler
        self._ensure_capacity = ensure_capacity
        self._callers = callers
        self._collector = collector
        self._notifier = notifier
        self.pace = SnapshotThrottle()

    async def run(
        self, connection: Connection, request: api.WatchRequest, send: Send, make_parts: MakeParts
    ) -> NoReturn:
        """Send snapshots until the stream is to end. Raises why.

        A snapshot is made when the one before has been taken by its reader: a slow one gets
        what is then the newest.
        """
        self._ensure_capacity()
        async with self._notifier.subscription() as subscription:
            known = _Known()
            while True:
                known.made_at = await self.pace.acquire(connection.key, known.made_at)
                # Snapshots for all watchers of a pod at once would delay all other pods.
                account = self._scheduler.account(connection.key)
                await self._scheduler.acquire(account, _SNAPSHOT_SECONDS)
                subscription.acknowledge()
                caller = await self._identified(connection, first=not known.version)
                await self._notifier.follow(subscription, caller)
                response = await self._newer(
                    caller, known, make_parts, request.environment, subscription.notify
                )
                if response is not None:
                    await send(response)
                    self._notifier.snapshots += 1
                del response  # not to be kept while nothing happens
                await subscription.wait()

    async def _newer(
        self,
        caller: Caller,
        known: _Known,
        make_parts: MakeParts,
        environment: bool,
        notify: Callable[[], None],
    ) -> EncodedMessage | None:
        """Return the next message, None if nothing differs from what is known."""
        read = await self._environment(caller, known, asked=environment or not known.environment)
        parts = await make_parts(caller, "", MAX_LIST_WAIT_SECONDS, environment=read)
        made = await self._collector.reads.run_sized(
            caller.peer.pod_key, partial(digests, parts, known.digests), _size(read)
        )
        if are_short(made.values()):
            # No notification comes when there is enough again.
            asyncio.get_running_loop().call_later(_SHORTAGE_SECONDS, notify)
        seen = {**_environment(known.digests), **made}
        differing = changed(known.digests, seen)
        known.digests = seen
        if not differing:
            return None
        is_included = ENVIRONMENT in parts and not isinstance(parts[ENVIRONMENT], AgentError)
        known.environment = known.environment or is_included
        known.version += 1
        rest = api.WatchResponse(
            version=known.version,
            changed=differing if known.version > 1 else (),
            observed_at=timestamp(datetime.now(UTC)),
        )
        snapshot = ("snapshot", everything(parts).body)
        return EncodedMessage(join(api.WatchResponse, [snapshot]) + rest.SerializeToString())

    async def _environment(self, caller: Caller, known: _Known, *, asked: bool) -> EnvironmentRead:
        """Read the environment, once, if it is asked for or its devices are not known yet."""
        allocated = known.allocated
        if allocated is not None and _is_settled(allocated) and not asked:
            return None, allocated
        found, named = await self._collector.environments.read_with_devices(caller, "")
        if allocated is None or not _is_settled(allocated):
            known.allocated = allocated = named
        return found if asked else None, allocated

    async def _identified(self, connection: Connection, *, first: bool) -> Caller:
        try:
            caller = await self._callers.identify(
                connection, MAX_LIST_WAIT_SECONDS, need_container=first
            )
            # What the first snapshot named is not unnamed while the kubelet does not report it.
            return replace(caller, match=caller.match and caller.match.if_only_container())
        except PermissionDenied as error:
            if first or error.reason is not Reason.UNKNOWN_TO_POD_LIST:
                raise
            raise NotFound(
                Reason.POD_GONE,
                "The pod has left this node: its pod list does not have it any more.",
                read=error.read,
                advice="A pod that comes back is another one, with processes of its own.",
            ) from None


def _is_settled(allocated: Allocated) -> bool:
    """Return whether another reading would add nothing: a rejection stays a rejection."""
    if allocated.error is not None:
        return False
    return allocated.start_error is None or isinstance(allocated.start_error, PermissionDenied)


def _size(read: EnvironmentRead) -> int | None:
    """Return how many variables were read, None if they may be many or long."""
    found, _ = read
    if not isinstance(found, HeldEnvironment):
        return 0
    return len(found.environment.variables) if found.may_be_held else None


def _environment(known: Digests) -> Digests:
    """Return the environment's digest alone, for snapshots without it."""
    return {ENVIRONMENT: known[ENVIRONMENT]} if ENVIRONMENT in known else {}
