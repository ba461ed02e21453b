"""All facts of one caller, collected in stages, for GetAll, Watch and DescribePod."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from google.protobuf.message import Message
from netutil.agent.collect.caller import Caller
from netutil.agent.collect.collector import Collector
from netutil.agent.collect.environment_collector import EnvironmentRead
from netutil.agent.errors import (
    AgentError,
    InvalidArgument,
    PermissionDenied,
    QuotaExceeded,
    unreadable,
)
from netutil.agent.grpcserver import EncodedMessage, gather
from netutil.agent.identity.peer import Peer
from netutil.agent.messages.answers import Answers
from netutil.agent.messages.encode import PARTS, Answer, Parts

RecordPart = Callable[[str, Peer, AgentError], None]
"""Records a part of an answer that was rejected: its name, the caller, the error."""
_Makers = dict[str, Callable[[], Answer | Awaitable[Answer]]]
_REJECTIONS = (PermissionDenied, InvalidArgument, QuotaExceeded)
"""Errors of a part of an answer that a caller may be probing for."""


class AllFacts:
    """Collects every part for a caller. Used on the event loop."""

    def __init__(self, collector: Collector, answers: Answers, record_part: RecordPart) -> None:
        self._collector = collector
        self._answers = answers
        self._record_part = record_part

    async def parts(
        self,
        caller: Caller,
        pid: str,
        seconds: float,
        environment: EnvironmentRead | None = None,
        *,
        each_cpu: bool = True,
    ) -> Parts:
        """Return each part, or its error. Raises an error that is neither `AgentError` nor OSError.

        `environment` is what was read before. Held parts are returned at once; only the other parts
        are waited for. Without `each_cpu` the exclusive CPUs are returned, but not the topology
        of each.
        """
        read = environment or await self._collector.environments.read_with_devices(caller, pid)
        parts: dict[str, Answer | AgentError] = {}
        for group in self._stages(caller, pid, seconds, read, each_cpu=each_cpu):
            for name, part in (await _made(group)).items():
                parts[name] = _part(name, part)
        self._record_rejections(caller, parts)
        return parts

    def _stages(
        self, caller: Caller, pid: str, seconds: float, read: EnvironmentRead, *, each_cpu: bool
    ) -> tuple[_Makers, ...]:
        """Return the makers of the parts in stages; the parts of one stage are made together.

        Without stages the parts would block the loop and the GIL for milliseconds where nothing is
        held (make hostile). After a failed read of the environment there is one stage: reads that
        hang, hang together. Parts that may wait for the kubelet, most of the deadline, are last.
        """
        answers, (found, allocated) = self._answers, read
        first: _Makers = {
            "network_status": partial(answers.network, caller, pid),
            "hugepages": partial(answers.hugepages, caller, pid),
        }
        if found is not None:
            first["environment"] = partial(answers.env, caller, found)
        then: _Makers = {"interfaces": partial(answers.interfaces, caller, pid, allocated)}
        last: _Makers = {
            "pod": partial(answers.pod, caller, pid, seconds),
            "cpu": partial(answers.cpu_with_topology, caller, pid, seconds, each_cpu),
            "resources": partial(answers.resources, caller, pid, seconds),
        }
        return (first | then | last,) if isinstance(found, AgentError) else (first, then, last)

    def _record_rejections(self, caller: Caller, parts: Parts) -> None:
        """Record the rejected parts, each reason once."""
        refused: dict[str, tuple[str, AgentError]] = {}
        for name in PARTS:
            part = parts.get(name)
            if isinstance(part, _REJECTIONS):
                refused.setdefault(part.reason, (name, part))
        for name, error in refused.values():
            self._record_part(name, caller.peer, error)


async def _made(group: _Makers) -> dict[str, Answer | BaseException]:
    """Return the parts of a stage, or the exception of each. Coroutines run concurrently."""
    made: dict[str, Answer | BaseException] = {}
    waiting: dict[str, Awaitable[Answer]] = {}
    for name, make in group.items():
        found = _begun(make)
        if isinstance(found, EncodedMessage | Message | Exception):
            made[name] = found
        else:
            waiting[name] = found
    if len(waiting) == 1:  # needs no task
        ((name, one),) = waiting.items()
        made[name] = await _ended(one)
    elif waiting:
        answers = await gather(*map(_ended, waiting.values()))
        made.update(zip(waiting, answers, strict=True))
    return made


def _begun(
    make: Callable[[], Answer | Awaitable[Answer]],
) -> Answer | Awaitable[Answer] | Exception:
    """Return what makes a part at once or later, or its error."""
    try:
        return make()
    except Exception as error:  # noqa: BLE001 - raised once no part waits
        return _without_frames(error)


async def _ended(one: Awaitable[Answer]) -> Answer | Exception:
    """Return a part, or its error."""
    try:
        return await one
    except Exception as error:  # noqa: BLE001 - raised with those of the other parts
        return _without_frames(error)


def _without_frames(error: Exception) -> Exception:
    """Return an error; without its traceback unless it is a bug, whose traceback is logged.

    The frames hold what was read, and lead to the one that holds the error: a cycle.
    """
    return error.with_traceback(None) if isinstance(error, AgentError | OSError) else error


def _part(name: str, made: Answer | BaseException) -> Answer | AgentError:
    """Return a part, or its error. Raises an error that is neither `AgentError` nor OSError."""
    if isinstance(made, OSError):
        made = unreadable(made, str(made.filename or name))
    if isinstance(made, BaseException) and not isinstance(made, AgentError):
        raise made
    return made
