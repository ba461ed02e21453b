"""RFC 7541: the forms that a field may have, the table, and what is no header block."""

from __future__ import annotations

import random

import pytest
from hpack import Decoder
from hpack.exceptions import HPACKError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given, settings
from hypothesis import strategies as st
from netutil.agent.grpcserver import frames as f
from netutil.agent.grpcserver.frames import ErrorCode
from netutil.agent.grpcserver.headers import BlockDecoder, BlockError, encode_block

from tests.support.grpcserver.raw import fields, serving
from tests.support.grpcserver.requests import block, headers
from tests.support.http2 import message

_HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


def text(value: bytes, *, huffman: bool = False) -> bytes:
    data = _HUFFMAN.encode(value) if huffman else value
    assert len(data) < 127
    return bytes([len(data) | (0x80 if huffman else 0)]) + data


USER_AGENT = 58
FORMS: dict[str, bytes] = {
    f"{form}, {name} name{', Huffman' if huffman else ''}": (
        bytes([first | (index if index < mask else mask)])
        + (bytes([index - mask]) if index >= mask else b"")
        + (b"" if index else text(b"x-new", huffman=huffman))
        + text(b"value", huffman=huffman)
    )
    for form, first, mask in (
        ("incremental indexing", 0x40, 0x3F),
        ("no indexing", 0x00, 0x0F),
        ("never indexed", 0x10, 0x0F),
    )
    for name, index in (("a known", USER_AGENT), ("a new", 0))
    for huffman in (False, True)
}


@pytest.mark.parametrize("form", FORMS)
async def test_each_form_of_a_literal_field_is_read(form: str) -> None:
    """[generic 5/2 to 5/13]"""
    async with serving() as bench:
        client = await bench.connect()
        client.send(headers(1, block() + FORMS[form]))
        client.send(f.frame(f.DATA, f.END_STREAM, 1, message()))
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        metadata = dict(bench.echo.contexts[0].invocation_metadata())
        assert metadata["user-agent" if "known" in form else "x-new"] == "value"


async def test_indexed_fields_are_read_from_the_static_table() -> None:
    """[generic 5/1]: :method POST and :scheme http by their numbers."""
    async with serving() as bench:
        client = await bench.connect()
        rest = encode_block([one for one in fields() if one[0] not in (b":method", b":scheme")])
        client.send(headers(1, b"\x83\x86" + rest))
        client.send(f.frame(f.DATA, f.END_STREAM, 1, message()))
        assert (await client.answer(1))[0]["grpc-status"] == "0"


async def test_up_to_two_table_size_updates_may_begin_a_block() -> None:
    """[generic 5/14, 5/15]"""
    async with serving() as bench:
        client = await bench.connect()
        client.send(headers(1, b"\x20\x3f\xe1\x1f" + block()))
        client.send(f.frame(f.DATA, f.END_STREAM, 1, message()))
        assert (await client.answer(1))[0]["grpc-status"] == "0"
        await client.lives()


async def test_a_table_made_smaller_forgets_its_fields() -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.send(headers(1, block() + b"\x40" + text(b"x-new") + text(b"value")))
        client.send(f.frame(f.DATA, f.END_STREAM, 1, message()))
        await client.answer(1)
        client.send(headers(3, b"\x20" + block() + b"\xbe"))
        _, code, _ = await client.goaway()
        assert code == ErrorCode.COMPRESSION_ERROR


BROKEN: dict[str, bytes] = {
    "an index past the tables [2.3.3/1]": block() + b"\xff\x00",
    "a literal's index past the tables [2.3.3/2]": block() + b"\x7f\x00" + text(b"v"),
    "a size update at the end of a block [4.2/1]": block() + b"\x20",
    "more than seven bits of padding [5.2/1]": block() + b"\0\1x\x82" + b"\x1f\xff"[:2],
    "padding of zeros [5.2/2]": block() + b"\0\1x\x81" + b"\x18",
    "EOS in a string [5.2/3]": block() + b"\0\1x\x84" + b"\xff\xff\xff\xff",
    "index 0 [6.1/1]": block() + b"\x80",
    "a table larger than announced [6.3/1]": b"\x3f\xe2\x1f" + block(),
    "an integer without an end": b"\xff" * 20,
    "a literal without its value": block() + b"\0\1x",
    "a literal without its name": block() + b"\0",
    "an index that is cut off": block() + b"\xff",
    "an integer past 2^32": block() + b"\x7f\xff\xff\xff\xff\xff\x01",
    "a string longer than the block": block() + b"\0\1x\x7f\x80\x01v",
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_block_that_cannot_be_decoded_ends_the_connection(case: str) -> None:
    async with serving() as bench:
        client = await bench.connect()
        client.send(headers(1, BROKEN[case]))
        _, code, _ = await client.goaway()
        assert code == ErrorCode.COMPRESSION_ERROR
        await client.ends()


async def test_a_block_of_a_refused_request_still_changes_the_table() -> None:
    async with serving() as bench:
        client = await bench.connect()
        bad = block(p_path=None) + b"\x40" + text(b"x-new") + text(b"value")
        client.send(headers(1, bad))
        client.send(headers(3, block() + b"\xbe"))
        client.send(f.frame(f.DATA, f.END_STREAM, 3, message()))
        assert (await client.answer(3))[0]["grpc-status"] == "0"
        assert ("x-new", "value") in bench.echo.contexts[0].invocation_metadata()


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.binary(max_size=30) | st.sampled_from([*FORMS.values()]), max_size=8),
)
def test_blocks_are_decoded_as_the_library_decodes_them(seed: int, parts: list[bytes]) -> None:
    choose = random.Random(seed)  # noqa: S311
    ours, theirs = BlockDecoder(10**6, 10**6), Decoder(10**6)
    theirs.max_allowed_table_size = 4096
    for number in range(3):
        sent = block(x=str(number)) + b"".join(choose.sample(parts, len(parts)))
        try:
            expected = [(bytes(n), bytes(v)) for n, v in theirs.decode(sent, raw=True)]
        except HPACKError:
            with pytest.raises(BlockError):
                ours.request(sent)
            return
        found = ours.request(sent)
        if found.malformed:
            continue
        regular = [(n, v.strip(b" \t")) for n, v in expected if not n.startswith(b":")]
        assert list(found.fields) == regular
        again = ours.request(block(x=str(number)))
        assert again.path == dict(expected)[b":path"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=20_000)), max_size=5))
def test_the_library_decodes_our_encoding(sent: list[tuple[bytes, bytes]]) -> None:
    found = Decoder(10**6).decode(encode_block(sent), raw=True)
    assert [(bytes(name), bytes(value)) for name, value in found] == sent
