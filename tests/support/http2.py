"""HTTP/2 and HPACK by hand (RFC 9113, RFC 7541): what no client library would send.

Standard library only, so that a program in a pod can import it under `python -S`. It shares no code
with agent/grpcserver: a fault in the encoding of one is then not hidden by the other.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

SOCKET = "/etc/netutil/net.sock"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_BYTES, MAX_FRAME_BYTES = 9, 16_384
MAX_WINDOW, DEFAULT_WINDOW, MAX_STREAM = 2**31 - 1, 65_535, 2**31 - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE = 0, 1, 2, 3, 4, 5
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 6, 7, 8, 9
ACK = END_STREAM = 0x1
END_HEADERS, PADDED = 0x4, 0x8
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 1, 2, 3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 4, 5, 6
CANCEL = 8

POST, HTTP, FIRST_DYNAMIC = 3, 6, 62
"""RFC 7541, appendix A: ":method: POST", ":scheme: http", and the newest field that was added."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame that was read."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame_header(length: int, kind: int, flags: int, stream: int) -> bytes:
    """Return the nine bytes before a payload of `length` bytes, at most 2^24 - 1."""
    return struct.pack(">I", length)[1:] + struct.pack(">BBI", kind, flags, stream)


def parse_frame_header(header: bytes) -> tuple[int, Frame]:
    """Return the length of the payload, and the frame without it."""
    kind, flags, stream = struct.unpack(">BBI", header[3:])
    return int.from_bytes(header[:3], "big"), Frame(kind, flags, stream & MAX_STREAM, b"")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return frame_header(len(payload), kind, flags, stream) + payload


def settings(values: Mapping[int, int]) -> bytes:
    """Return SETTINGS with these values, by identifier."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *item) for item in values.items()))


def window_update(stream: int, increment: int) -> bytes:
    """Return WINDOW_UPDATE; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def rst_stream(stream: int, code: int = CANCEL) -> bytes:
    """Return RST_STREAM."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def header_frames(stream: int, block: bytes, *, end_stream: bool = False) -> bytes:
    """Return HEADERS, and as many CONTINUATION frames as the block needs."""
    parts = [block[at : at + MAX_FRAME_BYTES] for at in range(0, len(block), MAX_FRAME_BYTES)]
    out: list[bytes] = []
    for number, part in enumerate(parts or [b""], 1):
        kind = CONTINUATION if out else HEADERS
        flags = END_STREAM if end_stream and not out else 0
        flags |= END_HEADERS if number >= len(parts) else 0
        out.append(frame(kind, flags, stream, part))
    return b"".join(out)


def integer(value: int, prefix_bits: int, first: int = 0) -> bytes:
    """Return an integer of HPACK (5.1); `first` holds the bits before the prefix."""
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes([first | value])
    value -= most
    out = bytearray([first | most])
    while value > 127:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def text(value: bytes) -> bytes:
    """Return a string of HPACK without Huffman's code (5.2)."""
    return integer(len(value), 7) + value


def indexed(index: int) -> bytes:
    """Return a header field by its place in the tables (6.1)."""
    return integer(index, 7, 0x80)


def literal(name: bytes, value: bytes, *, added: bool = False) -> bytes:
    """Return a header field in full; `added` puts it in the peer's table too (6.2)."""
    return (b"\x40" if added else b"\0") + text(name) + text(value)


def table_size(size: int) -> bytes:
    """Return an update of the dynamic table's size (6.3)."""
    return integer(size, 5, 0x20)


def block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a header block of fields in full."""
    return b"".join(literal(name, value) for name, value in fields)


def request_fields(path: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return the fields of a gRPC request."""
    return (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )


def path_of(method: str) -> bytes:
    """Return the path of a method of the agent's service."""
    return f"/v1alpha.NetUtil/{method}".encode()


def request_headers(method: str) -> bytes:
    """Return the first header block on a connection that calls a method; it fills the table."""
    _, _, *fields = request_fields(path_of(method))
    added = b"".join(literal(name, value, added=True) for name, value in fields)
    return indexed(POST) + indexed(HTTP) + added


REQUEST_AGAIN = b"".join(
    map(indexed, (POST, HTTP, *range(FIRST_DYNAMIC + 3, FIRST_DYNAMIC - 1, -1)))
)
"""The block of `request_headers` once more, in six bytes: the peer's table has its fields now.

The oldest goes first, since pseudo-header fields precede all others (RFC 9113, 8.3).
"""


def message(payload: bytes = b"", flag: int = 0) -> bytes:
    """Return a gRPC message with its prefix; flag 1 says that it is compressed."""
    return struct.pack(">BI", flag, len(payload)) + payload


def request(stream: int, headers: bytes, *, body: bytes | None = None) -> bytes:
    """Return a whole request on a stream of its own; without a body, an empty message."""
    data = message() if body is None else body
    return header_frames(stream, headers) + frame(DATA, END_STREAM, stream, data)


def opening(window: int = MAX_WINDOW, connection_window: int = MAX_WINDOW) -> bytes:
    """Return a connection's first bytes: what the peer may send at first, for a stream and in all.

    The connection's window is 65 535 or more (RFC 9113, 6.9.2).
    """
    grown = connection_window - DEFAULT_WINDOW
    update = window_update(0, grown) if grown else b""
    return PREFACE + settings({INITIAL_WINDOW_SIZE: window}) + update


def connect(path: str = SOCKET) -> socket.socket:
    """Return a new connection. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection


def read_frame(connection: socket.socket) -> Frame:
    """Return the next frame. Raises OSError, ConnectionResetError at the end of the connection."""
    length, found = parse_frame_header(_read(connection, FRAME_HEADER_BYTES))
    return Frame(found.kind, found.flags, found.stream, _read(connection, length))


def _read(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise ConnectionResetError
        parts += part
    return bytes(parts)
