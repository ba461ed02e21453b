"""The shared parts of the conformance tests: a handler, and blocks of header fields."""

from __future__ import annotations

from typing import Any

from netutil.agent.grpcserver import frames as f
from netutil.agent.grpcserver.headers import encode_block

from tests.support.grpcserver.raw import Bench, RawClient, fields

METHOD = "/test.Own/Method"
SLOW, LARGE, MANY = "/test.Echo/Slow", "/test.Echo/Large", "/test.Echo/Many"
ABORTS, UNREAD, BOTH = "/test.Echo/Aborts", "/test.Echo/Unread", "/test.Echo/Both"


def register(bench: Bench, handler: Any) -> None:
    """Serve `handler` at `METHOD`."""
    bench.server.add_registered_method_handlers("test.Own", {"Method": handler})


def block(**changed: str | None) -> bytes:
    """The header block of a good request, changed as `fields` says."""
    return encode_block(fields(**changed))


def headers(stream: int, data: bytes | None = None, flags: int = f.END_HEADERS) -> bytes:
    """HEADERS, of a good request if there is no other block."""
    return f.frame(f.HEADERS, flags, stream, block() if data is None else data)


async def reset_code(client: RawClient, stream: int) -> int:
    """The code of the next RST_STREAM on a stream."""
    return int.from_bytes((await client.until(f.RST_STREAM, stream)).payload, "big")
