"""HTTP/2 floods: a pod that sends as fast as it is let, over many connections at once.

`python -m tests.hostile.floods NAME CONNECTIONS` runs until it is killed. It reads whatever
comes back, since a peer that does not is stopped by back-pressure alone, and connects anew when
it is cut off.
"""

from __future__ import annotations

import selectors
import struct
import sys
from collections.abc import Callable, Iterator

from tests.hostile import http2
from tests.hostile.http2 import END_HEADERS, END_STREAM, frame

_STREAMS_PER_BLOCK = 50
_LAST_STREAM = 2**31 - 1
Blocks = Iterator[bytes]


def same(block: bytes) -> Callable[[], Blocks]:
    """Return a flood of the same bytes again and again, after a usual opening."""

    def blocks() -> Blocks:
        yield http2.opening()
        while True:
            yield block

    return blocks


def streams(method: str, of_stream: Callable[[int], bytes]) -> Callable[[], Blocks]:
    """Return a flood of requests, each on a stream of its own; `of_stream` ends each."""

    def blocks() -> Blocks:
        yield http2.opening()
        headers = http2.request_headers(method)
        stream = 1
        while stream < _LAST_STREAM - 2 * _STREAMS_PER_BLOCK:
            parts = []
            for _ in range(_STREAMS_PER_BLOCK):
                parts.append(frame(http2.HEADERS, END_HEADERS, stream, headers))
                parts.append(of_stream(stream))
                headers = http2.REQUEST_AGAIN
                stream += 2
            yield b"".join(parts)

    return blocks


def _reset(stream: int) -> bytes:
    return frame(http2.RST_STREAM, 0, stream, struct.pack(">I", http2.CANCEL))


def _question(stream: int) -> bytes:
    return frame(http2.DATA, END_STREAM, stream, http2.message())


def _question_of(size: int) -> Callable[[int], bytes]:
    # Field 15 is unknown to the request, so it is parsed and kept.
    payload = b"\x7a" + _varint(size) + bytes(size)
    sent = http2.message(payload)
    parts = [sent[at : at + 16384] for at in range(0, len(sent), 16384)]

    def of_stream(stream: int) -> bytes:
        *first, last = parts
        return b"".join(
            [
                *(frame(http2.DATA, 0, stream, part) for part in first),
                frame(http2.DATA, END_STREAM, stream, last),
            ]
        )

    return of_stream


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number % 128 + 128)
        number //= 128
    return bytes([*digits, number])


def metadata(size: int, *, of_field: int = 1000) -> Callable[[], Blocks]:
    """Return a flood of requests with `size` bytes of metadata each, then reset."""
    fields = http2.literal(b"x-more", b"y" * of_field) * (size // of_field)
    block = http2.request_headers("GetPod") + fields
    first, rest = block[:16384], block[16384:]

    def blocks() -> Blocks:
        yield http2.opening()
        for stream in range(1, _LAST_STREAM, 2):
            more = [rest[at : at + 16384] for at in range(0, len(rest), 16384)]
            parts = [frame(http2.HEADERS, 0 if more else END_HEADERS, stream, first)]
            for number, part in enumerate(more, 1):
                flags = END_HEADERS if number == len(more) else 0
                parts.append(frame(http2.CONTINUATION, flags, stream, part))
            yield b"".join([*parts, _reset(stream)])

    return blocks


def _endless(continuation: bytes) -> Callable[[], Blocks]:
    def blocks() -> Blocks:
        yield http2.opening() + frame(http2.HEADERS, 0, 1, http2.request_headers("GetPod"))
        while True:
            yield continuation

    return blocks


def _open_stream(block: bytes) -> Callable[[], Blocks]:
    def blocks() -> Blocks:
        headers = http2.request_headers("GetPod")
        yield http2.opening() + frame(http2.HEADERS, END_HEADERS, 1, headers)
        while True:
            yield block

    return blocks


def one_byte_each(chunks: Callable[[], Blocks]) -> Callable[[], Blocks]:
    """Return the same flood, one byte in each write."""

    def blocks() -> Blocks:
        for block in chunks():
            for at in range(len(block)):
                yield block[at : at + 1]

    return blocks


FLOODS: dict[str, Callable[[], Blocks]] = {
    "ping": same(frame(http2.PING, 0, 0, bytes(8)) * 900),
    "ping-ack": same(frame(http2.PING, http2.ACK, 0, bytes(8)) * 900),
    "settings": same(frame(http2.SETTINGS, 0, 0) * 1800),
    "priority": same(frame(http2.PRIORITY, 0, 1, bytes([0, 0, 0, 0, 1])) * 1100),
    "window-update": same(frame(http2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * 1200),
    "unknown-frames": same(frame(0xEE, 0, 0) * 1800),
    "empty-data": _open_stream(frame(http2.DATA, 0, 1) * 1800),
    "rapid-reset": streams("GetPod", _reset),
    "calls": streams("GetPod", _question),
    "costly-calls": streams("GetAll", _question),
    "no-such-method": streams("Nothing", _question),
    "message-at-limit": streams("GetPod", _question_of(65_000)),
    "message-past-limit": streams("GetPod", _question_of(66_000)),
    "metadata-8k": metadata(7_000),
    "metadata-huge": metadata(60_000),
    "many-fields": metadata(15_000, of_field=1),
    "continuation": _endless(frame(http2.CONTINUATION, 0, 1, http2.literal(b"x", b"y" * 1000))),
    "empty-continuation": _endless(frame(http2.CONTINUATION, 0, 1) * 1800),
    "one-byte-writes": one_byte_each(streams("GetPod", _question)),
    "garbage": same(bytes(range(256)) * 64),
}


class _Flow:
    """One connection of a flood."""

    def __init__(self, blocks: Blocks) -> None:
        self.socket = http2.connect()
        self.socket.setblocking(False)
        self._blocks = blocks
        self._rest = b""

    def push(self) -> None:
        """Send what is due. Raises OSError, StopIteration."""
        if not self._rest:
            self._rest = next(self._blocks)
        try:
            self._rest = self._rest[self.socket.send(self._rest) :]
        except BlockingIOError:
            pass

    def drain(self) -> None:
        """Take what has come. Raises OSError if that is the end."""
        try:
            if not self.socket.recv(65536):
                raise ConnectionResetError
        except BlockingIOError:
            pass


def flood(blocks: Callable[[], Blocks], connections: int) -> None:
    """Send for ever."""
    selector = selectors.DefaultSelector()
    missing = connections
    while True:
        while missing:
            try:
                flow = _Flow(blocks())
            except OSError:
                break
            selector.register(flow.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, flow)
            missing -= 1
        for key, events in selector.select(timeout=0.1):
            flow = key.data
            try:
                if events & selectors.EVENT_READ:
                    flow.drain()
                if events & selectors.EVENT_WRITE:
                    flow.push()
            except (OSError, StopIteration):
                selector.unregister(flow.socket)
                flow.socket.close()
                missing += 1


if __name__ == "__main__":
    flood(FLOODS[sys.argv[1]], int(sys.argv[2]))
