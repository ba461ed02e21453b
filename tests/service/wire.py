"""A hostile client, with nothing but a socket: HTTP/2 frames by hand (RFC 9113). Runs in a pod.

`python wire.py unread METHOD CONNECTIONS CALLS` asks and gives the answers no window to come
through; it prints "asked" and waits until its standard input ends.
`python wire.py endless` sends a header block that never ends, and prints how many bytes the
agent took before it broke off.
`python wire.py nameless` calls a method whose name is not UTF-8, `misspelt` sends 4000 headers
that gRPC refuses.
"""

from __future__ import annotations

import socket
import struct
import sys

SOCKET = "/etc/netutil/net.sock"
DATA, HEADERS, SETTINGS, CONTINUATION = 0, 1, 4, 9
END_STREAM, END_HEADERS = 1, 4
INITIAL_WINDOW_SIZE = 4
MOST_BYTES = 64 * 1024 * 1024


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def header(name: bytes, value: bytes) -> bytes:
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def question(method: str) -> bytes:
    return b"".join(
        header(name, value)
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", f"/v1alpha.NetUtil/{method}".encode()),
            (b":authority", b"localhost"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
        )
    )


def connected(window: int) -> socket.socket:
    return connected_to(SOCKET, window)


def connected_to(path: str, window: int) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    settings = frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, window))
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
    return connection


def unread(method: str, connections: int, calls: int) -> None:
    held = [connected(window=1) for _ in range(connections)]
    for connection in held:
        for stream in range(1, 2 * calls, 2):
            asked = frame(HEADERS, END_HEADERS, stream, question(method))
            connection.sendall(asked + frame(DATA, END_STREAM, stream, bytes(5)))
    print("asked", flush=True)
    sys.stdin.read()


def endless() -> None:
    connection = connected(window=65535)
    connection.settimeout(20)
    connection.sendall(frame(HEADERS, 0, 1, question("GetCPUInfo")))
    block = frame(CONTINUATION, 0, 1, header(b"x-more", b"y" * 120) * 100)
    sent = 0
    try:
        while sent < MOST_BYTES:
            connection.sendall(block)
            sent += len(block)
    except (BrokenPipeError, ConnectionResetError):
        pass
    print(sent)


def send(payload: bytes) -> None:
    """Send what stands for a header block, as one call, and wait until the agent ends it."""
    with connected(window=65535) as connection:
        connection.settimeout(20)
        asked = frame(HEADERS, END_HEADERS, 1, payload)
        try:
            connection.sendall(asked + frame(DATA, END_STREAM, 1, bytes(5)))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        except (BrokenPipeError, ConnectionResetError):
            pass


if __name__ == "__main__":
    match sys.argv[1]:
        case "unread":
            unread(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
        case "nameless":
            send(question("GetCPUInfo").replace(b"NetUtil", b"NetUti\xe2"))
        case "misspelt":
            send(question("GetCPUInfo") + b"\x08\x01x" * 4000)
        case _:
            endless()
