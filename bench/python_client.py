"""The delays for a user of the Python client, and the cost of a value of its cache."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator

from bench import node
from bench.rows import Row, ratio
from bench.servers import AGENT, ECHO, THE_ECHO, servers, socket_of
from tests.support.lab import LabContainer

_CALLS = 200
_CLIENT = """
import json, sys, time
from netutil.client import Client
socket, calls = sys.argv[1], int(sys.argv[2])
took = []
with Client(socket, timeout_seconds=30) as client:
    client.pod()
    for _ in range(calls):
        began = time.perf_counter()
        client.pod()
        took.append(time.perf_counter() - began)
print(json.dumps(sorted(took)[calls // 2]))
"""
_CACHED = """
import json, sys, timeit
from netutil.client import Cached
with Cached(timeout_seconds=30) as facts:
    timer = timeit.Timer("facts.pod()", globals={"facts": facts})
    print(json.dumps(min(timer.repeat(5, 20000)) / 20000))
"""


def rows(*, quick: bool) -> Iterator[Row]:
    """Yield the rows of a call and of a value that is read again."""
    taken: dict[str, list[float]] = {ECHO: [], AGENT: []}
    with servers() as found:
        for _ in range(3 if quick else 7):
            for name, seconds in taken.items():
                answer = _output(found.container, _CLIENT, socket_of(name), str(_CALLS))
                seconds.append(float(answer))
        cached = json.loads(_output(found.container, _CACHED))
    yield ratio(
        "client.GetPod.p50",
        "`Client.pod()`, what a Python user waits, p50",
        "the same client, " + THE_ECHO,
        taken[AGENT],
        taken[ECHO],
        note=f"echo {1e6 * statistics.median(taken[ECHO]):.0f} µs",
    )
    yield Row(
        "client.cached",
        "`Cached.pod()`: a value read again",
        "absolute",
        cached * 1e6,
        "µs",
        note="best of 5 x 20000",
    )


def _output(container: LabContainer, program: str, *arguments: str) -> str:
    done: subprocess.CompletedProcess[bytes] = container.run(
        [sys.executable, "-c", program, *arguments], env=node.ENV, timeout=120
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return done.stdout.decode()
