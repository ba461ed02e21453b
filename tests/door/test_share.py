"""What a pod's connections have in common: a stop of reading, and bytes that nobody answered."""

from __future__ import annotations

import asyncio
from pathlib import Path

from netutil.agent.errors import AgentError
from netutil.agent.identity.peer import Asker

from tests.door.rig import door_before, echo, eventually

_A_MOMENT_SECONDS = 0.3


async def answered(
    pair: tuple[asyncio.StreamReader, asyncio.StreamWriter], seconds: float = 20
) -> bool:
    reader, writer = pair
    writer.write(b"x")
    try:
        async with asyncio.timeout(seconds):
            return await reader.readexactly(1) == b"x"
    except TimeoutError:
        return False


async def test_a_stopped_pod_is_not_read_over_any_connection_old_or_new(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        old = await rig.connect()
        assert await answered(old)
        (entry,) = rig.table
        rig.table.stop(entry, 600)
        new = await rig.connect()
        assert not await answered(old, _A_MOMENT_SECONDS)
        assert not await answered(new, _A_MOMENT_SECONDS)
        for _, writer in (old, new):
            writer.close()


async def test_a_pod_that_reconnects_does_not_end_its_stop(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        old = await rig.connect()
        assert await answered(old)
        (entry,) = rig.table
        old[1].close()
        await eventually(lambda: len(rig.table) == 0)
        rig.table.stop(entry, 600)
        new = await rig.connect()
        assert not await answered(new, _A_MOMENT_SECONDS)
        new[1].close()


async def test_what_a_stopped_pod_sent_is_answered_afterwards(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        reader, writer = pair = await rig.connect()
        assert await answered(pair)
        (entry,) = rig.table
        rig.table.stop(entry, 0.2)
        assert 0 < entry.share.stopped_seconds <= 0.2 + 1e-6
        writer.write(b"later")
        async with asyncio.timeout(20):
            assert await reader.readexactly(5) == b"later"
        assert not entry.share.stopped
        writer.close()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass
    writer.close()


async def test_bytes_without_an_answer_count_for_the_pod_and_not_for_one_connection(
    tmp_path: Path,
) -> None:
    told = []

    def hear(_: Asker, pod_key: str, error: AgentError) -> None:
        told.append((pod_key, error.reason))

    async with door_before(silent, tmp_path, refused=hear, unanswered_bytes=100_000) as rig:
        table, counts = rig.table, rig.door.counts
        pairs = [await rig.connect() for _ in range(4)]
        for _, writer in pairs[:3]:
            writer.write(bytes(30_000))
        await eventually(lambda: table.unanswered_bytes == 90_000)
        assert counts.cut_off == 0
        pairs[3][1].write(bytes(30_000))
        await eventually(lambda: counts.cut_off == 1)
        assert [reason for _, reason in told] == ["TOO_MANY_UNANSWERED_BYTES"]
        await eventually(lambda: len(table) == 3 and table.unanswered_bytes == 90_000)
        for _, writer in pairs:
            writer.close()
        await eventually(lambda: len(table) == 0)
        assert table.unanswered_bytes == 0
