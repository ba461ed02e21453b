"""A client in a pod that sends frames by hand. `command` returns what to run in a container.

`unread METHOD CONNECTIONS CALLS` calls, and gives the answers a window of one byte; it prints
"asked" and holds the calls until its standard input ends.
`endless` sends a header block that never ends, and prints how many bytes the agent took before it
closed the connection.
`path HEX` calls the method of that path, and returns once the agent has answered, or closed.
`misspelt` calls with 4000 fields `:status`, which a request may not have.
"""

from __future__ import annotations

import sys

from tests.support import http2
from tests.support.repository import ROOT

_SECONDS = 20
_MAX_BYTES = 64 * 1024 * 1024


def command(*arguments: str) -> list[str]:
    """Return the argument vector, which leaves the container's environment as it is."""
    program = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.support.raw_calls"]
    return [*program, *arguments]


def unread(method: str, connections: int, calls: int) -> None:
    held = [http2.connect() for _ in range(connections)]
    headers = http2.block(http2.request_fields(http2.path_of(method)))
    for connection in held:
        connection.sendall(http2.opening(window=1, connection_window=http2.DEFAULT_WINDOW))
        for stream in range(1, 2 * calls, 2):
            connection.sendall(http2.request(stream, headers))
    print("asked", flush=True)
    sys.stdin.read()


def endless() -> None:
    headers = http2.block(http2.request_fields(http2.path_of("GetCPUInfo")))
    more = http2.literal(b"x-more", b"y" * 120) * 100
    continuation = http2.frame(http2.CONTINUATION, 0, 1, more)
    sent = 0
    with http2.connect() as connection:
        connection.settimeout(_SECONDS)
        connection.sendall(http2.opening() + http2.frame(http2.HEADERS, 0, 1, headers))
        try:
            while sent < _MAX_BYTES:
                connection.sendall(continuation)
                sent += len(continuation)
        except (BrokenPipeError, ConnectionResetError):
            pass
    print(sent)


def call(block: bytes) -> None:
    """Call with that header block; return once the agent has ended the call or the connection."""
    with http2.connect() as connection:
        connection.settimeout(_SECONDS)
        try:
            connection.sendall(http2.opening() + http2.request(1, block))
            while not _ends_call(http2.read_frame(connection)):
                pass
        except (BrokenPipeError, ConnectionResetError):
            pass


def _ends_call(frame: http2.Frame) -> bool:
    if frame.kind == http2.HEADERS:
        return bool(frame.flags & http2.END_STREAM)
    return frame.kind == http2.RST_STREAM


if __name__ == "__main__":
    match sys.argv[1:]:
        case "unread", method, connections, calls:
            unread(method, int(connections), int(calls))
        case ["endless"]:
            endless()
        case "path", path:
            call(http2.block(http2.request_fields(bytes.fromhex(path))))
        case ["misspelt"]:
            fields = http2.block(http2.request_fields(http2.path_of("GetCPUInfo")))
            call(fields + b"\x08\x01x" * 4000)
        case _:
            sys.exit(__doc__)
