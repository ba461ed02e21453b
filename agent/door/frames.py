"""Where the frames of an HTTP/2 connection begin (RFC 9113, section 4.1), and what they cost.

Nothing of their content is read: that is the gRPC server's. A header block is dear for its size:
a field may be one byte of it, and the server takes each apart, also of those that it then refuses.
A peer that speaks something else is counted by whatever its bytes happen to say, and ended by the
server.
"""

from __future__ import annotations

PREFACE_BYTES = 24
_HEADER_BYTES = 9
_HEADERS, _CONTINUATION = 1, 9
_BYTES_OF_FRAME = 1024
_HEADER_BLOCK_BYTES_OF_FRAME = 128
_FRAMES_OF_PIECE = 3
"""A read, a write, and a thread of gRPC that wakes for it, whatever is in it."""


class FrameWalk:
    """Follows one direction of one connection, from its first byte on, in pieces of any size."""

    __slots__ = ("_cost", "_header", "_rest", "_stream_frames", "header_block_bytes")

    def __init__(self, stream_frames: int) -> None:
        """A frame that opens a stream counts as `stream_frames` others."""
        self._stream_frames = stream_frames
        self._rest = PREFACE_BYTES
        self._header = b""
        self._cost = 0.0
        self.header_block_bytes = 0
        """Of the header block that began last: HEADERS, and the CONTINUATION that followed."""

    def walk(self, data: bytes, credit: float) -> tuple[int, float]:
        """Return how many of the next bytes fit into a credit, and how many frames they count as.

        With any credit left one more frame begins, and one that has begun goes on to its end.
        A piece counts as three frames at least, and each KiB as one, or 128 bytes of a header
        block: a flood of single bytes, or of few large frames, is one too. A frame counts with its
        last byte, which the server waits for: else dozens of requests that lack but a byte each
        would pass together.
        """
        at, size, count = 0, len(data), 0.0
        while at < size:
            if self._rest:
                step = min(self._rest, size - at)
                self._rest -= step
                at += step
                if not self._rest:
                    count, self._cost = count + self._cost, 0.0
                continue
            if count + at / _BYTES_OF_FRAME >= credit:
                break
            if self._header or size - at < _HEADER_BYTES:
                missing = _HEADER_BYTES - len(self._header)
                self._header += data[at : at + missing]
                at = min(size, at + missing)
                if len(self._header) < _HEADER_BYTES:
                    break
                length, kind = int.from_bytes(self._header[:3], "big"), self._header[3]
                self._header = b""
            else:
                length, kind = int.from_bytes(data[at : at + 3], "big"), data[at + 3]
                at += _HEADER_BYTES
            cost = float(self._stream_frames if kind == _HEADERS else 1)
            if kind in (_HEADERS, _CONTINUATION):
                cost += length / _HEADER_BLOCK_BYTES_OF_FRAME
                begun = 0 if kind == _HEADERS else self.header_block_bytes
                self.header_block_bytes = begun + length
            if length:
                self._rest, self._cost = length, cost
            else:
                count += cost
        return at, max(_FRAMES_OF_PIECE, count) + at / _BYTES_OF_FRAME
