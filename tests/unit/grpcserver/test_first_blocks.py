"""The memo of first header blocks returns what decoding returns. No peer fills or drains it."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import grpc
import pytest
from hpack import Decoder
from hypothesis import given, settings
from hypothesis import strategies as st
from netutil.agent.grpcserver.headers import BlockDecoder, FirstBlocks, encode_block

from tests.support.grpcserver.raw import fields, serving
from tests.support.http2 import block as literal_block

_LIMIT = 8 * 1024
_MOST = 64
"""Blocks that are kept."""


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def decoder(first: FirstBlocks | None) -> BlockDecoder:
    return BlockDecoder(_LIMIT, 128 * 1024, first)


def indexed(name: bytes, value: bytes) -> bytes:
    """Return a literal that goes into the dynamic table (RFC 7541, 6.2.1), below 127 bytes each."""
    return b"\x40" + bytes([len(name)]) + name + bytes([len(value)]) + value


def state(table: object) -> tuple[object, ...]:
    names = ("maxsize", "_current_size", "dynamic_entries")
    size, used, entries = (getattr(table, name) for name in names)
    return size, used, [(bytes(name), bytes(value)) for name, value in entries]


REQUEST = encode_block(fields())
PARTS = st.one_of(
    st.builds(
        indexed,
        st.text("abcxyz", min_size=1, max_size=8).map(str.encode),
        st.binary(max_size=100).filter(lambda one: not set(one) & set(b"\0\r\n")),
    ),
    st.integers(62, 70).map(lambda index: bytes([0x80 | index])),
    st.sampled_from([b"\0\1x\1v", b"\x10\1x\1v", b"\x82", b"\x7a\x81\x8c"]),
)
SIZES = st.sampled_from([b"", b"", b"", b"\x20", b"\x3f\xe1\x1f", b"\x3f\x45", b"\x20\x3f\xe1\x1f"])


@settings(max_examples=400, deadline=None)
@given(
    SIZES,
    st.lists(PARTS, max_size=70),
    st.lists(st.lists(PARTS, max_size=6), max_size=3),
)
def test_a_known_block_gives_the_request_and_table_of_decoding(
    size: bytes, first: list[bytes], later: list[list[bytes]]
) -> None:
    memo = FirstBlocks()
    blocks = [size + REQUEST + b"".join(first)]
    blocks += [REQUEST + b"".join(parts) for parts in later]
    warm, plain, library = decoder(memo), decoder(None), Decoder(10**6)
    library.max_allowed_table_size = 4096
    try:
        warm.request(blocks[0])
    except Exception as error:  # noqa: BLE001 - whatever it is, the memo has nothing of it
        assert len(memo) == 0
        with pytest.raises(type(error)):
            decoder(memo).request(blocks[0])
        return
    looking_up = decoder(memo)
    for block in blocks:
        try:
            expected = plain.request(block)
        except Exception as error:  # noqa: BLE001 - the other decoder has to agree
            with pytest.raises(type(error)):
                looking_up.request(block)
            return
        library.decode(block, raw=True)
        assert looking_up.request(block) == expected
        assert state(looking_up._table) == state(library.header_table)
        assert looking_up._table.version == plain._table.version


def test_a_first_block_is_decoded_once_for_all_connections() -> None:
    memo = FirstBlocks()
    block = REQUEST + indexed(b"x-new", b"value")
    request = decoder(memo).request(block)
    again = decoder(memo)
    assert again.request(block) is request
    assert again.work == 0
    later = again.request(REQUEST + b"\xbe")
    assert later.fields[-1] == (b"x-new", b"value")


def test_a_later_block_is_not_looked_up_with_another_table() -> None:
    memo = FirstBlocks()
    uses = REQUEST + indexed(b"x-a", b"1") + b"\xbe"
    decoder(memo).request(uses)
    other = decoder(memo)
    other.request(REQUEST + indexed(b"x-b", b"2"))
    found = other.request(uses)
    assert [name for name, _ in found.fields[-2:]] == [b"x-a", b"x-a"]
    assert state(other._table)[2] == [(b"x-a", b"1"), (b"x-b", b"2")]


@pytest.mark.parametrize(
    "block",
    [
        REQUEST + indexed(b"x", b"v" * 100) * 10,
        REQUEST + b"\0\1x\1v" * 40,
        b"\x20" + REQUEST,
    ],
    ids=["too many bytes", "too many fields", "a table of another size"],
)
def test_an_unusual_first_block_is_not_kept(block: bytes) -> None:
    memo = FirstBlocks()
    decoder(memo).request(block)
    assert len(memo) == 0


def numbered(number: int) -> bytes:
    return REQUEST + indexed(b"x", str(number).encode())


def test_a_flood_of_blocks_takes_one_place_in_a_second() -> None:
    clock = Clock()
    memo = FirstBlocks(clock)
    for number in range(_MOST):
        decoder(memo).request(numbered(number))
    clock.now = 100.0
    for number in range(1000, 11_000):
        decoder(memo).request(numbered(number))
    assert len(memo) == _MOST
    kept = sum(memo.find(numbered(number)) is not None for number in range(_MOST))
    assert kept == _MOST - 1


def test_a_block_that_is_used_stays_whatever_others_send() -> None:
    clock = Clock()
    memo = FirstBlocks(clock)
    decoder(memo).request(REQUEST)
    for number in range(1, _MOST):
        decoder(memo).request(numbered(10_000 + number))
    assert memo.find(REQUEST) is not None
    for second in range(1, 1000):
        clock.now = float(second)
        for number in range(5):
            decoder(memo).request(numbered(second * 5 + number))
        if not second % 30:
            assert memo.find(REQUEST) is not None
    assert memo.find(REQUEST) is not None


def test_a_full_memo_is_small() -> None:
    choose = random.Random(1)  # noqa: S311
    memo = FirstBlocks()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(_MOST):
            names = [f"{number:02}{n:02}".encode() for n in range(24)]
            values = [choose.randbytes(20).hex()[:20].encode() for _ in names]
            one = decoder(memo)
            one.request(
                literal_block(fields())
                + b"".join(indexed(name, value) for name, value in zip(names, values, strict=True))
            )
            del one, names, values
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(memo) == _MOST
    assert used < 640 * 1024


async def test_metadata_that_a_handler_read_is_not_kept_with_a_block() -> None:
    """A value of n bytes in base64 may be n values (a comma joins them)."""
    seen: list[int] = []

    async def handler(request: bytes, context: Any) -> bytes:
        seen.append(len(context.invocation_metadata()))
        return request

    async with serving() as bench:
        made: Any = grpc.unary_unary_rpc_method_handler(handler)
        bench.server.add_registered_method_handlers("test.First", {"Read": made})
        client = await bench.connect()
        client.ask(head=[*fields(p_path="/test.First/Read"), (b"x-bin", b"," * 800)])
        assert (await client.answer())[0]["grpc-status"] == "0"
        kept = bench.server.first_blocks._known.values()
        assert [sorted(request.notes) for request, _ in kept] == [["head"]]
    assert seen == [801]
