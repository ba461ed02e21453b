"""One stream of snapshots: wait for news, look again, send what differs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import NoReturn, Protocol

from netutil.agent.collect.environment_cache import HeldEnvironment
from netutil.agent.connections.registry import Connection
from netutil.agent.errors import AgentError, Denied, Missing, Reason
from netutil.agent.grpcserver import EncodedMessage
from netutil.agent.limits.scheduler import FairScheduler
from netutil.agent.service.answers import timestamp
from netutil.agent.service.caller import LONGEST_WAIT_SECONDS, Caller, Callers
from netutil.agent.service.calls import Send
from netutil.agent.service.encoded import Parts, everything, join
from netutil.agent.service.gather import EnvironmentRead, Gathering
from netutil.agent.service.gathered import Allocated
from netutil.agent.service.pace import Pace
from netutil.agent.service.snapshot import ENVIRONMENT, Digests, are_short, changed, digests
from netutil.agent.service.watching import Watching
from netutil.v1alpha import netutil_pb2 as api

_SNAPSHOT_SECONDS = 0.0005
"""Loop time that a snapshot takes, which is what GetAll answers: so one of a pod is made in each
round of the loop while other pods wait."""
_SHORTAGE_SECONDS = 1.0
_LONG_AGO = -float("inf")


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
    """What a stream keeps: never a snapshot itself."""

    version: int = 0
    turn: float = _LONG_AGO
    digests: Digests = field(default_factory=dict)
    environment: bool = False
    allocated: Allocated | None = None


class Watches:
    """Runs the streams."""

    def __init__(
        self,
        callers: Callers,
        gathering: Gathering,
        watching: Watching,
        ensure_room: Callable[[], None],
        scheduler: FairScheduler,
    ) -> None:
        """`ensure_room` raises what a new stream is told when there is no room for one."""
        self._scheduler = scheduler
        self._ensure_room = ensure_room
        self._callers = callers
        self._gather = gathering
        self._watching = watching
        self.pace = Pace()

    async def run(
        self, connection: Connection, request: api.WatchRequest, send: Send, make_parts: MakeParts
    ) -> NoReturn:
        """Send snapshots until the stream is to end. Raises why.

        A snapshot is made when the one before has been taken by its reader: a slow one gets
        what is then the newest.
        """
        self._ensure_room()
        async with self._watching.subject() as subject:
            known = _Known()
            while True:
                known.turn = await self.pace.turn(connection.key, known.turn)
                # All watchers of a pod at once would keep the loop from everybody else.
                account = self._scheduler.account(connection.key)
                await self._scheduler.wait_turn(account, _SNAPSHOT_SECONDS)
                subject.look()
                caller = await self._identified(connection, first=not known.version)
                await self._watching.follow(subject, caller)
                response = await self._newer(
                    caller, known, make_parts, request.environment, subject.tell
                )
                if response is not None:
                    await send(response)
                    self._watching.snapshots += 1
                del response  # not to be kept while nothing happens
                await subject.news()

    async def _newer(
        self,
        caller: Caller,
        known: _Known,
        make_parts: MakeParts,
        environment: bool,
        look_again: Callable[[], None],
    ) -> EncodedMessage | None:
        """Return the next message, None if nothing differs from what is known."""
        read = await self._environment(caller, known, asked=environment or not known.environment)
        parts = await make_parts(caller, "", LONGEST_WAIT_SECONDS, environment=read)
        made = await self._gather.worked_out(
            caller, partial(digests, parts, known.digests), _size(read)
        )
        if are_short(made.values()):
            # Nothing tells when there is enough again.
            asyncio.get_running_loop().call_later(_SHORTAGE_SECONDS, look_again)
        seen = {**_environment(known.digests), **made}
        differing = changed(known.digests, seen)
        known.digests = seen
        if not differing:
            return None
        is_told = ENVIRONMENT in parts and not isinstance(parts[ENVIRONMENT], AgentError)
        known.environment = known.environment or is_told
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
        found, named = await self._gather.environment_and_devices(caller, "")
        if allocated is None or not _is_settled(allocated):
            known.allocated = allocated = named
        return found if asked else None, allocated

    async def _identified(self, connection: Connection, *, first: bool) -> Caller:
        try:
            caller = await self._callers.identify(
                connection, LONGEST_WAIT_SECONDS, need_container=first
            )
            # What the first snapshot named is not unnamed while the kubelet does not report it.
            return replace(caller, match=caller.match and caller.match.if_only_container())
        except Denied as error:
            if first or error.reason is not Reason.UNKNOWN_TO_POD_LIST:
                raise
            raise Missing(
                Reason.POD_GONE,
                "The pod has left this node: its pod list does not have it any more.",
                read=error.read,
                advice="A pod that comes back is another one, with processes of its own.",
            ) from None


def _is_settled(allocated: Allocated) -> bool:
    """Return whether reading again would tell no more: a refusal stays one."""
    if allocated.error is not None:
        return False
    return allocated.start_error is None or isinstance(allocated.start_error, Denied)


def _size(read: EnvironmentRead) -> int | None:
    """Return how many variables were read, None if they may be many or long."""
    found, _ = read
    if not isinstance(found, HeldEnvironment):
        return 0
    return len(found.environment.variables) if found.may_be_held else None


def _environment(known: Digests) -> Digests:
    """Return the environment's digest alone, for snapshots without it."""
    return {ENVIRONMENT: known[ENVIRONMENT]} if ENVIRONMENT in known else {}
