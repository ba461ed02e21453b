"""Bounds of an HTTP exchange: the size of a body, and the time of the whole exchange."""

from __future__ import annotations

import socket
import threading
import zlib
from contextlib import suppress
from types import TracebackType
from typing import Self

from netutil.agent.pods.model import PodListMalformed
from urllib3 import BaseHTTPResponse

_CHUNK_BYTES = 64 * 1024
_GZIP = 16 + zlib.MAX_WBITS  # zlib.h, inflateInit2: gzip only


def read_body(response: BaseHTTPResponse, largest_bytes: int) -> bytearray:
    """Return the whole body, decompressed.

    Raises `PodListMalformed` for one that is larger, and for gzip that is broken
    or ends early; what urllib3 and the socket raise passes through. Never holds more
    than `largest_bytes` and a chunk, however well the body is compressed.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise PodListMalformed(f"it is encoded as {encoding[:32]!r}, which was not asked for")
    gunzip = zlib.decompressobj(_GZIP) if encoding != "identity" else None
    body = bytearray()
    # read1 gives what has come; read would wait until a chunk is full.
    while chunk := response.read1(_CHUNK_BYTES, decode_content=False):
        body += _inflated(gunzip, chunk, largest_bytes + 1 - len(body)) if gunzip else chunk
        if len(body) > largest_bytes:
            raise PodListMalformed(f"it is larger than {largest_bytes} bytes")
    if gunzip and not gunzip.eof:
        raise PodListMalformed(f"its gzip ends early, after {len(body)} bytes decompressed")
    return body


def _inflated(gunzip: zlib._Decompress, chunk: bytes, most_bytes: int) -> bytes:
    try:
        found = gunzip.decompress(chunk, most_bytes)
    except zlib.error as error:
        raise PodListMalformed(f"its gzip is broken: {error}") from None
    if gunzip.unused_data:
        raise PodListMalformed("data follows its gzip")
    return found


class SocketDeadline:
    """Shuts the watched socket down after a time, or at once when `abort` is called.

    A socket's own timeout starts again with each byte, so a server that sends one byte now and
    then would block the reader for ever. After the shutdown the blocked call fails or finds the
    end of the stream; `passed` says that the deadline is the cause.
    """

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self.abort)
        self._timer.name = "pod-source-deadline"
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        self._socket = None

    def watch(self, connected: socket.socket) -> None:
        """Watch this socket: shut it down at the deadline, now if the deadline has passed."""
        self._socket = connected
        if self.passed:
            self.abort()

    def abort(self) -> None:
        """End the exchange. May be called from any thread. Does not block."""
        self.passed = True
        watched = self._socket
        if watched is not None:
            with suppress(OSError):
                # Not SSLSocket.shutdown: it would change the object under its reader.
                socket.socket.shutdown(watched, socket.SHUT_RDWR)
