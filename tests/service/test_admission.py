"""What costs much waits for its pod's turn once it is admitted."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import grpc
from netutil.agent.door.table import ConnectionTable
from netutil.agent.door.turns import Turns
from netutil.agent.service.admission import Admission
from netutil.agent.service.call_log import CallLog
from netutil.agent.service.refusals import Refusals
from netutil.agent.service.tracing import Tracing
from netutil.agent.service.unfinished import Unfinished, UnfinishedLimits

from tests.door.rig import eventually

FRAMES_PER_SECOND = 1000
"""Five in a turn: GetAll takes the credit of eighteen turns."""


class Context:
    """A call of a connection, as gRPC shows it."""

    def __init__(self, peer: str) -> None:
        self._peer = peer

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> tuple[()]:
        return ()

    async def read(self) -> bytes:
        return b""


async def asked(method: str, calls: int, pods: int = 1) -> list[str]:
    """Ask at once, as so many pods, and return the pods of those answered within a moment."""
    table, answered = ConnectionTable(), []
    refusals = Refusals(CallLog(), lambda *_: None, lambda *_: None, Tracing())
    turns = Turns(FRAMES_PER_SECOND)
    admission = Admission(table, Unfinished(UnfinishedLimits()), refusals, turns=turns)

    async def answer(_: Any, context: Any) -> bytes:
        answered.append(context.peer())
        return b""

    async def found(_: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(answer)

    details: Any = type("Details", (), {"method": f"/v1alpha.NetUtil/{method}"})
    handler: Any = await admission.intercept_service(found, details)
    entries = [table.add(f"pod-{number}", None, None) for number in range(pods)]
    contexts = [Context(f"unix-abstract:{entry.name}") for entry in entries]
    tasks = [
        asyncio.ensure_future(handler.stream_unary(None, context))
        for context in itertools.islice(itertools.cycle(contexts), calls)
    ]
    await asyncio.sleep(0)
    at_once = list(answered)
    await eventually(lambda: len(answered) == calls)
    await asyncio.gather(*tasks)
    return at_once


async def test_one_getall_of_a_pod_begins_and_the_next_waits_until_it_is_made_up_for() -> None:
    assert len(await asked("GetAll", 3)) == 1


async def test_a_pod_does_not_wait_for_anothers_getall() -> None:
    assert len(set(await asked("GetAll", 3, pods=3))) == 3


async def test_a_usual_call_does_not_wait_a_second_time() -> None:
    assert len(await asked("GetPod", 30)) == 30
