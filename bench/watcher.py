"""A watcher in 7 MiB: HTTP/2 frames by hand (RFC 9113), so that 250 fit beside the agent.

Runs in a pod. Prints a line with the monotonic time of each snapshot; when the stream or the
connection ends it prints "lost", and comes back as the Python client does.
"""

from __future__ import annotations

import socket
import struct
import time

from netutil.client.rpc.retry import Reconnects

SOCKET = "/etc/netutil/net.sock"
DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE, MAX_WINDOW = 4, 2**31 - 1
FRAME_HEADER, MESSAGE_HEADER = 9, 5


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header(name: bytes, value: bytes) -> bytes:
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


QUESTION = b"".join(
    header(name, value)
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/v1alpha.NetUtil/Watch"),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
)


def read(connection: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise ConnectionResetError
        parts += part
    return parts


def watch(reconnects: Reconnects) -> None:
    """Print snapshots until the stream ends. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(SOCKET)
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, MAX_WINDOW))
            + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", MAX_WINDOW - 65535))
            + frame(HEADERS, END_HEADERS, 1, QUESTION)
            + frame(DATA, END_STREAM, 1, bytes(MESSAGE_HEADER))
        )
        pending = b""
        while True:
            top = read(connection, FRAME_HEADER)
            payload = read(connection, int.from_bytes(top[:3], "big"))
            kind, flags = top[3], top[4]
            if kind in (SETTINGS, PING) and not flags & ACK:
                connection.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind == DATA:
                pending += payload
                while len(pending) >= MESSAGE_HEADER:
                    end = MESSAGE_HEADER + int.from_bytes(pending[1:MESSAGE_HEADER], "big")
                    if len(pending) < end:
                        break
                    pending = pending[end:]
                    reconnects.succeeded()
                    print(time.monotonic(), flush=True)
            elif kind == GOAWAY or (kind == HEADERS and flags & END_STREAM):
                return


def main() -> None:
    reconnects = Reconnects()
    while True:
        try:
            watch(reconnects)
        except OSError:
            pass
        print("lost", flush=True)
        time.sleep(reconnects.pause_seconds())


if __name__ == "__main__":
    main()
