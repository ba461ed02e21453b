"""However the bytes are cut, and whoever sends at the same time: each stream arrives as it was."""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.door.rig import Rig, door_before, echo

PARTS = st.lists(st.binary(min_size=1, max_size=150_000), max_size=12)


async def there_and_back(rig: Rig, parts: list[bytes]) -> bytes:
    """Send the parts one by one while reading; return all that came back."""
    reader, writer = await rig.connect()

    async def send() -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        writer.write_eof()

    async with asyncio.timeout(20):
        received, _ = await asyncio.gather(reader.read(-1), send())
    writer.close()
    return received


@given(PARTS)
@settings(max_examples=25, deadline=None)
def test_bytes_come_back_as_they_were_however_they_are_cut(parts: list[bytes]) -> None:
    async def once(folder: Path) -> bytes:
        async with door_before(echo, folder) as rig:
            return await there_and_back(rig, parts)

    with tempfile.TemporaryDirectory() as folder:
        assert asyncio.run(once(Path(folder))) == b"".join(parts)


async def test_both_directions_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311 - the same bytes each time
    upwards, downwards = chance.randbytes(5_000_000), chance.randbytes(3_000_000)
    above: list[bytes] = []

    async def both(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(downwards)
        received, _ = await asyncio.gather(reader.read(-1), writer.drain())
        above.append(received)

    async with door_before(both, tmp_path) as rig:
        below = await there_and_back(rig, [upwards])
    assert above == [upwards]
    assert below == downwards


async def test_connections_that_are_open_together_do_not_mix(tmp_path: Path) -> None:
    chance = random.Random(2)  # noqa: S311 - the same bytes each time
    sent = [chance.randbytes(chance.randrange(1, 400_000)) for _ in range(20)]
    async with door_before(echo, tmp_path) as rig:
        received = await asyncio.gather(*(there_and_back(rig, [text]) for text in sent))
    assert received == sent


async def test_a_single_byte_does_not_wait_for_more(tmp_path: Path) -> None:
    async with door_before(echo, tmp_path) as rig:
        reader, writer = await rig.connect()
        async with asyncio.timeout(20):
            for number in range(50):
                writer.write(bytes([number]))
                assert await reader.readexactly(1) == bytes([number])
        writer.close()
