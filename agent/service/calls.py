"""What every call goes through: from the peer's name to the caller, from an error to a status."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import grpc
from cachetools import LRUCache
from netutil.agent.door.table import Connection, ConnectionTable
from netutil.agent.errors import AgentError
from netutil.agent.service.caller import LONGEST_WAIT_SECONDS
from netutil.agent.service.status import code_of, trailing_metadata

_LOG = logging.getLogger(__name__)
T = TypeVar("T")
_PODS_REMEMBERED = 1024

Context = grpc.aio.ServicerContext[Any, Any]
Observe = Callable[[str, str, str, float], None]
"""Called with method, code, reason and seconds of each call."""


@dataclass(slots=True)
class PodCalls:
    """The calls of one pod since the agent's start."""

    calls: int = 0
    last_error: str = ""
    last_error_time: float = 0.0


@dataclass(slots=True)
class CallLog:
    """Calls by pod; the pods that asked last are remembered."""

    by_pod: LRUCache[str, PodCalls] = field(
        default_factory=lambda: LRUCache(maxsize=_PODS_REMEMBERED)
    )

    def record(self, pod_key: str, reason: str) -> None:
        """Count one call; `reason` is "" for an answered one."""
        entry: PodCalls | None = self.by_pod.get(pod_key)
        if entry is None:
            entry = self.by_pod[pod_key] = PodCalls()
        entry.calls += 1
        if reason:
            entry.last_error = reason
            entry.last_error_time = time.time()


class Answering:
    """Runs the body of a method for the caller of a connection, and turns errors into statuses."""

    def __init__(self, table: ConnectionTable, log: CallLog, observe: Observe) -> None:
        self._table = table
        self._log = log
        self._observe = observe

    async def answer(
        self, method: str, context: Context, body: Callable[[Connection], Awaitable[T]]
    ) -> T:
        """Return what `body` returns, or abort the call with the status of what it raises."""
        started = time.perf_counter()
        key, code, reason = "", "OK", ""
        try:
            connection = self._table.of_grpc_peer(context.peer())
            key = connection.key
            return await body(connection)
        except AgentError as error:
            code, reason = code_of(error).name, error.reason
            _LOG.info("%s of pod %s refused: %s (read %s)", method, key or "-", error, error.read)
            await _abort(context, error)
        except (OSError, ValueError) as error:
            code, reason = "INTERNAL", type(error).__name__
            _LOG.exception("%s of pod %s failed", method, key or "-")
            await context.abort(
                grpc.StatusCode.INTERNAL,
                f"The agent failed to answer {method}: {error}; its log on the node says more.",
            )
        finally:
            self._log.record(key, reason)
            self._observe(method, code, reason, time.perf_counter() - started)


def wait_seconds(context: Context) -> float:
    """Return how long a call may wait for the pod list: its deadline, five seconds at the most."""
    remaining = context.time_remaining()
    return min(LONGEST_WAIT_SECONDS, remaining if remaining is not None else LONGEST_WAIT_SECONDS)


async def _abort(context: Context, error: AgentError) -> NoReturn:
    await context.abort(code_of(error), error.sentence, trailing_metadata(error))
