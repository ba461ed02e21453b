"""A connection that waits with the work of its pod is released when its peer closes it."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

from tests.support.grpcserver.admission import POD_KEY, rig
from tests.support.grpcserver.raw import fields
from tests.support.waiting import until


async def test_a_queued_connection_ends_when_its_peer_closes(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as it:
        it.scheduler.block(it.scheduler.account(POD_KEY), 60.0)
        client = await it.connected()
        await until(lambda: len(it.registry) == 1 and it.scheduler.waits == 1)
        client.close()
        await until(lambda: not len(it.registry))
        account = it.scheduler.account(POD_KEY)
        assert not account.queue, "what is closed leaves nothing in the queue"


async def test_a_queued_connection_is_served_in_order(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        it.scheduler.block(it.scheduler.account(POD_KEY), 0.2)
        client = await it.client()
        client.ask(1)
        assert (await client.answer(1))[0]["grpc-status"] == "0"


async def test_a_handler_is_counted_past_its_connections_end(
    tmp_path: Path,
) -> None:
    async with rig(tmp_path) as it:
        client = await it.client()
        client.ask(1, head=fields(p_path="/test.Echo/Lingers"))
        await until(lambda: it.handlers.running == 1)
        assert it.in_flight.calls == 1
        client.writer.close()
        await until(lambda: not it.handlers.running and not it.in_flight.calls)


async def test_a_request_is_answered_between_two_pieces_of_others_work(tmp_path: Path) -> None:
    async with rig(tmp_path) as it:
        client = await it.client()
        await client.lives(1)
        heavy, answered_before = it.scheduler.account("heavy"), []
        heavy.add(1.0, perf_counter())

        def ask_after() -> None:
            client.ask(3)
            answered_before.append(len(it.handlers.contexts))

        def note() -> None:
            answered_before.append(len(it.handlers.contexts))

        for piece in (ask_after, note):
            it.scheduler.wait(heavy, piece)
        await client.answer(3)
        assert answered_before == [1, 2]
