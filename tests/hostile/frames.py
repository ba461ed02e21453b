"""Calls by hand, as HTTP/2 frames over a socket (RFC 9113). Runs in a pod.

`python frames.py path HEX` calls the method of that path and returns once the agent has answered
or broken the connection off.
"""

from __future__ import annotations

import socket
import struct
import sys

PATH = __file__
SOCKET = "/etc/netutil/net.sock"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4
_LONGEST_SHORT = 127


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def text(value: bytes) -> bytes:
    """A string of HPACK without Huffman's code (RFC 7541, 5.1 and 5.2)."""
    if len(value) < _LONGEST_SHORT:
        return bytes([len(value)]) + value
    rest, length = len(value) - _LONGEST_SHORT, bytes([_LONGEST_SHORT])
    while rest >= 128:
        length += bytes([rest % 128 + 128])
        rest //= 128
    return length + bytes([rest]) + value


def call(path: bytes, stream: int) -> bytes:
    """The frames of a unary call with an empty message."""
    block = b"".join(
        b"\0" + text(name) + text(value)
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path),
            (b":authority", b"localhost"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        )
    )
    message = frame(DATA, END_STREAM, stream, bytes(5))
    return frame(HEADERS, END_HEADERS, stream, block) + message


def connected() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(SOCKET)
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b""))
    return connection


def call_path(path: bytes) -> None:
    with connected() as connection:
        connection.sendall(call(path, 1))
        received = b""
        # Its answer, or that of a server which is shutting down, or the end.
        while b"grpc-status" not in received:
            more = connection.recv(65536)
            if not more:
                return
            received += more


if __name__ == "__main__":
    call_path(bytes.fromhex(sys.argv[2]))
