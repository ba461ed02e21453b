"""The messages of a stream's two sides, as a handler reads and writes them.

Interpreted, unlike the rest of a call: mypyc compiles no asynchronous generator, and keeps an error
for ever if an `await` in a `finally` follows it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc


async def requests(context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
    """Return the messages of the client, each as it comes."""
    while True:
        message = await context.read()
        if message is grpc.aio.EOF:
            return
        yield message


async def write_all(context: grpc.aio.ServicerContext[Any, Any], messages: Any) -> None:
    """Send each message of an asynchronous iterator, then close it."""
    try:
        async for message in messages:
            await context.write(message)
    finally:
        # A generator is closed here and now, not once it is collected, in a task of its own.
        close = getattr(messages, "aclose", None)
        if close is not None:
            await close()
