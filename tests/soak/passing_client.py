"""The program of a short-lived container: it asks for its identity, watches, and ends.

`python -S passing_client.py NAME` prints "ok", or what was not as it has to be. NAME is the value
of its variable WHO.
"""

from __future__ import annotations

import sys
import time

from tests.support import http2

_SECONDS = 60.0
_OK, _INVALID_ARGUMENT, _UNAVAILABLE = b"0", b"3", b"14"
_CALLS = (
    ("GetAll", b"", _OK),
    ("GetEnv", b"", _OK),
    ("GetCPUInfo", b"\x0a\x01x", _INVALID_ARGUMENT),  # pid: "x"
)


class _Calls:
    """One connection, and the calls over it."""

    def __init__(self) -> None:
        self._connection = http2.connect()
        self._connection.settimeout(_SECONDS)
        self._connection.sendall(http2.opening())
        self._stream = -1

    def call(self, method: str, request: bytes) -> tuple[bytes, bytes]:
        """Return the bytes of the answers and the status; of a stream, its first message.

        What is unavailable, as a read on a busy node that takes too long, is asked for again.
        """
        until = time.monotonic() + _SECONDS
        while True:
            data, status = self._call(method, request)
            if status != _UNAVAILABLE or time.monotonic() > until:
                return data, status

    def _call(self, method: str, request: bytes) -> tuple[bytes, bytes]:
        self._stream += 2
        headers = http2.block(http2.request_fields(http2.path_of(method)))
        body = http2.message(request)
        self._connection.sendall(http2.request(self._stream, headers, body=body))
        data = b""
        while True:
            frame = http2.read_frame(self._connection)
            if frame.stream != self._stream:
                continue
            if frame.kind == http2.HEADERS and frame.flags & http2.END_STREAM:
                return data, _status(frame.payload)
            if frame.kind == http2.DATA:
                data += frame.payload
                if method == "Watch" and len(data) >= 5 + int.from_bytes(data[1:5], "big"):
                    return data, _OK


def _status(trailers: bytes) -> bytes:
    _, _, after = trailers.partition(b"grpc-status")
    return after[1 : 1 + after[0]] if after else b""


def ask(name: str) -> str:
    """Return "ok", or what was not as it has to be. Raises OSError."""
    calls = _Calls()
    for method, request, expected in _CALLS:
        data, status = calls.call(method, request)
        if status != expected:
            return f"{method} ended with status {status!r}"
        if status == _OK and name.encode() not in data:
            return f"{method} does not say {name}"
    data, _ = calls.call("Watch", b"")
    return "ok" if name.encode() in data else f"Watch does not say {name}"


def main(name: str) -> str:
    """Ask, over a new connection where the agent has closed one that was silent for too long."""
    until = time.monotonic() + _SECONDS
    while True:
        try:
            return ask(name)
        except ConnectionError as error:  # this process may not have run since connect(2)
            if time.monotonic() > until:
                return f"the agent closes every connection: {error}"


if __name__ == "__main__":
    print(main(sys.argv[1]), flush=True)
