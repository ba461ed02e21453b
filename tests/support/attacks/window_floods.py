"""Games with flow control, and a peer that does not read, each with answers of 1 MB pending.

`python -m tests.support.attacks.window_floods NAME CONNECTIONS` runs until it is killed.
It starts itself again with an environment of 1 MB, for which it then asks.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from tests.support import http2
from tests.support.attacks.sender import Blocks, flood, hold
from tests.support.http2 import INITIAL_WINDOW_SIZE, frame, settings, window_update

_STREAMS, _PLAYS = 32, 200
_LARGE = {f"NETUTIL_TEST_{number}": "x" * 120_000 for number in range(9)}


def _opened(first: int, count: int) -> bytes:
    headers = http2.block(http2.request_fields(http2.path_of("GetEnv")))
    return b"".join(http2.request(stream, headers) for stream in range(first, first + 2 * count, 2))


def games(window: int, *plays: Callable[[range], bytes]) -> Callable[[], Blocks]:
    """Return a flood that asks on 32 streams, plays with their windows, resets them, and again.

    Each play is a write of its own, so that data can go between two of them.
    """

    def blocks() -> Blocks:
        yield http2.opening(window)
        for first in range(1, http2.MAX_STREAM - 2 * _STREAMS, 2 * _STREAMS):
            streams = range(first, first + 2 * _STREAMS, 2)
            yield _opened(first, _STREAMS)
            for _ in range(_PLAYS):
                yield from (play(streams) for play in plays)
            yield b"".join(map(http2.rst_stream, streams))

    return blocks


def _windows(*values: int) -> bytes:
    return b"".join(settings({INITIAL_WINDOW_SIZE: value}) for value in values)


def pings_unread() -> Blocks:
    """PING without end, from a peer that takes none of the acknowledgements."""
    yield http2.opening()
    while True:
        yield frame(http2.PING, 0, 0, bytes(8)) * 900


def _hold(opening: bytes, *, reads: bool = True) -> Callable[[int], None]:
    asked = opening + _opened(1, 64)
    return lambda connections: hold(asked, connections, reads=reads)


def _flood(blocks: Callable[[], Blocks], *, reads: bool = True) -> Callable[[int], None]:
    return lambda connections: flood(blocks, connections, reads=reads)


WINDOW_FLOODS: dict[str, Callable[[int], None]] = {
    "window-plus-one": _flood(
        games(0, lambda streams: b"".join(window_update(stream, 1) for stream in streams))
    ),
    "window-up-and-down": _flood(games(0, lambda _: _windows(1, 0) * 100)),
    "window-shrinks": _flood(
        games(0, lambda _: _windows(http2.DEFAULT_WINDOW), lambda _: _windows(0))
    ),
    "reader-with-window-0": _hold(http2.opening(window=0)),
    "reader-with-window-1": _hold(http2.opening(window=1)),
    "never-reads-answers": _hold(http2.opening(), reads=False),
    "never-reads-pings": _flood(pings_unread, reads=False),
}


def main() -> None:
    name, connections = sys.argv[1:]
    if not _LARGE.keys() <= os.environ.keys():
        module = [
            sys.executable,
            "-S",
            "-m",
            "tests.support.attacks.window_floods",
            name,
            connections,
        ]
        os.execve(sys.executable, module, os.environ | _LARGE)  # noqa: S606 - itself
    WINDOW_FLOODS[name](int(connections))


if __name__ == "__main__":
    main()
