"""Handlers that one event wakes go on in the order of their pods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import grpc
import pytest
from netutil.agent.limits.scheduler import SLICE_SECONDS

from tests.support.grpcserver.admission import Rig, one_process_per_connection, peers_of, rig
from tests.support.grpcserver.raw import RawClient, fields
from tests.support.waiting import busy, until

_CALLS = 20
_LIGHT, _HEAVY = "a" * 32, "b" * 32
_PODS = tuple(f"{pod[:8]}-{pod[:4]}-{pod[:4]}-{pod[:4]}-{pod[:12]}" for pod in (_LIGHT, _HEAVY))


class Woken:
    """A handler that waits for an event of all its calls, and then takes more than a slot."""

    def __init__(self) -> None:
        self.event: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting = 0
        self.went_on: list[str] = []
        """The steps of its calls ("heavy") and of what else is noted, in order."""

    async def answer(self, request: bytes, _: Any) -> bytes:
        self.waiting += 1
        try:
            await asyncio.shield(self.event)
        except OSError:
            pass
        self.went_on.append("heavy")
        busy(2 * SLICE_SECONDS)
        return request


async def _all_wait(it: Rig, woken: Woken) -> tuple[RawClient, RawClient]:
    """Return a client of the light pod, and one of the heavy pod whose calls all wait."""
    handler: Any = grpc.unary_unary_rpc_method_handler(woken.answer)
    handlers: dict[str, Any] = {"Answer": handler}
    it.server.add_registered_method_handlers("test.Woken", handlers)
    light = await it.client()
    await light.lives(1)
    heavy = await it.client()
    for stream in range(1, 2 * _CALLS, 2):
        heavy.ask(stream, head=fields(p_path="/test.Woken/Answer"))
    await until(lambda: woken.waiting == _CALLS)
    return light, heavy


def _fail(event: asyncio.Future[None]) -> None:
    event.set_exception(OSError("what all wait for has failed"))


@pytest.mark.parametrize(
    "wake", [lambda event: event.set_result(None), _fail], ids=["result", "error"]
)
async def test_another_pod_is_answered_between_the_steps_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wake: Callable[[asyncio.Future[None]], None]
) -> None:
    one_process_per_connection(monkeypatch)
    async with rig(tmp_path, identify=peers_of(*_PODS)) as it:
        woken = Woken()
        light, heavy = await _all_wait(it, woken)
        it.handlers.before_answer = lambda _: woken.went_on.append("light")
        account = it.scheduler.account(_HEAVY)
        used = account.used(perf_counter())
        wake(woken.event)
        light.ask(3, b"\0\0\0\0\1" + b"1", head=fields(p_path="/test.Echo/Large"))
        await light.answer(3)
        # It came while the first step ran, or before it.
        assert woken.went_on.index("light") <= 2, woken.went_on
        for stream in range(1, 2 * _CALLS, 2):
            assert (await heavy.answer(stream))[0]["grpc-status"] == "0"
        assert woken.went_on.count("heavy") == _CALLS
        # Older time counts less, so not all of it.
        assert account.used(perf_counter()) - used > _CALLS * SLICE_SECONDS


async def test_a_call_that_ends_in_the_queue_leaves_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_process_per_connection(monkeypatch)
    async with rig(tmp_path, identify=peers_of(*_PODS)) as it:
        woken = Woken()
        _, heavy = await _all_wait(it, woken)
        account = it.scheduler.account(_HEAVY)
        it.scheduler.block(account, 3600.0)
        woken.event.set_result(None)
        await until(lambda: len(account.queue) == _CALLS)
        heavy.writer.transport.abort()
        await until(lambda: not account.queue)
        await until(lambda: it.in_flight.calls == 0)
        assert not woken.went_on
