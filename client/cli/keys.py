"""The key `q`, which ends a command that runs on a terminal."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

_QUIT = b"qQ"


class QuitKey:
    """Whether q was pressed; used on one event loop."""

    def __init__(self) -> None:
        self._pressed = asyncio.Event()

    async def wait(self, seconds: float) -> bool:
        """Wait that long, or until q is pressed; return whether it was."""
        try:
            async with asyncio.timeout(seconds):
                await self._pressed.wait()
        except TimeoutError:
            return False
        return True

    def read(self, descriptor: int) -> None:
        """Read the available keys. At the end of the input stop reading."""
        keys = os.read(descriptor, 64)
        if not keys:
            asyncio.get_running_loop().remove_reader(descriptor)
        if any(key in _QUIT for key in keys):
            self._pressed.set()


@contextmanager
def quit_key() -> Iterator[QuitKey]:
    """Read keys of a terminal one by one while the context lasts; without a terminal read none."""
    key = QuitKey()
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield key
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()
    tty.setcbreak(descriptor, termios.TCSADRAIN)
    loop.add_reader(descriptor, key.read, descriptor)
    try:
        yield key
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
