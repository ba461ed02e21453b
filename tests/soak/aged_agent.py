"""The real agent with a monotonic clock that can be moved, and memory that can be given back.

`python tests/soak/aged_agent.py FLAGS…`. SIGUSR1 moves the clocks of the process on by ten
seconds, so that the timers of the event loop are due; SIGUSR2 collects garbage and returns free
memory to the kernel, so that what is left is what is held.
"""

from __future__ import annotations

import ctypes
import gc
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

STEP_SECONDS = 10.0
_steps: list[float] = []


def _moved(clock: Callable[[], float]) -> Callable[[], float]:
    return lambda: clock() + sum(_steps)


def _move(_: int, __: FrameType | None) -> None:
    _steps.append(STEP_SECONDS)


def _trim(_: int, __: FrameType | None) -> None:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    # Before anything of the agent is imported: some modules take the function itself.
    time.monotonic, time.perf_counter = _moved(time.monotonic), _moved(time.perf_counter)
    signal.signal(signal.SIGUSR1, _move)
    signal.signal(signal.SIGUSR2, _trim)
    from netutil.agent.__main__ import main

    sys.argv[0] = "netutil-agent"
    sys.exit(main())
