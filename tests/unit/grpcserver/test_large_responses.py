"""A response larger than one write is sent in pieces, in the order of the policy."""

from __future__ import annotations

import asyncio
from collections import deque

from netutil.agent.grpcserver import Connection, ServerConfig
from netutil.agent.grpcserver.config import Timeouts

from tests.support import http2
from tests.support.grpcserver.policy import OpenPolicy, Work
from tests.support.grpcserver.raw import Bench, RawClient, fields, serving
from tests.support.http2 import message
from tests.support.waiting import until

_BYTES = 400_000
_PIECE_BYTES = 65_536
_FRAME_BYTES = 16_384


class WorkWaits(OpenPolicy):
    """A policy by which each piece of work waits until the test runs it."""

    def __init__(self) -> None:
        self.works: deque[Work] = deque()
        self.allows = True
        self.charges = 0

    def may_process(self, connection: Connection) -> bool:
        return self.allows

    def wait(self, connection: Connection, work: Work) -> None:
        self.works.append(work)

    def processed(self, connection: Connection, seconds: float, overhead: int) -> None:
        assert seconds > 0
        self.charges += 1


async def asked(bench: Bench) -> RawClient:
    """Return a client with a large window that has asked for a large response."""
    client = await bench.connect(hello=False)
    client.hello(INITIAL_WINDOW_SIZE=10 * _BYTES)
    client.send(http2.window_update(0, 10 * _BYTES))
    client.ask(body=message(str(_BYTES).encode()), head=fields(p_path="/test.Echo/Large"))
    return client


async def test_each_piece_of_a_response_waits_for_the_policy() -> None:
    policy = WorkWaits()
    async with serving(policy=policy) as bench:
        client = await asked(bench)
        await until(lambda: policy.works)
        policy.allows = False  # nor does a peer that reads again have more without it
        answer = asyncio.create_task(client.answer())
        (connection,) = bench.server.connections
        pieces = 0
        while connection.http2.sent_bytes < _BYTES:
            await until(lambda: policy.works)
            assert len(policy.works) == 1
            before, charges = connection.http2.sent_bytes, policy.charges
            policy.works.popleft()()
            sent = connection.http2.sent_bytes - before
            assert sent <= _PIECE_BYTES + _FRAME_BYTES
            assert not sent or policy.charges > charges
            pieces += bool(sent)
        assert pieces >= _BYTES // (_PIECE_BYTES + _FRAME_BYTES)
        assert len((await answer)[1]) == _BYTES + 5
        policy.allows = True
        await client.lives()


async def test_a_peer_that_reads_again_waits_for_the_policy() -> None:
    policy = WorkWaits()
    async with serving(policy=policy) as bench:
        client = await asked(bench)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: bench.server.connections)
        (connection,) = bench.server.connections
        while not connection.http2.paused:
            await until(lambda: policy.works or connection.http2.paused)
            while policy.works:
                policy.works.popleft()()
        policy.allows = False
        sent, charges = connection.http2.sent_bytes, policy.charges
        answer = asyncio.create_task(client.answer())
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await until(lambda: policy.works)
        await asyncio.sleep(0.01)
        assert (connection.http2.sent_bytes, len(policy.works)) == (sent, 1)
        assert policy.charges > charges, "the rest of the piece before"
        while not answer.done():
            if policy.works:
                policy.works.popleft()()
            await asyncio.sleep(0)
        assert len(answer.result()[1]) == _BYTES + 5


async def test_a_connection_that_ends_sends_no_further_piece() -> None:
    policy = WorkWaits()
    async with serving(policy=policy) as bench:
        client = await asked(bench)
        await until(lambda: policy.works)
        (connection,) = bench.server.connections
        sent = connection.http2.sent_bytes
        client.writer.close()
        await until(lambda: not bench.server.connections)
        while policy.works:
            policy.works.popleft()()
        assert connection.http2.sent_bytes == sent


async def test_a_reset_response_leaves_the_connection_alive() -> None:
    policy = WorkWaits()
    async with serving(policy=policy) as bench:
        client = await asked(bench)
        await until(lambda: policy.works)
        (connection,) = bench.server.connections
        client.send(http2.rst_stream(1, 8))
        await until(lambda: not connection.http2.streams)
        while policy.works:
            policy.works.popleft()()
        await client.lives()


async def test_a_short_response_passes_one_that_waits() -> None:
    policy = WorkWaits()
    async with serving(policy=policy) as bench:
        client = await asked(bench)
        await until(lambda: policy.works)
        (connection,) = bench.server.connections
        sent = connection.http2.sent_bytes
        found, data = await asked_beside(client)
        assert (found["grpc-status"], data) == ("0", message())
        assert connection.http2.sent_bytes == sent + len(message())


async def test_a_window_that_is_used_up_queues_no_piece() -> None:
    policy = WorkWaits()
    async with serving(policy=policy) as bench:
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=10 * _BYTES)
        client.ask(body=message(str(_BYTES).encode()), head=fields(p_path="/test.Echo/Large"))
        await until(lambda: bench.server.connections)
        (connection,) = bench.server.connections
        await until(lambda: connection.http2.sent_bytes == http2.DEFAULT_WINDOW)
        await asyncio.sleep(0.01)
        assert not policy.works
        client.send(http2.window_update(0, 10 * _BYTES))
        answer = asyncio.create_task(client.answer())
        while not answer.done():
            if policy.works:
                policy.works.popleft()()
            await asyncio.sleep(0)
        assert len(answer.result()[1]) == _BYTES + 5


async def test_a_half_closed_connection_ends_after_a_late_reset() -> None:
    timeouts = Timeouts(late_reset=0.05)
    async with serving(config=ServerConfig(timeouts=timeouts), policy=WorkWaits()) as bench:
        client = await bench.connect(hello=False)
        client.hello(INITIAL_WINDOW_SIZE=10 * _BYTES)
        body = message(str(_BYTES).encode())
        client.ask(body=body, head=fields(p_path="/test.Echo/Large", grpc_timeout="50m"))
        client.writer.write_eof()
        await client.ends()
        await until(lambda: not bench.server.connections)


async def asked_beside(client: RawClient) -> tuple[dict[str, str], bytes]:
    client.ask(3)
    return await client.answer(3)
