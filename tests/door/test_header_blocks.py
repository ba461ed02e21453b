"""A header block is bounded before gRPC takes it apart."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from netutil.agent.door.limits import Limits
from netutil.agent.errors import AgentError
from netutil.agent.identity.peer import Asker

from tests.door.rig import door_before, eventually
from tests.door.test_frames import CONTINUATION, DATA, HEADERS, PREFACE, frame

MOST = 20_000


async def relayed(blocks: list[bytes], folder: Path) -> tuple[int, int, list[str]]:
    """Send, and return how many bytes came through, what was cut off, and the reasons told."""
    came, reasons = bytearray(), []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            came.extend(data)
        writer.close()

    def told(_: Asker, __: str, error: AgentError) -> None:
        reasons.append(f"{error.reason} {error.sentence}")

    limits = Limits(100, 100, header_bytes=MOST)
    async with door_before(hear, folder, limits=limits, refused=told) as rig:
        counts = rig.door.counts
        reader, writer = await rig.connect()
        writer.writelines(blocks)
        whole = sum(map(len, blocks))
        await eventually(lambda: counts.cut_off == 1 or len(came) == whole)
        if counts.cut_off:
            with contextlib.suppress(ConnectionResetError):  # there is more that nobody read
                assert await reader.read() == b""
        writer.close()
        await eventually(lambda: len(rig.table) == 0)
    return len(came), counts.cut_off, reasons


async def test_a_header_block_past_the_limit_ends_the_connection(tmp_path: Path) -> None:
    first, more = frame(HEADERS, 15_000), frame(CONTINUATION, 15_000)
    came, cut_off, reasons = await relayed([PREFACE, first, more, more], tmp_path)
    assert cut_off == 1
    assert came <= len(PREFACE + first)
    (told,) = reasons
    assert told.startswith("TOO_MANY_HEADER_BYTES ")
    assert "30000 bytes" in told
    assert str(MOST) in told


async def test_one_frame_past_the_limit_does_not_come_through_at_all(tmp_path: Path) -> None:
    came, cut_off, _ = await relayed([PREFACE + frame(HEADERS, MOST + 1)], tmp_path)
    assert (cut_off, came) == (1, 0)


async def test_many_header_blocks_within_the_limit_and_much_data_pass(tmp_path: Path) -> None:
    call = frame(HEADERS, 10_000) + frame(CONTINUATION, 10_000) + frame(DATA, 16_384)
    _, cut_off, reasons = await relayed([PREFACE, *[call] * 20], tmp_path)
    assert (cut_off, reasons) == (0, [])
