"""An HTTP/2 engine without a transport, which answers each request with its own body."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

from netutil.agent.grpcserver import ServerConfig
from netutil.agent.grpcserver.headers import Request, encode_block
from netutil.agent.grpcserver.http2 import Http2Connection, Stream


class Echoing:
    """Answers each request with its own body, once that has ended."""

    def __init__(self, config: ServerConfig | None = None) -> None:
        self.http2 = Http2Connection(config or ServerConfig(), self)
        self.bodies: dict[int, bytearray] = {}

    def on_request(self, stream: Stream, request: Request) -> None:
        self.bodies[stream.id] = bytearray()

    def on_data(self, stream: Stream, data: memoryview) -> None:
        self.bodies[stream.id] += data
        self.http2.consumed(stream, len(data))

    def on_end(self, stream: Stream) -> None:
        body = bytes(self.bodies.pop(stream.id))
        head = encode_block([(b":status", b"200")])
        self.http2.send_unary(stream, head, body, encode_block([(b"grpc-status", b"0")]))

    def on_reset(self, stream: Stream) -> None:
        self.bodies.pop(stream.id, None)

    def on_closed(self, stream: Stream) -> None:
        """Nothing is kept of it here."""

    def on_writable(self, stream: Stream) -> None:
        """Nothing waits for it here."""

    def on_ping_ack(self, opaque: bytes) -> None:
        """Nothing waits for it here."""

    def take(self) -> bytes:
        out = bytearray()
        while self.http2.out:
            out += b"".join(self.http2.out)
            self.http2.out.clear()
            self.http2.taken()
            self.http2.send_waiting()
        return bytes(out)


def kinds(data: bytes) -> list[int]:
    """The kinds of the frames in some bytes."""
    found, at = [], 0
    while at + 9 <= len(data):
        found.append(data[at + 3])
        at += 9 + int.from_bytes(data[at : at + 3], "big")
    return found


def calls(work: Callable[[], object]) -> int:
    """Return the number of functions that are called, Python's own among them."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count
