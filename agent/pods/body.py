"""Reads the body of an answer, within bounds, plain or gzip."""

from __future__ import annotations

import zlib

from netutil.agent.pods.model import PodListMalformed
from urllib3 import BaseHTTPResponse

_CHUNK_BYTES = 64 * 1024
_GZIP = 16 + zlib.MAX_WBITS  # zlib.h, inflateInit2: gzip only


def read_body(response: BaseHTTPResponse, largest_bytes: int) -> bytearray:
    """Return the whole body, decompressed.

    Raises `PodListMalformed` for one that is larger, and for gzip that is broken
    or ends early; what urllib3 and the socket raise passes through. Never holds more
    than `largest_bytes` and a chunk, however well the body is compressed.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise PodListMalformed(f"it is encoded as {encoding[:32]!r}, which was not asked for")
    gunzip = zlib.decompressobj(_GZIP) if encoding != "identity" else None
    body = bytearray()
    # read1 gives what has come; read would wait until a chunk is full.
    while chunk := response.read1(_CHUNK_BYTES, decode_content=False):
        body += _inflated(gunzip, chunk, largest_bytes + 1 - len(body)) if gunzip else chunk
        if len(body) > largest_bytes:
            raise PodListMalformed(f"it is larger than {largest_bytes} bytes")
    if gunzip and not gunzip.eof:
        raise PodListMalformed(f"its gzip ends early, after {len(body)} bytes decompressed")
    return body


def _inflated(gunzip: zlib._Decompress, chunk: bytes, most_bytes: int) -> bytes:
    try:
        found = gunzip.decompress(chunk, most_bytes)
    except zlib.error as error:
        raise PodListMalformed(f"its gzip is broken: {error}") from None
    if gunzip.unused_data:
        raise PodListMalformed("something stands after its gzip")
    return found
