"""A relay's connection to the gRPC server, under the name that the server then reports."""

from __future__ import annotations

import asyncio
import contextlib
import socket

_CONNECT_SECONDS = 5.0
_CONNECT_RETRY_SECONDS = 0.01


async def connect_as(name: str, server_path: str) -> socket.socket:
    """Return a socket under an abstract name, connected to the gRPC server's private socket.

    Raises OSError; TimeoutError, which is one, if the server accepts nobody for five seconds.
    """
    upstream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        upstream.setblocking(False)
        upstream.bind(f"\0{name}")
        async with asyncio.timeout(_CONNECT_SECONDS):
            while True:
                with contextlib.suppress(BlockingIOError):
                    upstream.connect(server_path)
                    return upstream
                # The server's queue is full, and Unix sockets offer nothing to
                # wait on for that (connect(2), EAGAIN).
                await asyncio.sleep(_CONNECT_RETRY_SECONDS)
    except BaseException:
        upstream.close()
        raise
