"""HTTP/2 by hand (RFC 9113), with nothing but a socket: what no client library would send."""

from __future__ import annotations

import socket
import struct

SOCKET = "/etc/netutil/net.sock"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 2, 3, 4, 6, 7
WINDOW_UPDATE, CONTINUATION = 8, 9
ACK = END_STREAM = 1
END_HEADERS = 4
CANCEL = 8
FRAME_HEADER_BYTES, MESSAGE_HEADER_BYTES = 9, 5
_INITIAL_WINDOW_SIZE, _MAX_WINDOW = 4, 2**31 - 1
# RFC 7541, appendix A: ":method: POST" is entry 3, ":scheme: http" is 6; those that a peer adds
# begin at 62, the newest first.
_POST, _HTTP, _FIRST_ADDED = 3, 6, 62


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: bytes, value: bytes, *, added: bool = False) -> bytes:
    """Return a header field in full; `added` puts it in the peer's table too (RFC 7541, 6.2)."""
    return (b"\x40" if added else b"\0") + _text(name) + _text(value)


def _text(text: bytes) -> bytes:
    """A string without Huffman's code, its length as a 7-bit-prefixed integer (5.1, 5.2)."""
    size = len(text)
    if size < 127:
        return bytes([size]) + text
    size, length = size - 127, bytearray(b"\x7f")
    while size > 127:
        length.append(size % 128 + 128)
        size //= 128
    length.append(size)
    return bytes(length) + text


def request_headers(method: str) -> bytes:
    """Return the header block that asks for a method, the first time on a connection."""
    return bytes([0x80 | _POST, 0x80 | _HTTP]) + b"".join(
        literal(name, value, added=True)
        for name, value in (
            (b":path", f"/v1alpha.NetUtil/{method}".encode()),
            (b":authority", b"localhost"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        )
    )


REQUEST_AGAIN = bytes(
    [0x80 | _POST, 0x80 | _HTTP, *(0x80 | index for index in range(_FIRST_ADDED, _FIRST_ADDED + 4))]
)
"""The same request once more, in six bytes: the peer's table has its fields now."""


def message(payload: bytes = b"") -> bytes:
    """Return a gRPC message, uncompressed."""
    return struct.pack(">BI", 0, len(payload)) + payload


def question(stream: int, headers: bytes) -> bytes:
    """Return a whole request with an empty message, on a stream of its own."""
    asked = frame(HEADERS, END_HEADERS, stream, headers)
    return asked + frame(DATA, END_STREAM, stream, message())


def opening(window: int = _MAX_WINDOW) -> bytes:
    """Return a connection's first bytes; each stream may send `window` bytes unasked."""
    settings = frame(SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, window))
    grown = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", _MAX_WINDOW - 65535))
    return PREFACE + settings + grown


def connect() -> socket.socket:
    """Return a new connection to the agent. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(SOCKET)
    except BaseException:
        connection.close()
        raise
    return connection
