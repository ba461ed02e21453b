"""A close that blocks the event loop is interrupted, where peers can pass descriptors."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time

from netutil.agent.ops.watchdog import Watchdog

LINGER_SECONDS = 60


def lingering() -> tuple[socket.socket, socket.socket]:
    """Return a TCP connection with unsent data whose close blocks (SO_LINGER, socket(7))."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    client.setblocking(False)
    try:
        while True:
            client.send(bytes(1 << 20))
    except BlockingIOError:
        pass
    client.setblocking(True)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER_SECONDS))
    return client, accepted


async def test_a_close_that_lingers_does_not_hold_the_loop_for_as_long() -> None:
    client, accepted = lingering()
    watchdog = Watchdog(LINGER_SECONDS / 2, interrupts=True)
    watchdog.start()
    try:
        began = time.monotonic()
        os.close(client.detach())
        assert time.monotonic() - began < LINGER_SECONDS / 4
        await asyncio.sleep(0)
        assert watchdog.stalls == 0
    finally:
        watchdog.stop()
        accepted.close()
