"""Runs an echo server with few descriptors until its standard input ends, then prints its counts.

The tests start it as a separate process, because RLIMIT_NOFILE belongs to a process.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import resource
import sys
import time
from pathlib import Path

from tests.support.processes import open_descriptors
from tests.unit.listener.harness import echo_server

_SPARE_DESCRIPTORS = 14


async def main(directory: Path) -> None:
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    async with echo_server(directory) as server:
        loop.add_reader(sys.stdin.fileno(), end.set)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_descriptors() + _SPARE_DESCRIPTORS, hard))
        started, used = time.monotonic(), time.process_time()
        print("open", flush=True)
        await end.wait()
        loop.remove_reader(sys.stdin.fileno())
        counts = dataclasses.asdict(server.counts)
        counts["elapsed_seconds"] = time.monotonic() - started
        counts["used_seconds"] = time.process_time() - used
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(counts), flush=True)
    os.close(sys.stdin.fileno())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
