"""Streams of the clients: how they end."""

from __future__ import annotations

import threading

from netutil.client import AsyncClient, Client

from tests.support.fakes.agent import FakeAgent


async def test_closing_an_asyncio_stream_ends_the_iteration(agent: FakeAgent) -> None:
    async with AsyncClient(agent.path) as client:
        async with client.watch() as stream:
            assert (await anext(stream)).version == 1
        assert [one async for one in stream] == []


def test_closing_the_client_ends_a_stream_in_another_thread(agent: FakeAgent) -> None:
    client = Client(agent.path)
    stream = client.watch()
    assert next(stream).version == 1
    timer = threading.Timer(0.05, client.close)
    timer.start()
    assert list(stream) == []
    timer.join()
