"""Runs a door with few descriptors until its standard input ends, then prints its counts.

Started by the tests as a process of its own, because RLIMIT_NOFILE is a process's.
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

from tests.door.rig import door_before, echo, open_descriptors

_SPARE_DESCRIPTORS = 14


async def main(folder: Path) -> None:
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    async with door_before(echo, folder) as rig:
        loop.add_reader(sys.stdin.fileno(), end.set)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_descriptors() + _SPARE_DESCRIPTORS, hard))
        started, used = time.monotonic(), time.process_time()
        print("open", flush=True)
        await end.wait()
        loop.remove_reader(sys.stdin.fileno())
        counts = dataclasses.asdict(rig.door.counts)
        counts["elapsed_seconds"] = time.monotonic() - started
        counts["used_seconds"] = time.process_time() - used
        counts["entries"] = len(rig.table)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(counts), flush=True)
    os.close(sys.stdin.fileno())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
