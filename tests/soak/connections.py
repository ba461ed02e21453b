"""Opens and closes connections by the hundred thousand, and measures what stays behind.

`python -m tests.soak.connections [ENGINES [SOCKETS]]`: so many HTTP/2 engines fed with the bytes
of good and of broken clients (1 000 000), then so many real connections to a server with its
admission and limits in this process (a tenth). Exit 1 if memory grows with them.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import resource
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from netutil.agent.grpcserver import frames as f

from tests.support import http2
from tests.support.grpcserver.admission import WHO, rig
from tests.support.grpcserver.engine import Echoing
from tests.support.grpcserver.requests import block, headers
from tests.support.grpcserver.sessions import mutated, session
from tests.support.http2 import message
from tests.support.waiting import until

SHARES = (0.1, 0.5, 1.0)
_MAX_BLOCKS = 2000
"""Growth of allocated blocks from the first share to the last; one object a connection is more."""
_MAX_BYTES = 4 * 2**20
_GOOD = (
    f.PREFACE
    + f.settings_frame({})
    + headers(1, block(p_path=WHO))
    + f.frame(f.DATA, f.END_STREAM, 1, message(b"hello"))
)
_BATCH = 20


@dataclass(frozen=True, slots=True)
class Held:
    """The memory of this process: blocks of Python's allocator, and resident anonymous bytes."""

    connections: int
    blocks: int
    anonymous_bytes: int


def held(connections: int) -> Held:
    """Measure after a garbage collection, without what malloc keeps although it is free."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc
        trim(0)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (one for one in status.splitlines() if one.startswith("RssAnon:"))
    return Held(connections, sys.getallocatedblocks(), int(line.split()[1]) * 1024)


def engines(count: int, seed: int = 1) -> Iterator[Held]:
    """Open and close engines; yield what is held at each of `SHARES`."""
    choose = Random(seed)  # noqa: S311 - it only has to vary
    inputs = [_GOOD] * 40 + [f.PREFACE + mutated(session(choose), choose) for _ in range(10)]
    marks = {round(count * share) for share in SHARES}
    for number in range(1, count + 1):
        echo = Echoing()
        echo.http2.receive(inputs[number % len(inputs)])
        echo.take()
        echo.http2.close_streams()
        if number in marks:
            yield held(number)


async def sockets(count: int, directory: Path) -> AsyncIterator[Held]:
    """Open and close real connections in batches; yield what is held at each of `SHARES`."""
    marks = {round(count * share / _BATCH) * _BATCH for share in SHARES}
    async with rig(directory) as it:
        for number in range(_BATCH, count + 1, _BATCH):
            await asyncio.to_thread(_connect, it.path, number)
            if number in marks:
                await until(lambda: not it.registry and not it.server.connections)
                yield held(number)


def _connect(path: str, number: int) -> None:
    """Make a batch of connections: most ask, others leave without a word or break the protocol."""
    for index in range(_BATCH):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(path)
            if index == 0:
                continue
            with suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(_GOOD if index % 5 else bytes([number % 256]) * 50)
                _read_answer(client)


def _read_answer(client: socket.socket) -> None:
    """Read to the end of the answer, or of the connection."""
    while True:
        try:
            frame = http2.read_frame(client)
        except ConnectionResetError:
            return
        if frame.kind == f.HEADERS and frame.flags & f.END_STREAM:
            return


def faults(found: list[Held]) -> list[str]:
    """Say what grew with the connections; empty if nothing did."""
    first, last = found[0], found[-1]
    blocks, grown = last.blocks - first.blocks, last.anonymous_bytes - first.anonymous_bytes
    said = []
    if blocks > _MAX_BLOCKS:
        said.append(f"{blocks} more blocks after {last.connections} connections")
    if grown > _MAX_BYTES:
        said.append(f"{grown} more bytes after {last.connections} connections")
    return said


def _report(what: str, found: list[Held], seconds: float) -> bool:
    for one in found:
        print(
            f"{what}: after {one.connections:>9,} connections {one.blocks:>9,} blocks,"
            f" {one.anonymous_bytes / 2**20:.1f} MiB"
        )
    print(f"{what}: {seconds:.0f} s, {found[-1].connections / seconds:,.0f} a second")
    said = faults(found)
    for fault in said:
        print(f"{what}: {fault}")
    return not said


async def _sockets(count: int) -> list[Held]:
    with tempfile.TemporaryDirectory() as directory:
        return [one async for one in sockets(count, Path(directory))]


def main(argv: list[str]) -> int:
    """Run both; return 1 if memory grew."""
    engine_count = int(argv[0]) if argv else 1_000_000
    socket_count = int(argv[1]) if argv[1:] else engine_count // 10
    began = time.monotonic()
    flat = _report("engines", list(engines(engine_count)), time.monotonic() - began)
    began = time.monotonic()
    flat &= _report("sockets", asyncio.run(_sockets(socket_count)), time.monotonic() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak: {peak / 1024:.1f} MiB resident")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
