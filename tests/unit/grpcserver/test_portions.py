"""How much of one connection is processed before others are served."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import grpc
from netutil.agent.grpcserver import Connection

from tests.support import http2
from tests.support.grpcserver.policy import OpenPolicy, Work
from tests.support.grpcserver.raw import Bench, RawClient, fields, serving
from tests.support.http2 import message
from tests.support.waiting import busy, until

_LONG_SECONDS = 0.002
REQUESTS = (1, 3, 5, 7)


class OnePortion(OpenPolicy):
    """A policy by which a connection waits for an iteration of the loop after each portion."""

    def __init__(self, began: list[int]) -> None:
        self.begun_by: list[int] = []
        """How many handlers had begun at the end of each portion."""
        self.overheads: list[int] = []
        self._began = began
        self._allowed = True

    def may_process(self, connection: Connection) -> bool:
        return self._allowed

    def wait(self, connection: Connection, work: Work) -> None:
        asyncio.get_running_loop().call_soon(self._go_on, work)

    def _go_on(self, work: Work) -> None:
        self._allowed = True
        work()

    def processed(self, connection: Connection, seconds: float, overhead: int) -> None:
        self._allowed = False
        self.begun_by.append(len(self._began))
        self.overheads.append(overhead)


async def asked_at_once(bench: Bench, began: list[int], seconds: float) -> RawClient:
    """Send all requests in one write, to a handler that takes so long."""

    def handle(request: bytes, _: Any) -> bytes:
        began.append(len(began))
        busy(seconds)
        return request

    handlers: dict[str, Any] = {"Answer": grpc.unary_unary_rpc_method_handler(handle)}
    bench.server.add_registered_method_handlers("test.Plain", handlers)
    client = await bench.connect()
    block = http2.block(fields(p_path="/test.Plain/Answer"))
    client.send(
        *(
            http2.header_frames(stream, block)
            + http2.frame(http2.DATA, http2.END_STREAM, stream, message())
            for stream in REQUESTS
        )
    )
    return client


async def test_a_call_that_takes_long_is_the_last_of_its_portion() -> None:
    began: list[int] = []
    policy = OnePortion(began)
    async with serving(policy=policy) as bench:
        client = await asked_at_once(bench, began, _LONG_SECONDS)
        for stream in REQUESTS:
            assert (await client.answer(stream))[0]["grpc-status"] == "0"
        steps = {after - before for before, after in pairwise((0, *policy.begun_by))}
        assert max(steps) == 1, policy.begun_by
        # What begins calls that were read before has no overhead.
        begins_only = policy.overheads[policy.begun_by.index(1) + 1 :]
        assert max(begins_only) <= 0, policy.overheads
        await client.lives(99)


async def test_a_reset_call_that_waits_for_its_portion_begins_not() -> None:
    began: list[int] = []
    policy = OnePortion(began)
    async with serving(policy=policy) as bench:
        client = await asked_at_once(bench, began, _LONG_SECONDS)
        client.send(http2.rst_stream(REQUESTS[-1], 8))
        for stream in REQUESTS[:-1]:
            assert (await client.answer(stream))[0]["grpc-status"] == "0"
        await client.lives(99)
        (connection,) = bench.server.connections
        assert not connection.ready
        assert not connection.http2.streams


async def test_calls_of_a_half_closed_connection_are_answered() -> None:
    began: list[int] = []
    policy = OnePortion(began)
    async with serving(policy=policy) as bench:
        client = await asked_at_once(bench, began, _LONG_SECONDS)
        client.writer.write_eof()
        for stream in REQUESTS:
            assert (await client.answer(stream))[0]["grpc-status"] == "0"
        await client.ends()


async def test_calls_that_wait_for_a_portion_end_with_the_connection() -> None:
    began: list[int] = []
    policy = OnePortion(began)
    async with serving(policy=policy) as bench:
        client = await asked_at_once(bench, began, _LONG_SECONDS)
        (connection,) = bench.server.connections
        await until(lambda: began, pause_seconds=0)
        connection.abort()
        await client.ends()
        assert len(began) < len(REQUESTS)
        assert not connection.ready
        await until(lambda: not bench.server.connections)
        await asyncio.sleep(0.01)
        assert len(began) < len(REQUESTS)
