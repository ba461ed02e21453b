"""What every call goes through: from the peer's name to the caller, from an error to a status."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NoReturn, TypeVar

import grpc
from cachetools import LRUCache
from google.protobuf.message import Message
from netutil.agent.door.table import Connection, ConnectionTable
from netutil.agent.errors import AgentError
from netutil.agent.service.caller import LONGEST_WAIT_SECONDS
from netutil.agent.service.status import code_of, cut, trailing_metadata
from netutil.agent.service.unfinished import Context, Unfinished

_LOG = logging.getLogger(__name__)
T = TypeVar("T", bound=Message)
_PODS_REMEMBERED = 1024

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

    def __init__(
        self, table: ConnectionTable, log: CallLog, observe: Observe, unfinished: Unfinished
    ) -> None:
        self._table = table
        self._unfinished = unfinished
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
            self._unfinished.begin(key, context)
            return self._taken_up(key, await body(connection), context)
        except AgentError as error:
            error.with_traceback(None)  # its frames hold what was read, a whole environment perhaps
            code, reason = code_of(error).name, error.reason
            _LOG.info("%s of pod %s refused: %s (read %s)", method, key or "-", error, error.read)
            await _abort(context, error)
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:  # noqa: BLE001 - a bug of the agent, answered and logged as such
            code, reason = "INTERNAL", type(error).__name__
            _LOG.exception("%s of pod %s failed", method, key or "-")
            await context.abort(
                grpc.StatusCode.INTERNAL,
                cut(
                    f"The agent failed to answer {method}: {error}; its log on the node says more."
                ),
            )
        finally:
            self._log.record(key, reason)
            self._observe(method, code, reason, time.perf_counter() - started)

    def _taken_up(self, key: str, answer: T, context: Context) -> T:
        self._unfinished.hold(key, answer.ByteSize(), context)
        return answer


def wait_seconds(context: Context) -> float:
    """Return how long a call may wait for the pod list: its deadline, five seconds at the most."""
    remaining = context.time_remaining()
    return min(LONGEST_WAIT_SECONDS, remaining if remaining is not None else LONGEST_WAIT_SECONDS)


async def _abort(context: Context, error: AgentError) -> NoReturn:
    await context.abort(code_of(error), cut(error.sentence), trailing_metadata(error))
